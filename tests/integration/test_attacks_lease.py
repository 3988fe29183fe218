"""Users who can write the controller's Lease: what they can stop, and what they cannot do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from tests.support.cluster import KubectlError
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

LEASE = ("lease", "openfero-gitops")


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Iterator[tuple[Replica, Replica]]:
    """Give two replicas with a lease of three seconds."""
    folder = tmp_path_factory.mktemp("lease")
    repository = Repository(folder / "operarios")
    repository.write("web.json", operario("WebDown"))
    repository.commit("Operarios")
    first, second = (
        Replica(
            folder,
            name=name,
            kubeconfig=kubeconfig,
            namespace=shared_namespace,
            repository=repository.url,
            development=False,
            lease_duration="3s",
            renew_deadline="2s",
            retry_period="500ms",
        )
        for name in ("ada", "bob")
    )
    with first, second:
        yield first, second


def leaders(replicas: tuple[Replica, Replica]) -> list[Replica]:
    """Return the replicas that say that they lead."""
    return [replica for replica in replicas if replica.leads]


def wait_for_one(replicas: tuple[Replica, Replica]) -> Replica:
    """Wait until exactly one replica leads."""
    alone: list[Replica] = replicas[0].wait_for(
        lambda: leading if len(leading := leaders(replicas)) == 1 else []
    )
    return alone[0]


def stored_lease(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    """Return the Lease."""
    lease: dict[str, Any] = kubectl.json("get", *LEASE, "-n", namespace)
    return lease


def overwrite(kubectl: Kubectl, namespace: str, spec: object, **annotations: str) -> None:
    """Write into the Lease."""
    patch = {"metadata": {"annotations": annotations}, "spec": spec}
    kubectl("patch", *LEASE, "-n", namespace, "--type=merge", "-p", json.dumps(patch))


def deliver(replica: Replica, namespace: str, kubectl: Kubectl, host: str) -> Any:
    """Deliver an alert, and return a function that reads its Job."""
    status, answer = replica.deliver(alert("WebDown", host=host))
    assert status == 200, answer
    name = answer["items"][0]["job"]
    return lambda: kubectl.json("get", "job", name, "-n", namespace)


def admitted(job: dict[str, Any]) -> bool:
    """Whether the leader has started a Job."""
    return keys.ADMITTED_AT in job["metadata"]["annotations"]


def test_a_deleted_lease_costs_a_term_and_no_job(
    replicas: tuple[Replica, Replica], kubectl: Kubectl, shared_namespace: str
) -> None:
    """Deleted again and again, it is made again, and each alert's Job is started once."""
    for number in range(3):
        wait_for_one(replicas)
        kubectl("delete", *LEASE, "-n", shared_namespace)
        job = deliver(replicas[number % 2], shared_namespace, kubectl, f"deleted-{number}")
        replicas[0].wait_for(lambda job=job: admitted(job()))  # type: ignore[misc]
        # A leader knows of a deletion when it renews the next time.
        replicas[0].wait_for(lambda: kubectl.json("get", "leases", "-n", shared_namespace)["items"])
    wait_for_one(replicas)


def test_a_forged_release_does_not_start_a_job_twice(
    replicas: tuple[Replica, Replica], kubectl: Kubectl, shared_namespace: str
) -> None:
    """A release with the mark of a settled term ends with one leader, and each Job started once."""
    leader = wait_for_one(replicas)
    jobs = []
    for number in range(3):
        lease = stored_lease(kubectl, shared_namespace)
        spec = lease["spec"]
        mark = "/".join(
            (lease["metadata"]["uid"], str(spec["leaseTransitions"]), spec["acquireTime"])
        )
        jobs.append(deliver(leader, shared_namespace, kubectl, f"released-{number}"))
        overwrite(kubectl, shared_namespace, {"holderIdentity": ""}, **{keys.SETTLED: mark})
        leader = wait_for_one(replicas)
    for job in jobs:
        replicas[0].wait_for(lambda job=job: admitted(job()))  # type: ignore[misc]
        stored = job()
        assert stored["spec"]["suspend"] is False
        term = stored["metadata"]["annotations"][keys.TERM]
        assert term.startswith((leader.name + "/", "ada/", "bob/"))


@pytest.mark.parametrize(
    "spec",
    [
        {"leaseTransitions": 2**31 - 1},
        {"renewTime": "2199-01-01T00:00:00.000000Z"},
        {"acquireTime": None},
        {"leaseDurationSeconds": None},
        {"holderIdentity": "x" * 10_000, "leaseDurationSeconds": 1},
    ],
    ids=["most transitions", "renewed in the future", "never acquired", "no duration", "long name"],
)
def test_a_scribbled_lease_is_recovered(
    replicas: tuple[Replica, Replica],
    kubectl: Kubectl,
    shared_namespace: str,
    spec: dict[str, object],
) -> None:
    """Whatever is written into it once, a replica leads again soon after it expires."""
    wait_for_one(replicas)
    overwrite(kubectl, shared_namespace, spec)
    host = f"scribbled-{next(iter(spec))}-{len(spec)}"
    job = deliver(replicas[0], shared_namespace, kubectl, host)
    replicas[0].wait_for(lambda: admitted(job()))
    wait_for_one(replicas)


@pytest.mark.parametrize("duration", [0, -1, 2**31])
def test_the_api_server_refuses_impossible_durations(
    replicas: tuple[Replica, Replica], kubectl: Kubectl, shared_namespace: str, duration: int
) -> None:
    """Neither zero, nor negative, nor more than an int32."""
    wait_for_one(replicas)
    with pytest.raises(KubectlError, match=r"leaseDurationSeconds|cannot"):
        overwrite(kubectl, shared_namespace, {"leaseDurationSeconds": duration})


def test_a_stolen_lease_is_reported_and_alerts_still_have_jobs(
    replicas: tuple[Replica, Replica], kubectl: Kubectl, shared_namespace: str
) -> None:
    """Held for years by a stranger, nothing starts, both replicas say so, and no Job is lost.

    Deleting the Lease and restarting the replicas ends it.
    """
    wait_for_one(replicas)
    spec = {
        "holderIdentity": "mallory",
        "leaseDurationSeconds": 2**31 - 1,
        "renewTime": "2199-01-01T00:00:00.000000Z",
    }
    overwrite(kubectl, shared_namespace, spec)
    replicas[0].wait_for(lambda: not leaders(replicas))
    job = deliver(replicas[1], shared_namespace, kubectl, "stolen")

    for replica in replicas:
        replica.wait_for(lambda replica=replica: "mallory" in replica.read("/readyz"))  # type: ignore[misc]
    assert not leaders(replicas)
    assert not admitted(job())
    for replica in replicas:
        assert "the Lease is held by" in replica.read("/")
        replica.process.end()
    kubectl("delete", *LEASE, "-n", shared_namespace)
    for replica in replicas:
        replica.process.start()
    replicas[0].wait_for(lambda: admitted(job()))
    wait_for_one(replicas)

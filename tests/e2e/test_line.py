"""The straight line on real parts: Prometheus, two Alertmanagers, two replicas, one API server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chart import install_chart, service_account_kubeconfig
from tests.support.monitoring import alertmanager_pair, prometheus, webhook_route
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]


def eventually(look: Callable[[], Any], patience: float = 300.0) -> Any:
    """Return the first truthy answer; fail with the last one."""
    deadline = time.monotonic() + patience
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"still {seen!r} after {patience} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give a repository with an operario for HostDown, and one that never ends."""
    made = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    made.write("hostdown.json", operario("HostDown"))
    made.write("hostdown-resolved.json", operario("HostDown", status="resolved"))
    made.write("slow.json", operario("Slow", run_for="forever"))
    made.commit("Operarios")
    return made


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
    jobs_namespace: str,
    repository: Repository,
) -> Iterator[tuple[Replica, Replica]]:
    """Give two replicas that have the rights of the chart's ServiceAccount, and no others.

    All tests share them, and each has hosts of its own.
    """
    folder = tmp_path_factory.mktemp("pair")
    address = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}
    install_chart(kubeconfig, shared_namespace, address)
    start = {
        "kubeconfig": service_account_kubeconfig(kubeconfig, shared_namespace, folder),
        "roles": False,
        "namespace": shared_namespace,
        "repository": repository.url,
        "jobs_namespace": jobs_namespace,
    }
    with Replica(folder, name="a", **start) as a, Replica(folder, name="b", **start) as b:
        eventually(lambda: a.leads or b.leads)
        yield a, b


@pytest.fixture
def alertmanagers(tmp_path: Path, pair: tuple[Replica, Replica]) -> Iterator[list[str]]:
    """Give the addresses of two clustered Alertmanagers that both deliver to both replicas."""
    route = webhook_route(replica.url for replica in pair)
    with alertmanager_pair(tmp_path, route) as addresses:
        yield addresses


def jobs(kubectl: Kubectl, namespace: str, *hosts: str) -> list[Any]:
    """Return the Jobs for the alerts of these hosts."""
    items = kubectl.json("get", "jobs", "-n", namespace)["items"]
    return [job for job in items if host_of(job) in hosts]


def host_of(job: Any) -> str:
    """Return the label `host` of a Job's alert."""
    return str(json.loads(annotation(job, "alert"))["labels"]["host"])


def remediations(replica: Replica, host: str, query: str = "") -> list[Any]:
    """Return the remediations of a host's alerts, as the API shows them."""
    items = replica.get(f"/api/remediations?{query}")["items"]
    return [item for item in items if item["labels"]["host"] == host]


def repetitions(pair: tuple[Replica, Replica]) -> int:
    """Return how many deliveries have found their Job."""
    return sum(
        '"exists"' in line and '"code": 200' in line
        for replica in pair
        for line in replica.process.output.splitlines()
    )


def admitted(job: Any) -> bool:
    """Whether a Job was started by the leader."""
    return "openfero.io/admitted-at" in job["metadata"]["annotations"]


def annotation(job: Any, key: str) -> str:
    """Return one of our annotations."""
    return str(job["metadata"]["annotations"][f"openfero.io/{key}"])


@pytest.mark.prometheus
@pytest.mark.alertmanager
def test_a_firing_rule_heals_once_with_its_commit_however_often_it_is_delivered(
    tmp_path: Path,
    kubectl: Kubectl,
    jobs_namespace: str,
    repository: Repository,
    pair: tuple[Replica, Replica],
    alertmanagers: list[str],
) -> None:
    """A rule that fires becomes one Job with the commit, though four deliveries name it."""
    rule = {
        "alert": "HostDown",
        "expr": "vector(1)",
        "labels": {"severity": "critical", "host": "db-1"},
    }
    with prometheus(tmp_path, [rule], alertmanagers):
        job = eventually(
            lambda: [job for job in jobs(kubectl, jobs_namespace, "db-1") if admitted(job)]
        )[0]
        assert annotation(job, "commit") == repository.head
        assert annotation(job, "path") == "hostdown.json"
        eventually(
            lambda: [
                condition
                for condition in jobs(kubectl, jobs_namespace, "db-1")[0]["status"].get(
                    "conditions", []
                )
                if condition["type"] == "Complete"
            ]
        )
        # Both Alertmanagers repeat every two seconds, to both replicas.
        eventually(lambda: repetitions(pair) >= 8)
        assert len(jobs(kubectl, jobs_namespace, "db-1")) == 1
    delivered = [item for replica in pair for item in remediations(replica, "db-1")]
    assert [item["phase"] for item in delivered] == ["Succeeded", "Succeeded"]


def test_a_new_commit_shows_on_the_next_job(
    kubectl: Kubectl, jobs_namespace: str, repository: Repository, pair: tuple[Replica, Replica]
) -> None:
    """A Job carries the commit that was in force when its alert came; an older Job keeps its."""
    first = repository.head
    assert pair[0].deliver(alert("HostDown", host="one"))[0] == 200
    repository.write("hostdown.json", operario("HostDown") + "\n")
    second = repository.commit("Reviewed")
    eventually(lambda: pair[1].get("/api/sync")["revision"]["commit"] == second)
    assert pair[1].deliver(alert("HostDown", host="two"))[0] == 200
    commits = {
        host_of(job): annotation(job, "commit")
        for job in jobs(kubectl, jobs_namespace, "one", "two")
    }
    assert commits == {"one": first, "two": second}


def test_a_start_that_wobbles_between_two_senders_heals_once(
    kubectl: Kubectl, jobs_namespace: str, pair: tuple[Replica, Replica]
) -> None:
    """A Prometheus pair that saw one problem at different times causes one run, one refusal."""
    late = alert("HostDown", host="wobble") | {"startsAt": "2026-11-21T03:00:30.5Z"}
    early = alert("HostDown", host="wobble") | {"startsAt": "2026-11-21T03:00:00.1Z"}
    assert pair[0].deliver(late)[0] == 200
    assert pair[1].deliver(early)[0] == 200
    assert pair[0].deliver(late)[0] == 200

    def settled() -> list[Any]:
        items = remediations(pair[0], "wobble")
        return items if sorted(i["phase"] for i in items) == ["Refused", "Succeeded"] else []

    items = eventually(settled)
    assert sorted((item["phase"], item["reason"]) for item in items) == [
        ("Refused", "same-incident"),
        (
            "Succeeded",
            items[0]["reason"] if items[0]["phase"] == "Succeeded" else items[1]["reason"],
        ),
    ]
    assert sum(map(admitted, jobs(kubectl, jobs_namespace, "wobble"))) == 1


def test_a_resolved_alert_is_recorded_and_cancels_what_waits(
    pair: tuple[Replica, Replica],
) -> None:
    """The resolved delivery marks the firing Job before its answer; a waiting one is refused."""
    assert pair[0].deliver(alert("Slow", host="h"))[0] == 200
    eventually(lambda: remediations(pair[0], "h", "phase=Running"))
    assert pair[0].deliver(alert("HostDown", host="h"))[0] == 200
    status, _ = pair[1].deliver(alert("HostDown", "resolved", host="h"))
    assert status == 200
    refused = eventually(
        lambda: remediations(pair[0], "h", "alert=HostDown&status=firing&phase=Refused")
    )
    assert refused[0]["reason"] == "resolved"
    assert refused[0]["resolvedAt"] == "2026-11-21T03:10:00.000000Z"


def test_killing_the_leader_between_creation_and_admission_delays_the_job_only(
    kubectl: Kubectl, jobs_namespace: str, pair: tuple[Replica, Replica]
) -> None:
    """A Job that waits when the leader crashes is admitted once, by the next leader.

    The last test of the file, since the pair is one replica then.
    """
    leader, other = pair if pair[0].leads else pair[::-1]
    # Its target is busy, so that the Job waits: this is the moment in which the leader dies.
    assert leader.deliver(alert("Slow", host="busy"))[0] == 200
    eventually(lambda: all(map(admitted, jobs(kubectl, jobs_namespace, "busy"))))
    assert other.deliver(alert("HostDown", host="busy"))[0] == 200
    eventually(
        lambda: [
            item
            for item in remediations(leader, "busy", "phase=Waiting")
            if item["reason"] == "target-busy"
        ]
    )
    leader.kill()
    slow = next(j["metadata"]["name"] for j in jobs(kubectl, jobs_namespace, "busy") if admitted(j))
    kubectl("delete", "job", slow, "-n", jobs_namespace, "--wait=false")
    eventually(
        lambda: [
            j
            for j in jobs(kubectl, jobs_namespace, "busy")
            if admitted(j) and "hostdown" in j["metadata"]["name"]
        ]
    )
    assert other.leads
    healed = [
        j for j in jobs(kubectl, jobs_namespace, "busy") if "hostdown" in j["metadata"]["name"]
    ]
    assert [annotation(job, "admitted-by") for job in healed] == [other.name]

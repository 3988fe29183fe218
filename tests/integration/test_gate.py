"""Approve, refuse, cancel and pause on a real API server, with Kubernetes identities."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.commands.operator import APPROVE, CANCEL, REFUSE, act_on_job, pause
from openfero_gitops.domain.errors import UsageError
from tests.support.chart import service_account_kubeconfig
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]


@pytest.fixture
def replica(tmp_path: Path, kubeconfig: Path, namespace: str) -> Iterator[Replica]:
    """Start a replica with an operario that needs approval, and one whose Jobs never end."""
    repository = Repository(tmp_path / "operarios")
    repository.write(
        "risky.json", operario("Risky", annotations={"openfero.io/approval": "required"})
    )
    repository.write("slow.json", operario("Slow", run_for="forever"))
    repository.commit("Operarios")
    with Replica(
        tmp_path, name="a", kubeconfig=kubeconfig, namespace=namespace, repository=repository.url
    ) as started:
        started.wait_for(lambda: started.leads)
        yield started


def deliver(replica: Replica, name: str, phase: str) -> str:
    """Deliver an alert, wait until its Job reaches a phase, and return the Job's name."""
    _, answer = replica.deliver(alert(name, host="h"))
    job: str = answer["items"][0]["job"]
    replica.wait_for(lambda: at(replica, job)["phase"] == phase)
    return job


def at(replica: Replica, job: str) -> dict[str, str]:
    """Return one remediation as the API shows it."""
    items = replica.get("/api/remediations")["items"]
    return next((item for item in items if item["job"] == job), {"phase": ""})


def test_an_approved_job_starts_and_names_its_approver(
    replica: Replica, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """A Job that needs approval waits for it, and then runs."""
    job = deliver(replica, "Risky", "AwaitingApproval")
    assert at(replica, job)["reason"] == "approval"
    output = asyncio.run(act_on_job(APPROVE, job, kubeconfig, namespace))
    assert output.startswith(f"Job {namespace}/{job} approved by ")
    replica.wait_for(lambda: at(replica, job)["phase"] == "Succeeded")
    stored = kubectl.json("get", "job", job, "-n", namespace)
    approver = stored["metadata"]["annotations"]["openfero.io/approved-by"]
    assert output.endswith(f"by {approver}")


def test_a_refused_job_never_starts(replica: Replica, kubeconfig: Path, namespace: str) -> None:
    """A refusal is final, and a later approval is reported as too late."""
    job = deliver(replica, "Risky", "AwaitingApproval")
    asyncio.run(act_on_job(REFUSE, f"{namespace}/{job}", kubeconfig, None))
    replica.wait_for(lambda: at(replica, job)["phase"] == "Refused")
    assert at(replica, job)["reason"] == "refused-by-human"
    with pytest.raises(UsageError, match="cannot be approved: its phase is Refused"):
        asyncio.run(act_on_job(APPROVE, job, kubeconfig, namespace))
    _, answer = replica.deliver(alert("Risky", host="h"))
    assert answer["items"][0]["outcome"] == "exists"


def test_a_running_job_is_stopped_and_remembered(
    replica: Replica, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """Cancelling ends the Pods; a repeated alert does not start the Job again."""
    job = deliver(replica, "Slow", "Running")
    asyncio.run(act_on_job(CANCEL, job, kubeconfig, namespace))
    replica.wait_for(lambda: at(replica, job)["phase"] == "Cancelled")

    def ended() -> bool:
        status = kubectl.json("get", "job", job, "-n", namespace)["status"]
        return any(c["type"] == "Failed" for c in status.get("conditions", []))

    replica.wait_for(ended)
    _, answer = replica.deliver(alert("Slow", host="h"))
    assert answer["items"][0] | {"outcome": "exists", "job": job} == answer["items"][0]
    assert at(replica, job)["message"].startswith("cancelled by ")


def test_without_permission_nothing_happens(
    replica: Replica, tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """A user without permission to patch Jobs gets an error with the user's name."""
    job = deliver(replica, "Risky", "AwaitingApproval")
    kubectl("create", "role", "reader", "--verb=get", "--resource=jobs", "-n", namespace)
    kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:default",
        "-n", namespace,
    )  # fmt: skip
    reader = service_account_kubeconfig(kubeconfig, namespace, tmp_path, account="default")
    account = f"system:serviceaccount:{namespace}:default"
    with pytest.raises(UsageError, match=f"{account} has no permission to patch Jobs"):
        asyncio.run(act_on_job(APPROVE, job, reader, namespace))
    assert at(replica, job)["phase"] == "AwaitingApproval"


def test_foreign_jobs_are_not_touched(kubeconfig: Path, kubectl: Kubectl, namespace: str) -> None:
    """A foreign Job and a missing Job are each reported on one line."""
    kubectl("create", "job", "theirs", "--image=registry.k8s.io/pause:3.10", "-n", namespace)
    with pytest.raises(UsageError, match="not managed by openfero-gitops"):
        asyncio.run(act_on_job(CANCEL, "theirs", kubeconfig, namespace))
    with pytest.raises(UsageError, match="not found"):
        asyncio.run(act_on_job(CANCEL, "nothing", kubeconfig, namespace))
    with pytest.raises(UsageError, match="write NAME or NAMESPACE/NAME"):
        asyncio.run(act_on_job(CANCEL, "a/b/c", kubeconfig, namespace))


def test_nothing_starts_between_pause_and_resume(
    replica: Replica, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """Once the leader has acknowledged a pause, alerts are accepted and their Jobs wait."""
    output = asyncio.run(pause(True, kubeconfig, namespace, 20))  # noqa: FBT003
    assert output.startswith("admission paused by ")
    job = deliver(replica, "Slow", "Waiting")
    replica.wait_for(lambda: at(replica, job)["reason"] == "paused")
    stored = kubectl.json("get", "job", job, "-n", namespace)
    assert "openfero.io/admitted-at" not in stored["metadata"]["annotations"]
    assert asyncio.run(pause(False, kubeconfig, namespace, 20)).startswith("admission resumed by ")  # noqa: FBT003
    replica.wait_for(lambda: at(replica, job)["phase"] == "Running")


def test_a_pause_that_no_leader_acknowledges_is_reported(kubeconfig: Path, namespace: str) -> None:
    """Without a controller the command reports that the pause is not confirmed."""
    with pytest.raises(UsageError, match="no leader confirmed it within 1 s"):
        asyncio.run(pause(True, kubeconfig, namespace, 1))  # noqa: FBT003

"""Approve, refuse, cancel and pause on a real API server, with Kubernetes identities."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.commands.control import pause, resume
from openfero_gitops.commands.operator import APPROVE, CANCEL, REFUSE, act_on_job
from openfero_gitops.domain.errors import UsageError
from tests.support.chart import service_account_kubeconfig
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Iterator[Replica]:
    """Start a replica with an operario that needs approval, and one whose Jobs never end.

    All tests share it; each has an alert of its own.
    """
    folder = tmp_path_factory.mktemp("replica")
    repository = Repository(folder / "operarios")
    repository.write(
        "risky.json", operario("Risky", annotations={"openfero.io/approval": "required"})
    )
    repository.write("slow.json", operario("Slow", run_for="forever"))
    repository.commit("Operarios")
    with Replica(
        folder,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
    ) as started:
        started.wait_for(lambda: started.leads)
        yield started


def test_an_approved_job_starts_and_names_its_approver(
    replica: Replica, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """A Job that needs approval waits for it, and then runs."""
    job = replica.remediate("Risky", "approved", "AwaitingApproval")
    assert replica.remediation(job)["reason"] == "approval"
    output = str(asyncio.run(act_on_job(APPROVE, job, kubeconfig, shared_namespace)))
    assert output.startswith(f"Job {shared_namespace}/{job} approved by ")
    replica.wait_for(lambda: replica.remediation(job)["phase"] == "Succeeded")
    stored = kubectl.json("get", "job", job, "-n", shared_namespace)
    approver = stored["metadata"]["annotations"]["openfero.io/approved-by"]
    assert output.endswith(f"by {approver}")


def test_a_refused_job_never_starts(
    replica: Replica, kubeconfig: Path, shared_namespace: str
) -> None:
    """A refusal is final, and a later approval is reported as too late."""
    job = replica.remediate("Risky", "refused", "AwaitingApproval")
    asyncio.run(act_on_job(REFUSE, f"{shared_namespace}/{job}", kubeconfig, None))
    replica.wait_for(lambda: replica.remediation(job)["phase"] == "Refused")
    assert replica.remediation(job)["reason"] == "refused-by-human"
    with pytest.raises(UsageError, match="cannot be approved: its phase is Refused"):
        asyncio.run(act_on_job(APPROVE, job, kubeconfig, shared_namespace))
    _, answer = replica.deliver(alert("Risky", host="refused"))
    assert answer["items"][0]["outcome"] == "exists"


def test_a_running_job_is_stopped_and_remembered(
    replica: Replica, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """Cancelling ends the Pods; a repeated alert does not start the Job again."""
    job = replica.remediate("Slow", "cancelled", "Running")
    asyncio.run(act_on_job(CANCEL, job, kubeconfig, shared_namespace))
    replica.wait_for(lambda: replica.remediation(job)["phase"] == "Cancelled")

    def ended() -> bool:
        status = kubectl.json("get", "job", job, "-n", shared_namespace)["status"]
        return any(c["type"] == "Failed" for c in status.get("conditions", []))

    replica.wait_for(ended)
    _, answer = replica.deliver(alert("Slow", host="cancelled"))
    assert answer["items"][0] | {"outcome": "exists", "job": job} == answer["items"][0]
    assert replica.remediation(job)["message"].startswith("cancelled by ")


def test_without_permission_nothing_happens(
    replica: Replica, tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """A user without permission to patch Jobs gets an error with the user's name."""
    job = replica.remediate("Risky", "forbidden", "AwaitingApproval")
    kubectl("create", "role", "reader", "--verb=get", "--resource=jobs", "-n", shared_namespace)
    kubectl(
        "create", "rolebinding", "reader", "--role=reader", "-n", shared_namespace,
        f"--serviceaccount={shared_namespace}:default",
    )  # fmt: skip
    reader = service_account_kubeconfig(kubeconfig, shared_namespace, tmp_path, account="default")
    account = f"system:serviceaccount:{shared_namespace}:default"
    with pytest.raises(UsageError, match=f"{account} has no permission to patch Jobs"):
        asyncio.run(act_on_job(APPROVE, job, reader, shared_namespace))
    assert replica.remediation(job)["phase"] == "AwaitingApproval"


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
    replica: Replica, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """Once the leader has acknowledged a pause, alerts are accepted and their Jobs wait."""
    output = asyncio.run(pause(kubeconfig, shared_namespace, 120))
    assert str(output).startswith("admission paused by ")
    job = replica.remediate("Slow", "paused", "Waiting")
    replica.wait_for(lambda: replica.remediation(job)["reason"] == "paused")
    stored = kubectl.json("get", "job", job, "-n", shared_namespace)
    assert "openfero.io/admitted-at" not in stored["metadata"]["annotations"]
    output = asyncio.run(resume(kubeconfig, shared_namespace, 120))
    assert str(output).startswith("admission resumed by ")
    replica.wait_for(lambda: replica.remediation(job)["phase"] == "Running")


def test_a_pause_that_no_leader_acknowledges_is_reported(kubeconfig: Path, namespace: str) -> None:
    """Without a controller the command reports that the pause is not confirmed."""
    with pytest.raises(UsageError, match="no leader confirmed it within 1 s"):
        asyncio.run(pause(kubeconfig, namespace, 1))

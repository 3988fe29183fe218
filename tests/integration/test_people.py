"""Changes to our Jobs by others on a real API server: users with kubectl, and Kueue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.commands.control import pause, resume
from tests.support.chart import controller_kubeconfig
from tests.support.cluster import KubectlError
from tests.support.desk import Desk
from tests.support.replica import alert, operario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]

PATIENCE = 300.0
QUEUE = "kueue.x-k8s.io/queue-name"
ADDRESS = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}
SLOW_TARGET = {"openfero.io/cooldown": "0", "openfero.io/target": "host"}


def queued(name: str, **pod: str) -> str:
    """Return an operario for a Kueue queue."""
    value = json.loads(operario(name, annotations=SLOW_TARGET, **pod))
    value["metadata"]["labels"] = {QUEUE: "healing"}
    return json.dumps(value, indent=2)


class UserDesk(Desk):
    """What a user does to the Jobs of some operarios.

    All tests but one share it; each has alerts of its own.
    """

    def __init__(self, folder: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str) -> None:
        """Commit the operarios."""
        controller = controller_kubeconfig(
            kubeconfig, namespace, folder, jobs_namespaces=[namespace]
        )
        super().__init__(folder, kubectl, controller, namespace)
        self.kubeconfig = kubeconfig
        self.repository.write("quick.json", operario("Quick", annotations=SLOW_TARGET))
        self.repository.write(
            "slow.json", operario("Slow", annotations=SLOW_TARGET, run_for="forever")
        )
        self.repository.write("queued.json", queued("Queued", run_for="forever"))
        self.repository.write(
            "risky.json", operario("Risky", annotations={"openfero.io/approval": "required"})
        )
        self.repository.commit("Operarios")

    def patch(self, name: str, change: dict[str, Any]) -> None:
        """Patch a Job as a user."""
        where = ("-n", self.namespace, "--type=merge", "-p", json.dumps(change))
        self.kubectl("patch", "job", name, *where)

    def suspend(self, name: str, *, value: bool) -> None:
        """Suspend or resume a Job as a user."""
        self.patch(name, {"spec": {"suspend": value}})

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Return a Job's Pods that have not ended."""
        where = ("-n", self.namespace, "-l", f"batch.kubernetes.io/job-name={name}")
        pods = self.kubectl.json("get", "pods", *where)["items"]
        return [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    kubectl: Kubectl,
    shared_namespace: str,
) -> Iterator[UserDesk]:
    """Create operarios in a namespace, without replicas."""
    with closing(
        UserDesk(tmp_path_factory.mktemp("desk"), kubeconfig, kubectl, shared_namespace)
    ) as desk:
        yield desk


def note(desk: UserDesk, job: str) -> str | None:
    """Return the value of admitted-by on a Job."""
    identity: str | None = desk.job(job)["metadata"]["annotations"].get("openfero.io/admitted-by")
    return identity


def test_a_job_suspended_by_a_user_is_held_and_never_restarted(desk: UserDesk) -> None:
    """Neither the leader that admitted it nor the next resumes it; it counts while it has Pods."""
    a = desk.leader
    job = a.remediate("Slow", "suspended", "Running")
    admitted = desk.job(job)["metadata"]["annotations"]["openfero.io/admitted-at"]
    a.wait_for(lambda: desk.pods(job), PATIENCE)
    desk.suspend(job, value=True)
    a.wait_for(lambda: a.remediation(job)["phase"] == "Held", PATIENCE)
    desk.crash()
    b = desk.start()
    assert b.deliver(alert("Slow", host="suspended"))[1]["items"][0]["outcome"] == "exists"
    b.wait_for(lambda: not desk.pods(job), PATIENCE)
    # Its target is free again: another operario may use it, and this Job stays suspended.
    b.remediate("Quick", "suspended", "Succeeded")
    stored = desk.job(job)
    assert stored["spec"]["suspend"] is True
    assert stored["metadata"]["annotations"]["openfero.io/admitted-at"] == admitted
    assert b.remediation(job)["phase"] == "Held"
    desk.suspend(job, value=False)
    b.wait_for(lambda: b.remediation(job)["phase"] == "Running", PATIENCE)


def test_users_may_start_delete_and_edit_waiting_jobs(desk: UserDesk) -> None:
    """A started Job runs and counts, a deleted one is forgotten, an edited one keeps its place.

    Each state is shown, and no change is reverted or repeated.
    """
    a = desk.leader
    asyncio.run(pause(desk.kubeconfig, desk.namespace, PATIENCE))
    started = a.remediate("Slow", "started", "Waiting")
    deleted = a.remediate("Quick", "deleted", "Waiting")
    edited = a.remediate("Quick", "edited", "Waiting")
    uid = desk.job(deleted)["metadata"]["uid"]
    desk.suspend(started, value=False)
    desk.kubectl("delete", "job", deleted, "-n", desk.namespace)
    desk.patch(
        edited,
        {
            "metadata": {"annotations": {"example.org/note": "more memory"}},
            "spec": {"template": {"metadata": {"labels": {"team": "storage"}}}},
        },
    )
    a.wait_for(lambda: a.remediation(started)["phase"] == "Running", PATIENCE)
    a.wait_for(lambda: a.remediation(deleted)["phase"] == "", PATIENCE)
    assert a.remediation(edited)["phase"] == "Waiting"
    asyncio.run(resume(desk.kubeconfig, desk.namespace, PATIENCE))
    a.wait_for(lambda: a.remediation(edited)["phase"] == "Succeeded", PATIENCE)
    stored = desk.job(edited)
    assert stored["spec"]["template"]["metadata"]["labels"]["team"] == "storage"
    assert stored["metadata"]["annotations"]["example.org/note"] == "more memory"
    second = a.remediate("Quick", "started", "Waiting")
    a.wait_for(lambda: a.remediation(second)["reason"] == "target-busy", PATIENCE)
    assert note(desk, started) == "somebody else"
    assert "Started by someone else, not by the controller" in a.read("/remediations")
    assert a.remediation(deleted)["phase"] == ""
    assert a.remediate("Quick", "deleted", "Succeeded") == deleted
    assert desk.job(deleted)["metadata"]["uid"] != uid


def test_a_job_started_and_suspended_by_a_user_is_not_started_by_the_leader(
    desk: UserDesk,
) -> None:
    """Neither the end of the pause in which that happened nor the next leader starts it."""
    a = desk.leader
    asyncio.run(pause(desk.kubeconfig, desk.namespace, PATIENCE))
    job = a.remediate("Slow", "both", "Waiting")
    desk.suspend(job, value=False)
    a.wait_for(lambda: desk.pods(job), PATIENCE)
    a.wait_for(lambda: note(desk, job) == "somebody else", PATIENCE)
    desk.suspend(job, value=True)
    a.wait_for(lambda: a.remediation(job)["phase"] == "Held", PATIENCE)
    a.wait_for(lambda: not desk.pods(job), PATIENCE)
    asyncio.run(resume(desk.kubeconfig, desk.namespace, PATIENCE))
    a.remediate("Quick", "both", "Succeeded")  # the leader is admitting, on the same target
    assert a.remediation(job)["phase"] == "Held"
    desk.crash()
    b = desk.start()
    b.remediate("Quick", "another", "Succeeded")
    assert b.deliver(alert("Slow", host="both"))[1]["items"][0]["outcome"] == "exists"
    assert b.remediation(job)["phase"] == "Held"
    assert desk.job(job)["spec"]["suspend"] is True


class Kueue(threading.Thread):
    """A substitute for Kueue's Job reconciler, which owns only Jobs with a queue name.

    Like Kueue it admits by one update that sets scheduling fields of the Pod template and
    resumes the Job, and preempts by suspending it again. (Kueue's source, pkg/controller/jobs.)
    """

    def __init__(self, desk: UserDesk) -> None:
        super().__init__(daemon=True)
        self._desk = desk
        self.open = threading.Event()
        self.ended = threading.Event()
        self.admitted: list[str] = []

    def run(self) -> None:
        """Admit queued Jobs while the queue is open."""
        while not self.ended.wait(0.5):
            if not self.open.is_set():
                continue
            where = ("-n", self._desk.namespace, "-l", QUEUE)
            for job in self._desk.kubectl.json("get", "jobs", *where)["items"]:
                if job["spec"]["suspend"] and job["metadata"]["name"] not in self.admitted:
                    self._admit(job)

    def _admit(self, job: dict[str, Any]) -> None:
        job["spec"]["suspend"] = False
        template = job["spec"]["template"]
        template["metadata"].setdefault("annotations", {})["kueue.x-k8s.io/workload"] = "w"
        template["spec"].setdefault("tolerations", []).append({"key": "spot", "operator": "Exists"})
        with contextlib.suppress(KubectlError):  # on a conflict: at the next iteration
            self._desk.kubectl("replace", "-f", "-", stdin=json.dumps(job))
            self.admitted.append(job["metadata"]["name"])

    def preempt(self, name: str) -> None:
        """Suspend an admitted Job."""
        self._desk.suspend(name, value=True)


@pytest.fixture
def kueue(desk: UserDesk) -> Iterator[Kueue]:
    """Start a substitute for Kueue, with its queue closed."""
    stand_in = Kueue(desk)
    stand_in.start()
    yield stand_in
    stand_in.ended.set()
    stand_in.join(PATIENCE)


def test_kueue_gets_the_label_when_the_leader_admits_and_then_starts_the_job(
    desk: UserDesk, kueue: Kueue
) -> None:
    """Without the label Kueue does not see the Job; queued it counts, and it is not restarted."""
    kueue.open.set()
    a = desk.leader
    asyncio.run(pause(desk.kubeconfig, desk.namespace, PATIENCE))
    job = a.remediate("Queued", "queued", "Waiting")
    time.sleep(2)
    stored = desk.job(job)
    assert QUEUE not in stored["metadata"]["labels"]
    assert stored["spec"]["suspend"] is True
    assert kueue.admitted == []
    kueue.open.clear()
    asyncio.run(resume(desk.kubeconfig, desk.namespace, PATIENCE))
    a.wait_for(lambda: a.remediation(job)["phase"] == "Queued", PATIENCE)
    stored = desk.job(job)
    assert stored["metadata"]["labels"][QUEUE] == "healing"
    assert stored["spec"]["suspend"] is True
    second = a.remediate("Quick", "queued", "Waiting")
    a.wait_for(lambda: a.remediation(second)["reason"] == "target-busy", PATIENCE)
    kueue.open.set()
    a.wait_for(lambda: a.remediation(job)["phase"] == "Running", PATIENCE)
    admitted = desk.job(job)["metadata"]["annotations"]["openfero.io/admitted-at"]
    kueue.open.clear()
    desk.crash()
    b = desk.start()
    kueue.open.set()
    kueue.preempt(job)
    b.wait_for(lambda: b.remediation(job)["phase"] == "Queued", PATIENCE)
    time.sleep(2)
    stored = desk.job(job)
    assert stored["spec"]["suspend"] is True, "it is Kueue's to start it again"
    assert stored["metadata"]["annotations"]["openfero.io/admitted-at"] == admitted
    assert b.remediation(second)["phase"] == "Waiting"
    b.wait_for(lambda: b.remediation(second)["reason"] == "target-busy", PATIENCE)
    kueue.admitted.clear()
    b.wait_for(lambda: b.remediation(job)["phase"] == "Running", PATIENCE)

"""Remediations that wait in queues of a real Kueue, on a real API server with its controllers."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from structlog.testing import capture_logs

from openfero_gitops.admission.cleaner import Cleaner
from openfero_gitops.admission.queue import QueueReader
from openfero_gitops.cli import main
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.jobs import JobStore
from openfero_gitops.cluster.workloads import WorkloadStore
from openfero_gitops.domain.errors import NotFound
from openfero_gitops.domain.feed import Listed
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.view import View
from openfero_gitops.jobs.workload import read_workload
from openfero_gitops.metrics import Metrics
from tests.cluster.controlplane import binaries
from tests.support import build
from tests.support.chart import service_account_kubeconfig
from tests.support.cluster import Kubectl, require_binaries, temporary_namespace
from tests.support.kueue import Kueue, require_kueue
from tests.support.optional import require
from tests.support.paths import ROOT
from tests.support.queue_desk import PATIENCE, QUEUE, QueueDesk, queued
from tests.support.replica import alert
from tests.support.walk import Walk, steps
from tests.support.workers import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

PAGE = "docs/how-to/platform/kueue.md"


@pytest.fixture(scope="module")
def desk(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    private_control_plane: Callable[..., ControlPlane],
) -> Iterator[QueueDesk]:
    """Start a cluster with Kueue; it is one of its own, since Kueue changes the API."""
    require_binaries(request.config)
    require_kueue(request.config)
    folder = tmp_path_factory.mktemp("kueue")
    plane = private_control_plane()
    kubectl = Kubectl(binaries() / "kubectl", plane.kubeconfig)
    with (
        Kueue(folder, plane.kubeconfig, kubectl) as kueue,
        temporary_namespace(kubectl, "openfero") as namespace,
        closing(QueueDesk(folder, plane, kubectl, kueue, namespace)) as desk,
    ):
        lower = {"withinClusterQueue": "LowerPriority"}
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
        kueue.apply(
            *desk.queue("open", 10),
            *desk.queue("full", 1),
            *desk.queue("small", 0),
            *desk.queue("evicting", 10),
            *desk.queue("stopped", 1, stopPolicy="Hold"),
            *desk.queue("preempting", 1, preemption=lower),
            {**kind, "metadata": {"name": "low"}, "value": 1},
            {**kind, "metadata": {"name": "high"}, "value": 1000},
        )
        desk.define(
            Plain=queued("Plain", "open"),
            Bare=queued("Bare", "open", metadata=False),
            Full=queued("Full", "full", run_for="forever"),
            Evicted=queued("Evicted", "evicting", run_for="forever"),
            Orphan=queued("Orphan", "evicting", run_for="forever"),
            Missing=queued("Missing", "missing"),
            Stopped=queued("Stopped", "stopped"),
            Low=queued("Low", "preempting", priority="low", run_for="forever"),
            High=queued("High", "preempting", priority="high"),
            Limited=queued("Limited", "small", options={"openfero.io/max-concurrent": "1"}),
            Stale=queued("Stale", "never"),
            Resolved=queued("Resolved", "absent"),
            Classless=queued("Classless", "open", priority="absent"),
            Careful=queued("Careful", "open", options={"openfero.io/approval": "required"}),
        )
        desk.remediate("Classless", "a", "Queued")  # a test waits until it has waited for long
        yield desk


@pytest.mark.parametrize("alertname", ["Plain", "Bare"])
def test_kueue_starts_what_the_leader_passes_to_it_and_the_audit_verifies_it(
    desk: QueueDesk, alertname: str
) -> None:
    """Also a Job without metadata in its Pod template, to which Kueue adds all of it."""
    job = desk.remediate(alertname, "a", "Succeeded")
    stored = desk.job(job)
    assert stored["metadata"]["labels"][QUEUE] == "open"
    assert any("kueue" in key for key in stored["spec"]["template"]["metadata"]["labels"])
    assert desk.kueue.workload(stored)["spec"]["queueName"] == "open"
    assert desk.is_in(job, "Succeeded")["starts"] == 1
    audited = desk.audit(job)
    assert (audited["proof"], audited["differences"]) == ("verified", [])


def test_a_job_without_quota_says_why_it_waits(desk: QueueDesk) -> None:
    """The reason and message of its Workload are in the API and on the page, until it starts."""
    running = desk.remediate("Full", "first", "Running")
    assert desk.is_in(running, "Running")["reason"] is None
    waiting = desk.remediate("Full", "second", "Queued")
    item = desk.is_in(waiting, "Queued", "Pending")
    assert "insufficient unused quota for pods" in item["message"]
    assert (item["starts"], item["queue"]) == (0, "full")
    for page in ("/", f"/remediations/{desk.namespace}/{waiting}"):
        assert "insufficient unused quota for pods" in desk.leader.read(page)
    desk.kueue.set_quota(desk.namespace, "full", 2)
    item = desk.has_started(waiting, 1)
    assert (item["reason"], item["message"], item["starts"]) == (None, None, 1)


def test_a_second_start_is_recorded(desk: QueueDesk) -> None:
    """An evicted Job that starts again has two starts: on the Job, in the API, as an Event."""
    job = desk.remediate("Evicted", "a", "Running")
    desk.leader.wait_for(lambda: desk.count(job) == "1", PATIENCE)
    desk.kueue.activate(desk.job(job), active=False)
    item = desk.is_in(job, "Queued", "Deactivated")
    assert "Kueue stopped the Job after 1 start" in item["message"]
    page = desk.leader.read(f"/remediations/{desk.namespace}/{job}")
    assert "The workload is deactivated; Kueue stopped the Job after 1 start" in page
    assert desk.audit(job)["proof"] == "verified"
    desk.kueue.activate(desk.job(job), active=True)
    item = desk.has_started(job, 2)
    assert item["message"].endswith("it has been started 2 times")
    desk.leader.wait_for(lambda: desk.count(job) == "2", PATIENCE)
    desk.leader.wait_for(lambda: "StartedAgain" in desk.events(job), PATIENCE)
    events = desk.events(job)
    assert "was stopped and is back in Kueue queue evicting" in events["Evicted"]
    assert "(start 2)" in events["StartedAgain"]
    assert desk.audit(job)["proof"] == "verified"


def test_a_start_without_a_leader_is_recorded_by_the_next_one(desk: QueueDesk) -> None:
    """The Job is evicted and started again while no replica runs; it is not started by us."""
    job = desk.remediate("Orphan", "a", "Running")
    desk.leader.wait_for(lambda: desk.count(job) == "1", PATIENCE)
    desk.crash()
    desk.kueue.activate(desk.job(job), active=False)
    desk.leader.wait_for(lambda: desk.job(job)["spec"]["suspend"], PATIENCE)
    desk.kueue.activate(desk.job(job), active=True)
    desk.leader.wait_for(lambda: "startTime" in desk.job(job)["status"], PATIENCE)
    time.sleep(1)  # startTime has seconds
    desk.start()
    desk.has_started(job, 2)
    desk.leader.wait_for(lambda: desk.count(job) == "2", PATIENCE)


@pytest.mark.parametrize(
    ("alertname", "queue", "message"),
    [
        ("Missing", "missing", "LocalQueue missing doesn't exist"),
        ("Stopped", "stopped", "ClusterQueue {namespace}-stopped is inactive"),
    ],
)
def test_a_queue_that_cannot_start_anything_is_reported(
    desk: QueueDesk, alertname: str, queue: str, message: str
) -> None:
    """On the Job and at the top of the page, until somebody repairs the queue."""
    job = desk.remediate(alertname, "a", "Queued")
    item = desk.is_in(job, "Queued", "Inadmissible")
    assert message.format(namespace=desk.namespace) in item["message"]
    assert "not started by Kueue" in desk.leader.read("/")
    if queue == "missing":
        desk.kueue.apply(*desk.queue(queue, 1))
    else:
        desk.kueue.set_stop_policy(desk.namespace, queue, "None")
    assert desk.is_in(job, "Succeeded")["starts"] == 1


def test_a_preempted_job_runs_again(desk: QueueDesk) -> None:
    """Its lower priority makes it wait until the other Job has ended; both its starts count."""
    low = desk.remediate("Low", "a", "Running")
    desk.leader.wait_for(lambda: desk.count(low) == "1", PATIENCE)
    high = desk.remediate("High", "b", "Succeeded")
    desk.has_started(low, 2)
    assert desk.is_in(high, "Succeeded")["starts"] == 1
    desk.leader.wait_for(lambda: "StartedAgain" in desk.events(low), PATIENCE)


def test_a_walk_of_the_documentation(desk: QueueDesk, tmp_path: Path) -> None:
    """The example's queues with a full quota, a priority and an eviction: each output is right."""
    page = [step for step in steps((ROOT / PAGE).read_text()) if step.command or step.path]
    operarios = {step.path: yaml.safe_load(step.content) for step in page if "/" in step.path}
    for path, job in operarios.items():
        if path != "operarios/diskfull.yaml":  # which ends, so that another one starts again
            ends = {"annotations": {"kwok.openfero.io/run-for": "forever"}}
            job["spec"]["template"]["metadata"] = ends
        desk.repository.write(path, yaml.safe_dump(job))
    commit = desk.repository.commit("Walk")
    desk.leader.wait_for(lambda: desk.leader.get("/api/sync")["revision"]["commit"] == commit)
    require("curl", "apt-get install curl", "curl")
    walk = Walk(
        tmp_path,
        programs=[binaries() / "kubectl"],
        KUBECONFIG=str(desk.kubeconfig),
        OPENFERO=desk.leader.url,
    )
    commands = 0
    for step in page:
        deadline = time.monotonic() + PATIENCE
        printed = walk.take(step)
        # What the controller shows is soon so, and these commands change nothing.
        while step.command.startswith("openfero-gitops") and printed != step.printed:
            if time.monotonic() > deadline:
                break
            time.sleep(1)
            printed = walk.take(step)
        commands += bool(step.command)
        assert (f"{PAGE}:{step.line}", printed) == (f"{PAGE}:{step.line}", step.printed)
    assert commands


def test_a_full_queue_does_not_stop_the_others(desk: QueueDesk) -> None:
    """Queued Jobs count as running for the limits, say so, and go on when the queue does."""
    queued_job = desk.remediate("Limited", "first", "Queued")
    waiting = desk.remediate("Limited", "second", "Waiting")
    item = desk.is_in(waiting, "Waiting", "max-concurrent")
    assert "1 Job of this operario running or queued by Kueue" in item["message"]
    assert "> maximum capacity (0)" in desk.is_in(queued_job, "Queued", "Pending")["message"]
    assert "not started by Kueue" in desk.leader.read("/")
    assert "openfero_gitops_stuck_in_queue 0.0" not in desk.leader.read("/metrics")
    desk.remediate("Plain", "other", "Succeeded")
    desk.kueue.set_quota(desk.namespace, "small", 1)
    desk.is_in(queued_job, "Succeeded")
    desk.is_in(waiting, "Succeeded")


def test_a_queued_job_of_a_resolved_alert_never_runs(desk: QueueDesk) -> None:
    """It is cancelled as one that waits for admission is; Kueue cannot start it any more."""
    job = desk.remediate("Resolved", "a", "Queued")
    desk.leader.deliver(alert("Resolved", "resolved", host="Resolved-a"))
    assert desk.is_in(job, "Cancelled")["reason"] == "resolved"
    desk.kueue.apply(*desk.queue("absent", 1))
    selector = ("-n", desk.namespace, "-l", f"batch.kubernetes.io/job-name={job}")
    desk.leader.wait_for(
        lambda: any(
            condition["reason"] == "DeadlineExceeded"
            for condition in desk.job(job)["status"]["conditions"]
        ),
        PATIENCE,
    )
    assert desk.kubectl.json("get", "pods", *selector)["items"] == []


def test_kueue_starts_nothing_before_its_admission(desk: QueueDesk) -> None:
    """Its webhook gives new Jobs the label of a LocalQueue named `default`; the policy refuses."""
    desk.kueue.apply(*desk.queue("default", 10))
    job = desk.remediate("Careful", "a", "AwaitingApproval")
    assert desk.job(job)["metadata"]["labels"][QUEUE] == "default"
    log = desk.kueue.process.log
    desk.leader.wait_for(lambda: "only the controller starts this Job" in log.read_text(), PATIENCE)
    assert desk.is_in(job, "AwaitingApproval")["starts"] == 0
    approve = ["approve", f"{desk.namespace}/{job}", "--kubeconfig", str(desk.kubeconfig)]
    assert main(approve) == 0
    assert desk.is_in(job, "Succeeded")["starts"] == 1
    desk.kubectl("delete", "localqueue", "default", "-n", desk.namespace)


def test_a_job_whose_priority_class_does_not_exist_is_reported(desk: QueueDesk) -> None:
    """Kueue creates no Workload for it."""
    job = desk.remediate("Classless", "a", "Queued")
    item = desk.is_in(job, "Queued", "NoWorkload")
    assert item["message"].endswith("and that the PriorityClass of the Job exists")


class Term:
    """A term of leadership that does not end."""

    def check(self) -> None:
        """Do nothing."""


def test_the_controller_may_be_forbidden_to_read_workloads(desk: QueueDesk) -> None:
    """Then the reason of a queued Job is not shown, which one line of the log says."""
    desk.remediate("Stale", "b", "Queued")
    account = ("serviceaccount", "reader", "-n", desk.namespace)
    desk.kubectl("create", *account)
    config = service_account_kubeconfig(
        desk.kubeconfig, desk.namespace, desk.folder, account="reader"
    )

    async def read() -> list[float]:
        api = await KubernetesApi.connect(config)
        admin = await KubernetesApi.connect(desk.kubeconfig)
        try:
            [listed] = await JobStore(admin, [desk.namespace], observe).listed()
            assert isinstance(listed, Listed)
            view = View()
            view.replace(desk.namespace, listed.jobs, listed.resource_version)
            reader = QueueReader(
                workloads=WorkloadStore(api, read_workload),
                view=view,
                now=lambda: datetime.now(UTC) + timedelta(minutes=5),
            )
            with capture_logs() as logs:
                seconds = [await reader.read(), await reader.read()]
            [line] = [log for log in logs if "Workloads" in log["event"]]
            assert "cannot list resource" in line["error"]
            statuses = [reader.status(job) for job in view if job.phase is Phase.QUEUED]
            assert statuses
            assert not any(statuses)
            return seconds
        finally:
            await api.close()
            await admin.close()

    assert asyncio.run(read()) == [600, 600]


def test_a_job_that_kueue_never_starts_is_deleted_in_the_end(desk: QueueDesk) -> None:
    """After seven times `remember`, with its Workload; not a moment earlier."""
    name = desk.remediate("Stale", "a", "Queued")
    desk.crash()
    job = desk.job(name)
    assert desk.kueue.workload(job)

    async def is_deleted(later: timedelta, patience: float) -> bool:
        """Run the cleaner of a leader at a later time; return whether it deletes the Job."""
        api = await KubernetesApi.connect(desk.kubeconfig)
        jobs = JobStore(api, [desk.namespace], observe)
        view = View()
        cleaner = Cleaner(
            jobs=jobs,
            view=view,
            catalog=build.catalog,
            counts=Metrics("test"),
            now=lambda: datetime.now(UTC) + later,
        )
        try:
            key = JobKey(desk.namespace, name)
            view.apply(observe(await jobs.get(key)))
            async with in_background(cleaner.run(Term())), asyncio.timeout(patience):
                while await jobs.get(key):  # noqa: ASYNC110 - no event reports it
                    await asyncio.sleep(0.2)
        except NotFound:
            return True
        except TimeoutError:
            pass
        finally:
            await api.close()
        return False

    assert not asyncio.run(is_deleted(timedelta(days=6, hours=23), 2))
    assert asyncio.run(is_deleted(timedelta(days=7, minutes=1), PATIENCE))
    desk.start().wait_for(lambda: not desk.kueue.workload(job), PATIENCE)

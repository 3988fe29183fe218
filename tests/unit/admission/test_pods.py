"""Why the Pod of a running Job does not start is recorded on the Job."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from openfero_gitops.admission.pods import PodStarts, may_wait
from openfero_gitops.cluster.api import EVENTS, JOBS, PODS, ObjectList
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, Unavailable
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.observe import read_remediation
from tests.support import build
from tests.support.workers import (
    Replica,
    World,
    in_background,
    in_virtual_time,
    new_term,
    pods_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openfero_gitops.domain.remediation import JobKey, Remediation
    from tests.support.relay import Act, Request

IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}


def pod(state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a Pod whose container is in this state."""
    statuses = [{"name": "heal", "state": state}] if state else []
    return {
        "metadata": {"name": "p", "uid": "u"},
        "status": {"phase": "Pending", "containerStatuses": statuses},
    }


def warning(reason: str, note: str) -> dict[str, Any]:
    """Return a Warning Event."""
    return {"type": "Warning", "reason": reason, "note": note, "eventTime": "2026-11-21T03:00:00Z"}


class Cluster:
    """A Job that runs, and what the API server says about its Pods."""

    def __init__(self) -> None:
        self.world = World()
        self.replica = self.world.replica()
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.asked = 0
        self.replica.wire.trouble = self.answer

    async def answer(self, request: Request, act: Act) -> Any:
        """Answer a request."""
        if request.verb == "list" and request.resource in (PODS, EVENTS):
            self.asked += 1
            if self.error is not None:
                raise self.error
            return ObjectList(self.pods if request.resource == PODS else self.events, "1")
        return await act()

    async def start(self) -> JobKey:
        """Create a Job that was admitted and started."""
        [item] = (await self.replica.deliver(pods_of("web-1"))).items
        assert item.job is not None
        await self.world.annotate(item.job, keys.ADMITTED_AT, "2026-11-21T03:04:05Z")
        await self.world.change(
            item.job, {"op": "replace", "path": "/spec/suspend", "value": False}
        )
        return item.job

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[JobKey]:
        """Look at Pods while the block runs."""
        starts = PodStarts(jobs=self.replica.jobs, view=self.replica.view, now=self.world.now)
        async with self.replica.watching(), in_background(starts.run(new_term("a"))):
            yield await self.start()


def writes(replica: Replica) -> int:
    """Return how often the Job was patched."""
    return sum(request.verb == "patch" for request in replica.wire.writes(JOBS))


@in_virtual_time
async def test_a_waiting_pod_is_shown_until_it_starts() -> None:
    """The reason is recorded once, shown as the Job's message, and removed at the start."""
    cluster = Cluster()
    cluster.pods = [pod(IMAGE)]
    async with cluster.leading() as key:
        view = cluster.replica.view

        def seen() -> Remediation:
            found = view.get(key)
            assert found is not None
            return found

        await until(lambda: seen().pod_waiting)
        assert (seen().phase, seen().reason) == (Phase.RUNNING, "ImagePullBackOff")
        assert seen().message == "Pod p, container heal: no such image"
        await asyncio.sleep(600)
        assert writes(cluster.replica) == 1
        assert cluster.asked < 20
        cluster.pods = [pod({"running": {"startedAt": "t"}})]
        await until(lambda: not seen().pod_waiting, 120)
        assert (seen().reason, seen().message) == ("", "")


@pytest.mark.parametrize(
    ("pods", "events", "text"),
    [
        (
            [pod({"waiting": {"reason": "ContainerCreating"}})],
            [warning("FailedMount", 'secret "tls" not found')],
            'FailedMount: Pod p: secret "tls" not found',
        ),
        (
            [],
            [warning("FailedCreate", 'serviceaccount "heal" not found')],
            'FailedCreate: the Job has no Pod: serviceaccount "heal" not found',
        ),
    ],
)
@in_virtual_time
async def test_what_only_events_say(
    pods: list[dict[str, Any]], events: list[dict[str, Any]], text: str
) -> None:
    """A volume that is missing, or a Pod that was refused, is known from Events."""
    cluster = Cluster()
    cluster.pods, cluster.events = pods, events
    async with cluster.leading() as key:
        await until(lambda: (job := cluster.replica.view.get(key)) and job.pod_waiting == text)
        cluster.events = []  # they expire after an hour
        await asyncio.sleep(300)
        job = cluster.replica.view.get(key)
        assert job is not None
        assert job.pod_waiting == text


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"pods_ready": True}, False),
        ({"pods_ready": True, "pod_waiting": "Unschedulable: none"}, True),
        ({"since": build.NOW - timedelta(seconds=9)}, False),
        ({"phase": Phase.QUEUED}, False),
        ({"phase": Phase.FAILED}, False),
        ({"deleting": True}, False),
    ],
)
def test_ordinary_jobs_cost_no_request(changes: dict[str, Any], may: bool) -> None:  # noqa: FBT001
    """A Job that has just started, or whose Pods are ready, is not looked at."""
    job = build.running(**{"since": build.NOW - timedelta(seconds=10), **changes})
    assert may_wait(job, build.NOW) is may


@pytest.mark.parametrize("error", [Forbidden("pods is forbidden"), Unavailable("no connection")])
@in_virtual_time
async def test_without_rights_nothing_fails(error: Exception) -> None:
    """A missing permission is logged once; the Job is shown as running."""
    cluster = Cluster()
    cluster.error = error
    with capture_logs() as logs:
        async with cluster.leading() as key:
            await asyncio.sleep(300)
            job = cluster.replica.view.get(key)
            assert job is not None
            assert (job.phase, job.message) == (Phase.RUNNING, "")
    forbidden = [log for log in logs if log["event"] == "cannot find out why Pods do not start"]
    assert len(forbidden) == isinstance(error, Forbidden)
    assert writes(cluster.replica) == 0


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"active": 1, "ready": 1}, True),
        ({"active": 2, "ready": 1}, False),
        ({"active": 1, "ready": 0}, False),
        ({"active": 1}, False),
        ({}, False),
    ],
)
def test_a_job_is_ready_if_all_its_pods_are(
    status: dict[str, int],
    ready: bool,  # noqa: FBT001
) -> None:
    """The Job's status has the numbers."""
    job = build.stored(spec={"suspend": False}, status=status)
    assert read_remediation(job).pods_ready is ready

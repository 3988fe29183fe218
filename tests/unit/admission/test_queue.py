"""When Kueue's Workloads are read, and what is shown if they cannot be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.admission.queue import QueueReader
from openfero_gitops.domain.errors import ApiError, Forbidden, NotFound, Unavailable
from openfero_gitops.domain.remediation import JobKey, Phase, Remediation
from openfero_gitops.jobs.view import View
from openfero_gitops.jobs.workload import NO_WORKLOAD, QueueStatus
from tests.support import build
from tests.support.copying import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = QueueStatus("Pending", "insufficient quota")


class Workloads:
    """Answers with a status for each Job, or with an error."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, tuple[str, ...]]] = []
        self.statuses: dict[str, QueueStatus | None] = {}
        self.error: ApiError | None = None

    async def of_jobs(self, namespace: str, uids: Sequence[str]) -> dict[str, QueueStatus | None]:
        """Answer one request."""
        self.requests.append((namespace, tuple(uids)))
        if self.error is not None:
            raise self.error
        return {uid: self.statuses[uid] for uid in uids if uid in self.statuses}


def queued(name: str, *, seconds: float = 10, namespace: str = "jobs") -> Remediation:
    """Return a Job that has been in a queue for so long."""
    at = build.NOW - build.seconds(seconds)
    return build.remediation(
        name,
        namespace=namespace,
        phase=Phase.QUEUED,
        received_at=at,
        admitted_at=at,
        queue="healing",
        uid=name,
        resource_version="1",
    )


class Desk:
    """A reader of some Jobs."""

    def __init__(self, *jobs: Remediation) -> None:
        self.view = View()
        for job in jobs:
            self.view.apply(job)
        self.workloads = Workloads()
        self.reader = QueueReader(workloads=self.workloads, view=self.view, now=lambda: build.NOW)

    def read(self) -> float:
        """Read once."""
        return asyncio.run(self.reader.read())

    def reason(self, name: str) -> str:
        """The reason shown for a Job."""
        job = next(job for job in self.view if job.key.name == name)
        status = self.reader.status(job)
        return status.reason if status else ""


def test_nothing_is_read_unless_jobs_stay_in_a_queue() -> None:
    """Not for Jobs that wait, run, are deleted or were passed to Kueue a moment ago."""
    desk = Desk(
        build.remediation("waiting"),
        build.running("running", queue="healing"),
        queued("new", seconds=2),
        replace(queued("going"), deleting=True),
    )
    desk.read()
    assert desk.workloads.requests == []


def test_the_status_of_queued_jobs_is_shown_until_they_start() -> None:
    """Each namespace is asked once, for its Jobs alone."""
    desk = Desk(queued("a"), queued("b"), queued("c", namespace="shop"))
    desk.workloads.statuses = {"a": FULL, "b": None}
    desk.read()
    assert desk.reader.stuck == 0
    assert sorted(desk.workloads.requests) == [("jobs", ("a", "b")), ("shop", ("c",))]
    assert (desk.reason("a"), desk.reason("b"), desk.reason("c")) == ("Pending", "", "")
    started = replace(queued("a"), phase=Phase.RUNNING, resource_version="2")
    desk.view.apply(started)
    assert desk.reason("a") == ""


def test_a_job_that_kueue_does_not_notice_is_reported_after_a_minute() -> None:
    """A Workload without a status is one that it has noticed."""
    desk = Desk(queued("new", seconds=59), queued("old", seconds=60), queued("known", seconds=90))
    desk.workloads.statuses = {"known": None}
    desk.read()
    reasons = [desk.reason(name) for name in ("new", "old", "known")]
    assert reasons == ["", NO_WORKLOAD, ""]
    assert desk.reader.stuck == 1


def test_the_oldest_of_very_many_jobs_are_looked_at() -> None:
    """A full queue does not decide how much is read."""
    jobs = [queued(f"job-{number:04}", seconds=1000 - number / 10) for number in range(500)]
    desk = Desk(*jobs)
    desk.read()
    [(_, uids)] = desk.workloads.requests
    assert uids == tuple(job.uid for job in jobs[:200])


def test_what_was_read_is_kept_for_queued_jobs_while_it_cannot_be_read() -> None:
    """A Job that has left its queue is not counted any more."""
    desk = Desk(queued("a", seconds=90), queued("b", seconds=90))
    desk.read()
    assert desk.reader.stuck == 2
    desk.workloads.error = Unavailable("connection refused")
    desk.read()
    assert desk.reader.stuck == 2
    desk.view.remove(JobKey("jobs", "a"), "a")
    desk.read()
    assert (desk.reader.stuck, desk.reason("b")) == (1, NO_WORKLOAD)
    desk.view.apply(replace(queued("b"), phase=Phase.RUNNING, resource_version="2"))
    desk.read()
    assert desk.reader.stuck == 0


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Forbidden("workloads is forbidden"), 600),
        (NotFound("the server could not find the requested resource"), 600),
        (Unavailable("connection refused"), 10),
    ],
)
def test_an_error_is_logged_once_and_nothing_fails(
    error: ApiError, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Kueue's API is absent or forbidden, it is rarely asked again."""
    desk = Desk(queued("old", seconds=90))
    desk.workloads.error = error
    assert [desk.read(), desk.read()] == [seconds, seconds]
    assert desk.reason("old") == ""
    assert caplog.text.count("cannot read Kueue's Workloads") <= 1
    desk.workloads.error = None
    desk.workloads.statuses = {"old": FULL}
    assert desk.read() == 10
    assert desk.reason("old") == "Pending"

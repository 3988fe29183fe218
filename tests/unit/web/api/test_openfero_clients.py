"""What OpenFero's own Vue client reads of the API, as its types and components declare it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.turns import Turns
from tests.support import pages
from tests.support.copying import replace
from tests.support.serving import OPEN, serving

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
#: `JobInfo`: required members, and optional ones with their check.
REQUIRED = ("configMapName", "jobName", "image")
OPTIONAL = {
    "namespace": lambda value: isinstance(value, str),
    "executionCount": lambda value: type(value) is int,
    "lastExecutionTime": parse_time,
    "lastExecutedJobName": lambda value: isinstance(value, str),
    "status": {"Pending", "Running", "Successful", "Failed"}.__contains__,
    "startedAt": parse_time,
    "completedAt": parse_time,
}
#: `BuildInfo`, of its About dialog.
BUILD = ("version", "commit", "buildDate")


async def read(path: str, state: pages.Showcase | None = None) -> Any:
    """Read an answer."""
    state = state or pages.busy(NOW)
    async with serving(lambda app: add_api(app, state, OPEN, Turns(), now=lambda: NOW)) as client:
        answer = await client.get(path)
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


async def test_its_table_of_jobs() -> None:
    """It expects an array whose optional members are left out, never null."""
    jobs = await read("/api/jobs")
    assert isinstance(jobs, list)
    assert len(jobs) > 1
    for job in jobs:
        assert all(isinstance(job[name], str) for name in REQUIRED)
        assert job.keys() - set(REQUIRED) <= OPTIONAL.keys()
        assert all(OPTIONAL[name](job[name]) for name in job.keys() - set(REQUIRED))
    # (Its table has one row for each name of a job.)
    ran = [job for job in jobs if "lastExecutedJobName" in job]
    assert 0 < len(ran) < len(jobs)


async def test_a_job_that_kueue_never_started_is_no_execution() -> None:
    """It is one as soon as Kueue has started it, also if Kueue has stopped it again."""
    queued = pages.remediation("TargetDown", Phase.QUEUED, NOW, queue="heal")
    for starts in (0, 1):
        state = pages.quiet(NOW)
        state.active = pages.catalog(pages.operario(queued.operario, "TargetDown"))
        state.jobs = [replace(queued, starts=starts)]
        [job] = await read("/api/jobs", state)
        assert job["executionCount"] == starts
        assert ("lastExecutedJobName" in job) == bool(starts)


async def test_its_about_dialog() -> None:
    """It shows version, commit and date of the build, which are strings."""
    about = await read("/api/about")
    assert all(isinstance(about[name], str) and about[name] for name in BUILD)

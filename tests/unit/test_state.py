"""Decisions on the page are cached."""

from __future__ import annotations

from openfero_gitops.admission.live_index import LiveIndex
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Foreign, JobKey
from openfero_gitops.jobs.view import View
from openfero_gitops.state import DecisionCache, foreign_jobs_message
from tests.support.build import NOW, catalog, operario, remediation, seconds

CATALOG = catalog(operario())
PAUSE = Pause(PauseCause.COMMAND, "ada paused admission", "ada")
JOB = JobKey("jobs", "a")


class Clock:
    """A clock that advances by `step` at each call."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        self.now += self.step
        return self.now


def test_decisions_are_cached_until_an_input_changes() -> None:
    """A changed Job, envelope or pause, or a second of time, causes a new decision."""
    clock, view = Clock(), View()
    view.apply(remediation("a"))
    decided = DecisionCache(view, LiveIndex(view), clock)
    first = decided.get(CATALOG, None, now=NOW)

    assert first[JOB].reason is Reason.ADMITTED
    assert decided.get(CATALOG, None, now=NOW) is first
    paused = decided.get(CATALOG, PAUSE, now=NOW)
    assert paused[JOB].reason is Reason.PAUSED
    assert decided.get(None, PAUSE, now=NOW)[JOB].reason is Reason.NO_CATALOG
    view.apply(remediation("b", resource_version="8"))
    later = decided.get(None, PAUSE, now=NOW)
    assert len(later) == 2
    clock.now += 1
    assert decided.get(None, PAUSE, now=NOW + seconds(1)) is not later


def test_slow_decisions_are_reused_for_longer() -> None:
    """With very many Jobs the page may be a little behind, so that the event loop is free."""
    clock, view = Clock(), View()
    decided = DecisionCache(view, LiveIndex(view), clock)
    clock.step = 0.1
    first = decided.get(CATALOG, None, now=NOW)
    clock.step = 0.0

    view.apply(remediation("a"))
    clock.now += 0.5
    assert decided.get(CATALOG, None, now=NOW) is first
    clock.now += 0.5
    assert set(decided.get(CATALOG, None, now=NOW)) == {JOB}


def test_decisions_by_another_catalog_are_not_reused() -> None:
    """However slow decisions are, those of another catalog or pause are never returned."""
    clock, view = Clock(), View()
    view.apply(remediation("a"))
    decided = DecisionCache(view, LiveIndex(view), clock)
    clock.step = 0.1

    assert decided.get(CATALOG, None, now=NOW)[JOB].reason is Reason.ADMITTED
    assert decided.get(CATALOG, PAUSE, now=NOW)[JOB].reason is Reason.PAUSED
    assert decided.get(None, PAUSE, now=NOW)[JOB].reason is Reason.NO_CATALOG


def test_foreign_jobs_are_named_with_the_reason() -> None:
    """A few of them are named; the message says what to do."""
    jobs = [Foreign(JobKey("jobs", f"j{n}"), f"u{n}", "1", "its name is odd") for n in range(900)]

    assert foreign_jobs_message([]) == ""
    message = foreign_jobs_message(jobs)
    assert message.startswith("900 Jobs with the label openfero.io/managed-by=openfero-gitops not")
    assert "jobs/j0 (its name is odd), " in message
    assert " and 897 more; " in message
    assert message.endswith("and delete them")
    assert foreign_jobs_message(jobs[:1]).startswith("1 Job with the label ")

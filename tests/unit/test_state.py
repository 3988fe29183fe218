"""What the pages show of decisions, without deciding at each look."""

from __future__ import annotations

from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.jobs.view import View
from openfero_gitops.state import Decided
from tests.support.build import NOW, remediation, seconds

ENVELOPE = Envelope()
PAUSE = Pause(PauseCause.COMMAND, "ada paused admission", "ada")
JOB = JobKey("jobs", "a")


class Clock:
    """Each look at it takes as long as is said."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.takes = 0.0

    def __call__(self) -> float:
        """Seconds."""
        self.looks += 1
        self.now += self.takes
        return self.now


def test_an_answer_is_used_until_something_changed() -> None:
    """A Job, the envelope, a pause or a second that passes make another."""
    clock, view = Clock(), View()
    view.apply(remediation("a"))
    decided = Decided(view, clock)
    first = decided.get(ENVELOPE, None, now=NOW)

    assert first[JOB].reason is Reason.ADMITTED
    assert decided.get(ENVELOPE, None, now=NOW) is first
    paused = decided.get(ENVELOPE, PAUSE, now=NOW)
    assert paused[JOB].reason is Reason.PAUSED
    assert decided.get(None, PAUSE, now=NOW)[JOB].reason is Reason.NO_CATALOG
    view.apply(remediation("b", resource_version="8"))
    later = decided.get(None, PAUSE, now=NOW)
    assert len(later) == 2
    clock.now += 1
    assert decided.get(None, PAUSE, now=NOW + seconds(1)) is not later


def test_what_takes_long_is_not_done_at_each_change() -> None:
    """With very many Jobs in a storm the pages are a little behind, and the loop is free."""
    clock, view = Clock(), View()
    decided = Decided(view, clock)
    clock.takes = 0.1
    first = decided.get(ENVELOPE, None, now=NOW)
    clock.takes = 0.0

    view.apply(remediation("a"))
    clock.now += 0.5
    assert decided.get(ENVELOPE, None, now=NOW) is first
    clock.now += 0.5
    assert set(decided.get(ENVELOPE, None, now=NOW)) == {JOB}

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.catalog.revisions import Activation, RevisionHistory
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sync import Changes, SyncRecord, SyncStatus
from openfero_gitops.web.activations import list_activations
from openfero_gitops.web.timeline import (
    LOOKS,
    MAX_BARS,
    MAX_ROWS,
    Grouping,
    Look,
    draw,
    list_marks,
    look_of,
)
from tests.support.pages import COMMIT, OLDER, remediation

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.timeline import Timeline

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def ago(**span: float) -> datetime:
    """Return a time before NOW."""
    return NOW - timedelta(**span)


def recorded(job: Remediation) -> Effect | None:
    """Return the effect that is written on the Job."""
    return job.effect


def drawn(*jobs: Remediation, by: Grouping = Grouping.ALERT) -> Timeline:
    """Draw remediations, without marks."""
    return draw(jobs, recorded, (), NOW, by=by)


def test_a_bar_lasts_from_receipt_to_end() -> None:
    """A bar begins when the alert was received, and ends with its Job."""
    job = remediation(
        "Down", Phase.SUCCEEDED, ago(hours=12), finished_at=ago(hours=6), effect=Effect.HEALED
    )
    ((row,), (bar,)) = (timeline := drawn(job)).rows, timeline.rows[0].bars
    assert (row.name, row.count) == ("Down", 1)
    assert (bar.x, bar.width) == (50.0, 25.0)
    assert (bar.look, bar.text, bar.latest) == (Look.HEALED, "healed", job)


def test_a_bar_of_what_is_not_over_lasts_until_now() -> None:
    """A remediation that is not over is drawn up to the right edge."""
    (row,) = drawn(remediation("Down", Phase.RUNNING, ago(hours=6))).rows
    assert (row.bars[0].x, row.bars[0].width) == (75.0, 25.0)


def test_bars_can_be_seen() -> None:
    """A bar is never too narrow to be seen, and never reaches over an edge."""
    jobs = [
        remediation("Down", Phase.REFUSED, NOW),
        remediation("Down", Phase.FAILED, ago(hours=30), finished_at=ago(hours=23)),
    ]
    bars = drawn(*jobs).rows[0].bars
    assert all(bar.width >= 0.6 for bar in bars)
    assert all(bar.x >= 0 and bar.x + bar.width <= 100.0 for bar in bars)


def test_what_ended_earlier_is_not_drawn() -> None:
    """What ended more than a day ago is left out."""
    timeline = drawn(remediation("Down", Phase.FAILED, ago(hours=25)))
    assert (timeline.rows, timeline.total, timeline.looks) == ([], 0, [])


@pytest.mark.parametrize(
    ("phase", "effect", "look"),
    [
        (Phase.SUCCEEDED, Effect.HEALED, Look.HEALED),
        (Phase.SUCCEEDED, Effect.NOT_HEALED, Look.NOT_HEALED),
        (Phase.SUCCEEDED, Effect.PENDING, Look.DONE),
        (Phase.SUCCEEDED, None, Look.DONE),
        (Phase.FAILED, Effect.HEALED, Look.FAILED),
        (Phase.AWAITING_APPROVAL, None, Look.APPROVAL),
        (Phase.QUEUED, None, Look.WAITING),
        (Phase.CANCELLED, None, Look.NOT_STARTED),
    ],
)
def test_looks(phase: Phase, effect: Effect | None, look: Look) -> None:
    """The look shows the phase, and of what succeeded the effect."""
    assert look_of(remediation("Down", phase, NOW), effect) is look


def test_every_phase_has_a_look_with_words() -> None:
    """No phase is without a look, and no look without words."""
    looks = {look_of(remediation("Down", phase, NOW), None) for phase in Phase}
    assert looks < set(LOOKS) == set(Look)


def test_urgent_rows_are_first() -> None:
    """Rows with something that needs a person are first, then the newest."""
    timeline = drawn(
        remediation("Old", Phase.SUCCEEDED, ago(hours=4), number="1"),
        remediation("New", Phase.SUCCEEDED, ago(hours=1), number="2"),
        remediation("Bad", Phase.FAILED, ago(hours=9), number="3"),
    )
    assert [row.name for row in timeline.rows] == ["Bad", "New", "Old"]


def test_rows_by_target() -> None:
    """A row may stand for a target: all alerts about it."""
    labels = {"alertname": "A", "node": "n-1"}
    other = {"alertname": "B", "node": "n-1"}
    timeline = drawn(
        remediation("A", Phase.FAILED, ago(hours=2), labels=labels),
        remediation("B", Phase.FAILED, ago(hours=1), labels=other),
        by=Grouping.TARGET,
    )
    assert [(row.name, row.count) for row in timeline.rows] == [("node=n-1", 2)]


def test_overlapping_bars_have_lanes() -> None:
    """Bars that overlap are drawn below each other; a row does not grow without limit."""
    jobs = [remediation("Down", Phase.RUNNING, ago(hours=2), number=str(n)) for n in range(9)]
    (row,) = drawn(*jobs).rows
    assert [bar.y for bar in row.bars[:5]] == [1, 13, 25, 37, 37]
    assert row.height == 48


def test_many_bars_are_drawn_as_one() -> None:
    """Of a busy row, the remediations of half an hour are one bar with their numbers."""
    jobs = [
        remediation("Down", Phase.SUCCEEDED, ago(minutes=n), number=str(n), effect=Effect.HEALED)
        for n in range(MAX_BARS)
    ]
    jobs.append(remediation("Down", Phase.FAILED, ago(minutes=5), number="f"))
    (row,) = drawn(*jobs).rows
    assert row.count == len(jobs)
    assert sum(bar.count for bar in row.bars) == len(jobs)
    assert len(row.bars) == 2
    assert row.bars[1].look is Look.FAILED
    assert row.bars[1].text == "32 remediations: 1 failed, 31 healed"


def test_the_rest_is_counted() -> None:
    """Rows that are not drawn are counted, with their remediations."""
    jobs = [remediation(f"A{n}", Phase.FAILED, ago(minutes=n)) for n in range(MAX_ROWS + 5)]
    timeline = drawn(*jobs)
    assert (len(timeline.rows), timeline.rest_rows, timeline.rest_total) == (MAX_ROWS, 5, 5)
    assert timeline.total == MAX_ROWS + 5


def test_ticks() -> None:
    """Every third full hour has a tick."""
    ticks = drawn().ticks
    assert [moment.strftime("%H:%M") for moment, _ in ticks] == [
        *("06:00", "09:00", "12:00", "15:00", "18:00", "21:00", "00:00", "03:00")
    ]
    assert 0 < ticks[0][1] < ticks[-1][1] < 100


def test_marks_of_this_replica() -> None:
    """What this replica knows: activated commits, who leads, and the pause."""
    record = SyncRecord(ago(hours=6), ago(hours=6), 1, OLDER, COMMIT, "git", Changes(), {})
    failed = SyncRecord(ago(hours=5), ago(hours=5), 1, COMMIT, "f" * 40, "git", Changes(), {}, "no")
    marks = list_marks(
        (),
        list_activations(SyncStatus(history=(failed, record)), RevisionHistory()),
        Leadership(holder="b", since=ago(hours=3)),
        Pause(PauseCause.COMMAND, "", "ada", since=ago(hours=12)),
        NOW,
    )
    assert [(mark.kind, mark.x, mark.width, mark.text) for mark in marks] == [
        ("commit", 75.0, 0.0, "commit 4f1c9a2 became active"),
        ("leader", 87.5, 0.0, "b became leader"),
        ("pause", 50.0, 50.0, "admission paused by ada"),
    ]


def test_marks_from_jobs() -> None:
    """What happened before this replica started is read from the Jobs, on each replica alike."""
    jobs = [
        remediation("A", Phase.SUCCEEDED, ago(hours=9), commit=OLDER, admitted_by="a"),
        remediation("A", Phase.SUCCEEDED, ago(hours=6), commit=OLDER, admitted_by="b"),
        remediation("A", Phase.SUCCEEDED, ago(hours=3), commit=COMMIT, admitted_by="b"),
    ]
    marks = list_marks(jobs, (), Leadership(holder="b", since=ago(days=2)), None, NOW)
    assert [(mark.kind, mark.text) for mark in marks] == [
        ("commit", "first Job from commit 4f1c9a2")
    ]
    marks = list_marks(jobs, (), Leadership(), None, NOW)
    assert [(mark.kind, mark.text) for mark in marks] == [
        ("leader", "b leads (first Job that it started)"),
        ("commit", "first Job from commit 4f1c9a2"),
    ]


def test_a_rollback_has_a_mark() -> None:
    """A commit that comes back is a change, but not if a replica has only not synced yet."""
    other = "f" * 40
    commits = {
        timedelta(hours=9): OLDER,
        timedelta(hours=8): COMMIT,
        timedelta(hours=7, minutes=58): OLDER,
        timedelta(hours=7, minutes=57): COMMIT,
        timedelta(hours=6): OLDER,
        timedelta(hours=5): OLDER,
        timedelta(hours=4): COMMIT,
        timedelta(hours=3, minutes=1): other,
    }
    jobs = [
        remediation("A", Phase.SUCCEEDED, NOW - span, commit=commit)
        for span, commit in commits.items()
    ]
    activations = (Activation(other, ago(hours=3)),)
    marks = list_marks(jobs, activations, Leadership(), None, NOW)
    assert [(mark.at, mark.text) for mark in marks] == [
        (ago(hours=8), "first Job from commit 4f1c9a2"),
        (ago(hours=6), "Jobs are from commit 0b7e2d9 again"),
        (ago(hours=4), "Jobs are from commit 4f1c9a2 again"),
        (ago(hours=3), "commit fffffff became active"),
    ]


def test_marks_of_recorded_commits() -> None:
    """Changes that the leader recorded have a mark after a restart too, each at its own time."""
    recorded_commits = RevisionHistory(
        (
            Activation(OLDER, ago(hours=12)),
            Activation(COMMIT, ago(hours=6)),
            Activation(OLDER, ago(hours=3)),
        )
    )
    restarted = SyncRecord(ago(minutes=1), ago(minutes=1), 1, "", OLDER, "git", Changes(), {})
    jobs = [
        remediation("A", Phase.SUCCEEDED, ago(hours=18), commit="e" * 40),
        remediation("A", Phase.SUCCEEDED, ago(hours=15), commit="f" * 40),
        remediation("A", Phase.SUCCEEDED, ago(hours=2), commit=OLDER),
    ]
    activations = list_activations(SyncStatus(history=(restarted,)), recorded_commits)
    marks = list_marks(jobs, activations, Leadership(), None, NOW)
    assert [(mark.x, mark.text) for mark in marks] == [
        (37.5, "first Job from commit fffffff"),
        (50.0, "commit 0b7e2d9 became active"),
        (75.0, "commit 4f1c9a2 became active"),
        (87.5, "commit 0b7e2d9 became active"),
    ]

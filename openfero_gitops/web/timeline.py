"""Draws the remediations of a day as rows of bars, with marks for what else happened.

All of it is computed from what is recorded on Jobs, so that every replica draws the same bars. The
changes of the commit are those that the leader recorded; earlier ones, and earlier leaders, are
read from the Jobs.

Positions are percentages of the width: the picture fits every screen without a script.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.keys import SOMEBODY_ELSE
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.web.formats import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from openfero_gitops.catalog.revisions import Activation
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import Remediation

SPAN: Final = timedelta(hours=24)
MAX_ROWS: Final = 30
#: Bars of a row that are drawn one by one; of more, those of a slot are drawn as one.
MAX_BARS: Final = 40
MAX_MARKS: Final = 40
_SLOT: Final = timedelta(minutes=30)
_SLOTS: Final = SPAN // _SLOT
_TICK: Final = timedelta(hours=3)
#: So long after a change, replicas may still create Jobs from the commit before it.
_LAG: Final = timedelta(minutes=5)
_NO_LAG: Final = timedelta(0)
#: A shorter bar cannot be seen or clicked.
_MIN_WIDTH: Final = 0.6
#: Bars that overlap are drawn in lanes; further ones over the last lane.
_MAX_LANES: Final = 4
_LANE_PIXELS: Final = 12
_BAR_PIXELS: Final = 9


class Grouping(StrEnum):
    """What a row of the timeline stands for."""

    ALERT = "alert"
    TARGET = "target"


class Look(StrEnum):
    """How a bar is drawn: each look has its own color and its own pattern. The worst is first."""

    FAILED = "failed"
    NOT_HEALED = "not-healed"
    HELD = "held"
    APPROVAL = "approval"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    HEALED = "healed"
    NOT_STARTED = "not-started"


LOOKS: Final = {
    Look.FAILED: "failed",
    Look.NOT_HEALED: "succeeded, but the alert did not go away",
    Look.HELD: "suspended by someone else",
    Look.APPROVAL: "waits for approval",
    Look.RUNNING: "runs",
    Look.WAITING: "waits",
    Look.DONE: "succeeded, effect not known",
    Look.HEALED: "healed",
    Look.NOT_STARTED: "refused or cancelled",
}
_URGENT: Final = frozenset({Look.FAILED, Look.NOT_HEALED, Look.HELD, Look.APPROVAL})
_RANKS: Final = {look: rank for rank, look in enumerate(Look)}
_LOOKS_OF_PHASES: Final = {
    Phase.WAITING: Look.WAITING,
    Phase.AWAITING_APPROVAL: Look.APPROVAL,
    Phase.QUEUED: Look.WAITING,
    Phase.RUNNING: Look.RUNNING,
    Phase.HELD: Look.HELD,
    Phase.FAILED: Look.FAILED,
    Phase.REFUSED: Look.NOT_STARTED,
    Phase.CANCELLED: Look.NOT_STARTED,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One remediation, or `count` of them that were received in the same half hour.

    `x` and `width` are percentages. `latest` is the newest remediation of the bar.
    """

    x: float
    width: float
    y: int
    look: Look
    text: str
    count: int
    latest: Remediation


@dataclass(frozen=True, slots=True)
class Row:
    """The remediations of one alert name or target; `height` is in pixels."""

    name: str
    height: int
    count: int
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something else that happened; `kind` is `commit`, `leader` or `pause`.

    A pause has a width (percent), others have none.
    """

    kind: str
    at: datetime
    text: str
    x: float
    width: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is drawn.

    Attributes:
        since: the left edge.
        until: the right edge: now.
        by: what a row stands for.
        rows: rows with something urgent first, then the newest.
        marks: the oldest first.
        ticks: full hours, and where they are (percent).
        looks: those that occur, in the order of the legend.
        total: how many remediations the time has.
        rest_rows: how many rows are not drawn.
        rest_total: how many remediations those have.
        listed: the newest remediations, for the table.
    """

    since: datetime
    until: datetime
    by: Grouping
    rows: Sequence[Row]
    marks: Sequence[Mark]
    ticks: Sequence[tuple[datetime, float]]
    looks: Sequence[Look]
    total: int
    rest_rows: int
    rest_total: int
    listed: Sequence[tuple[Remediation, Look]]


def look_of(remediation: Remediation, effect: Effect | None) -> Look:
    """Return how a remediation is drawn."""
    if remediation.phase is Phase.SUCCEEDED:
        if effect is Effect.HEALED:
            return Look.HEALED
        return Look.NOT_HEALED if effect is Effect.NOT_HEALED else Look.DONE
    return _LOOKS_OF_PHASES[remediation.phase]


def draw(
    remediations: Iterable[Remediation],
    effect_of: Callable[[Remediation], Effect | None],
    marks: Iterable[Mark],
    now: datetime,
    *,
    by: Grouping = Grouping.ALERT,
    max_listed: int = 100,
) -> Timeline:
    """Draw the remediations that were received or ended within the last day."""
    since = now - SPAN
    rows: dict[str, list[Remediation]] = defaultdict(list)
    shown = []
    for remediation in remediations:
        if _end_of(remediation, now) >= since:
            shown.append(remediation)
            rows[_row_key(remediation, by)].append(remediation)
    looks = {r.key: look_of(r, effect_of(r) if r.phase is Phase.SUCCEEDED else None) for r in shown}
    ordered = sorted(
        rows.items(),
        key=lambda row: (
            any(looks[r.key] in _URGENT for r in row[1]),
            max(r.order for r in row[1]),
        ),
        reverse=True,
    )
    drawn = [
        _draw_row(
            _row_name(jobs[0], by),
            sorted(jobs, key=lambda r: r.order),
            lambda r: looks[r.key],
            since,
            now,
        )
        for _, jobs in ordered[:MAX_ROWS]
    ]
    newest = sorted(shown, key=lambda r: r.order, reverse=True)[:max_listed]
    present = set(looks.values())
    return Timeline(
        since=since,
        until=now,
        by=by,
        rows=drawn,
        marks=list(marks),
        ticks=list(_ticks(since, now)),
        looks=[look for look in Look if look in present],
        total=len(shown),
        rest_rows=len(ordered) - len(drawn),
        rest_total=sum(len(jobs) for _, jobs in ordered[MAX_ROWS:]),
        listed=[(r, looks[r.key]) for r in newest],
    )


def list_marks(
    remediations: Iterable[Remediation],
    activations: Sequence[Activation],
    leadership: Leadership,
    pause: Pause | None,
    now: datetime,
) -> list[Mark]:
    """List changes of the commit and of the leader, and the current pause, the oldest first.

    What happened before the record of revisions begins, or before the current leader, is read from
    the Jobs: there, a change is known since the first Job that shows it. `activations` are the
    oldest first.
    """
    since = now - SPAN
    jobs = sorted(remediations, key=lambda r: r.order)
    happened = [*_commits(jobs, activations), *_leaders(jobs, leadership)]
    marks = [
        Mark(kind, at, text, _percent(at, since))
        for kind, at, text in sorted(happened, key=lambda change: change[1])
        if since <= at <= now
    ][-MAX_MARKS:]
    if pause is not None and pause.since is not None and pause.since <= now:
        x = _percent(max(pause.since, since), since)
        text = f"admission paused by {pause.by}" if pause.by else "admission paused"
        marks.append(Mark("pause", pause.since, text, x, 100.0 - x))
    return marks


def _commits(
    jobs: Sequence[Remediation], activations: Sequence[Activation]
) -> Iterator[tuple[str, datetime, str]]:
    for activation in activations:
        yield "commit", activation.since, f"commit {short(activation.commit)} became active"
    yield from _commits_of_jobs(jobs, activations[0] if activations else None)


def _commits_of_jobs(
    jobs: Sequence[Remediation], first: Activation | None
) -> Iterator[tuple[str, datetime, str]]:
    """Find the changes of the commit before the `first` one that is recorded.

    The first commit of all Jobs did not change anything that is known.
    """
    seen: set[str] = set()
    current, changed_at = "", datetime.min.replace(tzinfo=UTC)
    for job in jobs:
        commit, at = job.commit, job.received_at
        if not commit or commit == current:
            continue
        if first is not None and at >= first.since - (_LAG if commit == first.commit else _NO_LAG):
            continue  # recorded
        if commit in seen and at - changed_at < _LAG:
            continue  # from a replica that had not synced yet
        if current:
            text = "Jobs are from commit {} again" if commit in seen else "first Job from commit {}"
            yield "commit", at, text.format(short(commit))
        current, changed_at = commit, at
        seen.add(commit)


def _leaders(
    jobs: Sequence[Remediation], leadership: Leadership
) -> Iterator[tuple[str, datetime, str]]:
    admitted = sorted(
        (job.admitted_at, job.admitted_by)
        for job in jobs
        if job.admitted_at and job.admitted_by and job.admitted_by != SOMEBODY_ELSE
    )
    taken = leadership.since if leadership.holder else None
    for (_, before), (at, leader) in pairwise(admitted):
        if before != leader and not (leader == leadership.holder and taken and taken <= at):
            yield "leader", at, f"{leader} leads (first Job that it started)"
    if taken is not None:
        yield "leader", taken, f"{leadership.holder} became leader"


def _end_of(remediation: Remediation, now: datetime) -> datetime:
    if remediation.phase not in FINAL:
        return now
    return remediation.finished_at or remediation.received_at


def _row_key(remediation: Remediation, by: Grouping) -> str:
    # (A target is canonical JSON: it need not be read to be compared.)
    return remediation.target if by is Grouping.TARGET else _row_name(remediation, by)


def _row_name(remediation: Remediation, by: Grouping) -> str:
    if by is Grouping.TARGET:
        labels = remediation.target_labels
        if labels:
            return ", ".join(f"{name}={value}" for name, value in labels.items())
    return remediation.alertname or remediation.operario


def _draw_row(
    name: str,
    jobs: Sequence[Remediation],
    look: Callable[[Remediation], Look],
    since: datetime,
    now: datetime,
) -> Row:
    groups = [[job] for job in jobs] if len(jobs) <= MAX_BARS else _slots(jobs, since)
    lanes: list[float] = []
    bars = []
    for group in groups:
        start = max(min(job.received_at for job in group), since)
        end = max(_end_of(job, now) for job in group)
        width = max(_percent(end, since) - _percent(start, since), _MIN_WIDTH)
        x = min(_percent(start, since), 100.0 - _MIN_WIDTH)
        width = min(width, 100.0 - x)
        lane = next((i for i, free_at in enumerate(lanes) if free_at <= x), len(lanes))
        if lane == len(lanes) and lane < _MAX_LANES:
            lanes.append(0.0)
        lane = min(lane, _MAX_LANES - 1)
        lanes[lane] = max(lanes[lane], x + width)
        looks = Counter(look(job) for job in group)
        worst = min(looks, key=_RANKS.__getitem__)
        bars.append(
            Bar(
                x=round(x, 2),
                width=round(width, 2),
                y=lane * _LANE_PIXELS + (_LANE_PIXELS - _BAR_PIXELS) // 2,
                look=worst,
                text=_describe(looks),
                count=len(group),
                latest=group[-1],
            )
        )
    return Row(name, max(len(lanes), 1) * _LANE_PIXELS, len(jobs), bars)


def _slots(jobs: Sequence[Remediation], since: datetime) -> list[list[Remediation]]:
    """Group remediations by the half hour in which they were received."""
    slots: dict[int, list[Remediation]] = defaultdict(list)
    for job in jobs:
        number = int((job.received_at - since) / _SLOT)
        slots[min(max(number, 0), _SLOTS - 1)].append(job)
    return [slots[number] for number in sorted(slots)]


def _describe(looks: Counter[Look]) -> str:
    if looks.total() == 1:
        return LOOKS[next(iter(looks))]
    counted = sorted(looks.items(), key=lambda pair: _RANKS[pair[0]])
    return f"{looks.total()} remediations: " + ", ".join(
        f"{count} {look.replace('-', ' ')}" for look, count in counted
    )


def _ticks(since: datetime, now: datetime) -> Iterator[tuple[datetime, float]]:
    start = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    moment = start.replace(hour=0)
    while moment <= now:
        if moment >= since:
            yield moment, round(_percent(moment, since), 2)
        moment += _TICK


def _percent(moment: datetime, since: datetime) -> float:
    return min(max((moment - since) / SPAN * 100.0, 0.0), 100.0)

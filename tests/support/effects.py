"""The effect of a remediation by the judge's own model, which follows the documentation.

Times that differ by less than the slack can be in either order: clocks differ, Kubernetes writes
whole seconds, and a Job may have several starts. So the model is asked for each order, and the
result is the set of all answers. An effect that is not in the set is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, Final

from tests.support.copying import replace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

PENDING: Final = "pending"
HEALED: Final = "healed"
NOT_HEALED: Final = "not-healed"
UNKNOWN: Final = "unknown"
#: Effects that never change once they are settled.
FINAL: Final = frozenset({HEALED, NOT_HEALED})

_NO_NEWS: Final = timedelta(hours=6)
_NONE: Final = timedelta(0)
_WOBBLE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Run:
    """What decides about the effect of a Job of a firing alert.

    `first_start` and `last_start` are the earliest and the latest time that can count as its
    start; None if it did not start. A dry run counts as one that started and ended when it was
    received. `deadline` is when it should have healed; None if it has not
    ended.
    """

    starts_at: datetime | None
    received_at: datetime
    delivered_at: datetime
    first_start: datetime | None
    last_start: datetime | None
    end: datetime | None
    heals_within: timedelta
    resolved_at: datetime | None = None
    still_firing: bool = False
    settled: str | None = None
    dry_run: bool = False

    @property
    def deadline(self) -> datetime | None:
        """When the alert should have been resolved."""
        return None if self.end is None else self.end + self.heals_within


def grace(run: Run) -> timedelta:
    """Return how long after an effect is known it is settled, at the latest."""
    return min(timedelta(minutes=5), run.heals_within / 3)


def possible_effects(
    run: Run,
    others: Iterable[Run],
    now: datetime,
    slack: timedelta = _NONE,
    *,
    deliveries: bool = False,
) -> frozenset[str]:
    """Return every effect that a run can have at `now`; `others` are the Jobs of its incident.

    With `deliveries`, these also show until when the alert was delivered as firing.
    """
    if run.settled in FINAL:
        return frozenset({run.settled})
    if run.first_start is None or run.last_start is None or run.end is None:
        return frozenset({PENDING})
    others = tuple(others)
    shifts = (-slack, slack) if slack else (_NONE,)
    effects = set()
    for now_shift, start, resolved_shift, other_shift in product(
        shifts, {run.first_start - slack, run.last_start + slack}, {*shifts, _NONE}, shifts
    ):
        resolved = run.resolved_at
        fires = run.still_firing or (
            deliveries
            and any(
                max(other.delivered_at, other.received_at) + other_shift
                > run.end + run.heals_within
                for other in others
                if not _is_new_incident(other, run)
            )
        )
        shifted = replace(
            run, resolved_at=resolved and resolved + resolved_shift, still_firing=fires
        )
        again = [
            other.starts_at + other_shift
            for other in others
            if other.starts_at is not None and _is_new_incident(other, run)
        ]
        for later_starts in _starts_of_same(run, others, slack):
            effects.add(_effect(shifted, start, again, later_starts, now + now_shift))
    if run.settled is not None:
        effects = {effect if effect in FINAL else run.settled for effect in effects}
    return frozenset(effects)


def _effect(
    run: Run,
    start: datetime,
    again: Iterable[datetime],
    later_starts: Iterable[datetime],
    now: datetime,
) -> str:
    """Return the effect of a run that ended.

    `again` is when other incidents of the alert began; `later_starts` when other Jobs of the same
    incident started.
    """
    end, deadline, resolved = run.end, run.deadline, run.resolved_at
    assert end is not None
    assert deadline is not None
    if resolved is not None and resolved < start:
        return UNKNOWN
    refire = min((moment for moment in again if moment > start), default=None)
    if resolved is not None and refire is not None and refire <= resolved:
        resolved = None  # it was the alert that fired again that was resolved
    next_start = min((moment for moment in later_starts if moment > end), default=None)
    if resolved is not None:
        if (
            resolved > deadline
            or _is_by(next_start, resolved)
            or _is_by(refire, resolved + run.heals_within)
        ):
            return NOT_HEALED
        return HEALED if now >= resolved + run.heals_within else PENDING
    if run.still_firing or _is_by(refire, deadline + run.heals_within):
        return NOT_HEALED
    if now > deadline and _is_by(next_start, deadline):
        return NOT_HEALED
    is_unknown = now > deadline and (refire is not None or now >= deadline + _NO_NEWS)
    return UNKNOWN if is_unknown else PENDING


def _is_by(moment: datetime | None, latest: datetime) -> bool:
    return moment is not None and moment <= latest


def _is_new_incident(other: Run, run: Run) -> bool:
    """Whether another Job is for a time when the alert fired again."""
    if other.starts_at is None or run.starts_at is None:
        return False
    if run.resolved_at is not None and other.starts_at > run.resolved_at:
        return True
    return other.starts_at > run.received_at + _WOBBLE


def _starts_of_same(run: Run, others: Iterable[Run], slack: timedelta) -> list[list[datetime]]:
    """The starts of the other Jobs of the same incident: as early, and as late as they can be."""
    same = [
        other
        for other in others
        if not other.dry_run
        and (
            other.starts_at == run.starts_at
            or (other.starts_at is not None and not _is_new_incident(other, run))
        )
    ]
    early = [other.first_start - slack for other in same if other.first_start is not None]
    late = [other.last_start + slack for other in same if other.last_start is not None]
    return [early] if early == late else [early, late]

"""Whether an alert that is delivered again is owed another attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase, same_incident

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation

_DOUBLES: Final = frozenset({Reason.SAME_INCIDENT.value, Reason.SAME_OCCURRENCE.value})


def stands_for(one: Remediation, incident: Iterable[Remediation]) -> Remediation:
    """The Job that heals where `one` would: another of its incident, if `one` is its double.

    Alertmanager may go on to deliver the startsAt of the double alone. What is owed to such an
    alert depends on what became of the Job that the double gave way to; of several the one that
    is not at its end, then one that started. Without any, `one` itself.
    """
    if not _is_double(one):
        return one
    others = (
        other
        for other in incident
        if other.key != one.key
        and other.attempt == one.attempt
        and not _is_double(other)
        and (other.occurrence == one.occurrence or same_incident(one, other))
    )
    return max(
        others,
        key=lambda other: (other.phase not in FINAL, other.started, other.order),
        default=one,
    )


def _is_double(one: Remediation) -> bool:
    return one.phase is Phase.REFUSED and one.reason in _DOUBLES


def asks_for_another(latest: Remediation, runs: int, now: datetime) -> bool:
    """Whether a firing delivery at `now`, after the `latest` attempt, begins the next one.

    An attempt that waited too long is made anew; one that ended is repeated where its operario
    says `rerun-after`, up to `max-runs` attempts that started.
    """
    if latest.status is not Status.FIRING:
        return False
    if _waited_too_long(latest):
        return True
    if latest.phase not in (Phase.SUCCEEDED, Phase.FAILED) or latest.finished_at is None:
        return False
    options = latest.options
    return (
        options.rerun_after > timedelta(0)
        and latest.resolved_at is None
        and now >= latest.finished_at + options.rerun_after
        and runs < options.max_runs
    )


def to_be_kept(incident: Iterable[Remediation]) -> list[Remediation]:
    """The Jobs of an incident that are remembered for as long as its alert comes.

    Of attempts that waited too long the newest is enough: an alert that nobody lets run for days
    makes one after the other.
    """
    jobs = list(incident)
    newest: dict[datetime | None, int] = {}
    for one in jobs:
        newest[one.starts_at] = max(one.attempt, newest.get(one.starts_at, 1))
    return [
        one for one in jobs if not _waited_too_long(one) or one.attempt == newest[one.starts_at]
    ]


def _waited_too_long(one: Remediation) -> bool:
    return one.phase is Phase.REFUSED and one.reason == Reason.MAX_WAIT


def runs_so_far(attempts: Iterable[Remediation]) -> int:
    """How many attempts started."""
    return sum(attempt.started for attempt in attempts)

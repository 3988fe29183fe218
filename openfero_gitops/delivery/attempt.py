"""Whether an alert that is delivered again gets another attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.operario import OnResolve
from openfero_gitops.domain.reason import REPEATABLE, Reason
from openfero_gitops.domain.remediation import (
    FINAL,
    STARTS_AT_TOLERANCE,
    Phase,
    same_incident,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation

_DUPLICATE_REASONS: Final = frozenset({Reason.SAME_INCIDENT.value, Reason.SAME_OCCURRENCE.value})


def same_start(
    starts_at: datetime | None, incident: Iterable[Remediation]
) -> Iterator[Remediation]:
    """Yield the attempts of one occurrence; there are none if the alert has no startsAt."""
    return (job for job in incident if starts_at is not None and job.starts_at == starts_at)


def healing_job(job: Remediation, incident: Iterable[Remediation]) -> Remediation:
    """Return the Job that heals in place of a duplicate; any other Job itself.

    Alertmanager may continue to deliver only the startsAt of the duplicate. Whether that alert
    gets another attempt depends on the Job in whose favour the duplicate was refused. If there
    are several, one that has not ended comes first, then one that started.
    """
    if not is_duplicate(job):
        return job
    others = (
        other
        for other in incident
        if other.key != job.key
        and other.attempt == job.attempt
        and not is_duplicate(other)
        and (other.occurrence == job.occurrence or same_incident(job, other))
    )
    return max(
        others,
        key=lambda other: (other.phase not in FINAL, other.started, other.order),
        default=job,
    )


def is_duplicate(job: Remediation) -> bool:
    """Whether a Job was refused because another one heals."""
    return job.phase is Phase.REFUSED and job.reason in _DUPLICATE_REASONS


def is_next_attempt_due(latest: Remediation, runs: int, now: datetime) -> bool:
    """Whether a firing delivery at `now` begins another attempt after the `latest` one.

    An attempt that waited too long, or whose operario was changed because it did not help, is
    always repeated. One that ended is repeated if its operario
    sets `rerun-after`, up to `max-runs` attempts that started. One that never started because one
    member of a pair of Prometheus servers resolved the alert is repeated if the other member still
    delivers it after that; within the first minute, the delivery may be a late repetition.
    """
    if latest.status is not Status.FIRING:
        return False
    if _is_repeatable(latest):
        return True
    if resolved_before_start(latest):
        return bool(latest.replica_labels) and not is_just_resolved(latest, now)
    if latest.phase not in (Phase.SUCCEEDED, Phase.FAILED) or latest.finished_at is None:
        return False
    options = latest.options
    return (
        options.rerun_after > timedelta(0)
        and latest.resolved_at is None
        and now >= latest.finished_at + options.rerun_after
        and runs < options.max_runs
    )


def jobs_to_keep(incident: Iterable[Remediation]) -> list[Remediation]:
    """Return the Jobs of an incident that are kept for as long as its alert is delivered.

    Of the attempts that are repeated without having started, the newest is enough: an alert that
    waits for days makes a new one every `max-wait`.
    """
    jobs = list(incident)
    newest: dict[datetime | None, int] = {}
    for job in jobs:
        newest[job.starts_at] = max(job.attempt, newest.get(job.starts_at, 1))
    return [job for job in jobs if not _is_repeatable(job) or job.attempt == newest[job.starts_at]]


def resolved_before_start(job: Remediation) -> bool:
    """Whether a Job never starts because its alert was resolved.

    It was refused, or cancelled in a queue of Kueue, or it waits, and the leader is about to refuse
    it.
    """
    if job.waiting:
        return job.resolved_at is not None and job.options.on_resolve is not OnResolve.KEEP
    if job.reason != Reason.RESOLVED:
        return False
    return job.phase is Phase.REFUSED or (job.phase is Phase.CANCELLED and job.starts == 0)


def is_just_resolved(job: Remediation, now: datetime) -> bool:
    """Whether a firing delivery at `now` may be from before the alert was resolved."""
    return job.resolved_at is None or now <= job.resolved_at + STARTS_AT_TOLERANCE


def _is_repeatable(job: Remediation) -> bool:
    return job.phase is Phase.REFUSED and job.reason in REPEATABLE


def runs_so_far(attempts: Iterable[Remediation]) -> int:
    """Count the attempts that started."""
    return sum(attempt.started for attempt in attempts)

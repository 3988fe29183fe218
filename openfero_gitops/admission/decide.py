"""Which waiting Jobs start now, which wait, which never start, and why.

A pure function over every Job of this controller, so that a new leader, a page and a test come
to the same decision. The admitter carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.admission.index import HOUR, MINUTE, AdmissionIndex
from openfero_gitops.admission.job_index import JobIndex
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.operario import Mode, OnResolve
from openfero_gitops.domain.reason import REPEATABLE, Reason
from openfero_gitops.domain.remediation import Phase, same_incident
from openfero_gitops.domain.text import plural
from openfero_gitops.domain.timestamp import format_seconds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime, timedelta

    from openfero_gitops.admission.index import Starts
    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import JobKey, Remediation


@dataclass(frozen=True, slots=True)
class Admit:
    """Start it."""

    reason: Reason = Reason.ADMITTED


@dataclass(frozen=True, slots=True)
class Wait:
    """Do not start it yet. At `until` time alone may change that."""

    reason: Reason
    until: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Never start it; final for the occurrence."""

    reason: Reason
    message: str = ""


Decision = Admit | Wait | Refuse


def decide(
    remediations: Iterable[Remediation],
    envelope: Envelope | None,
    *,
    pause: Pause | None,
    now: datetime,
    unconfirmed: Collection[str] = frozenset(),
) -> list[tuple[Remediation, Decision]]:
    """Decide on every waiting remediation, in the order in which they are admitted.

    Refusals come first and by age, whatever the priority: a Job that is refused now must not
    cause the refusal of a younger one. Those of firing alerts come before those of resolved ones,
    which depend on them. `envelope` is None if there is no catalog: nothing starts.

    `unconfirmed` are the uids of Jobs of which it is unknown whether they started. They are passed
    as running, which is right for limits, but no final decision may depend on them.
    """
    jobs = JobIndex(remediations)
    return decide_indexed(
        jobs, jobs.waiting.values(), envelope, pause=pause, now=now, unconfirmed=unconfirmed
    )


def decide_indexed(
    jobs: JobIndex,
    waiting: Iterable[Remediation],
    envelope: Envelope | None,
    *,
    pause: Pause | None,
    now: datetime,
    unconfirmed: Collection[str] = frozenset(),
) -> list[tuple[Remediation, Decision]]:
    """Decide as `decide` does, on Jobs that are indexed.

    `waiting` are the waiting ones of them with what counts for admission, which the index does not
    have: what the active catalog requires, and which of them count as running.
    """
    index = AdmissionIndex(jobs, now, unconfirmed)
    waiting = sorted(waiting, key=lambda r: r.order)
    for remediation in waiting:
        if not remediation.waiting:
            index.assume(remediation)
    waiting = [job for job in waiting if job.waiting and not job.deleting]
    refusals: dict[JobKey, Refuse] = {}
    for remediation in sorted(waiting, key=lambda r: r.status is Status.RESOLVED):
        if (refusal := _refusal(remediation, index, envelope)) is not None:
            refusals[remediation.key] = refusal
            index.refuse(remediation, refusal.reason.value)
    decisions: list[tuple[Remediation, Decision]] = []
    for remediation in sorted(waiting, key=lambda r: -r.options.priority):
        decision: Decision = (
            refusals.get(remediation.key)
            or _duplicate(remediation, index)  # of one that this pass admitted
            or _wait(remediation, index, envelope, pause)
            or Admit()
        )
        if isinstance(decision, Admit):
            index.admit(remediation)
        decisions.append((remediation, decision))
    return decisions


def next_change(decisions: Sequence[tuple[Remediation, Decision]]) -> datetime | None:
    """When time alone may change a decision: the earliest end of a wait."""
    moments = []
    for remediation, decision in decisions:
        if isinstance(decision, Wait):
            if decision.until is not None:
                moments.append(decision.until)
            if remediation.options.max_wait:
                moments.append(remediation.received_at + remediation.options.max_wait)
    return min(moments, default=None)


def _refusal(
    remediation: Remediation, index: AdmissionIndex, envelope: Envelope | None
) -> Refuse | None:
    """Why a Job must never start."""
    refusal = _duplicate(remediation, index) or (
        _refusal_of_firing(remediation)
        if remediation.status is Status.FIRING
        else _refusal_of_resolved(remediation, index)
    )
    if refusal is not None:
        return refusal
    max_wait = remediation.options.max_wait
    if max_wait and index.now - remediation.received_at > max_wait:
        message = f"the Job waited longer than max-wait ({format_duration(max_wait)})"
        return Refuse(Reason.MAX_WAIT, message)
    if Mode.DRY_RUN in (remediation.options.mode, envelope and envelope.mode):
        return Refuse(Reason.DRY_RUN)
    breaker = index.breakers.check(remediation) if remediation.active_digest else None
    if breaker is not None and breaker.spec_digest == remediation.spec_digest:
        message = (
            "the operario did not help on this target, and was changed in Git after this Job was "
            "created: the next firing delivery of the alert creates a Job of the new version"
        )
        return Refuse(Reason.NOT_HELPING, message)
    return None


def _duplicate(remediation: Remediation, index: AdmissionIndex) -> Refuse | None:
    """Whether another Job exists for the same occurrence, or for the same incident."""
    for other in index.of_occurrence(remediation):
        if other.uid != remediation.uid and (
            _takes_precedence(other, remediation, index) or _is_refused_for_good(other, index)
        ):
            message = f"Job {other.key} exists for the same alert occurrence"
            return Refuse(Reason.SAME_OCCURRENCE, message)
    if remediation.starts_at is None:
        return None
    for other in index.earlier_of_incident(remediation, remediation.starts_at):
        if (
            other.uid != remediation.uid
            and other.attempt == remediation.attempt
            and same_incident(remediation, other)
            and _takes_precedence(other, remediation, index)
        ):
            message = f"Job {other.key} handles or handled this incident"
            return Refuse(Reason.SAME_INCIDENT, message)
    return None


def _is_refused_for_good(other: Remediation, index: AdmissionIndex) -> bool:
    """Whether the refusal of `other` is final for its occurrence.

    It is not if `other` was only a duplicate, or if the alert gets another attempt.
    """
    reason = index.refusal(other)
    return reason is not None and reason not in (Reason.SAME_OCCURRENCE, *REPEATABLE)


def _takes_precedence(other: Remediation, remediation: Remediation, index: AdmissionIndex) -> bool:
    """Whether `other` has certainly started, or waits in front of `remediation`."""
    if other.uid in index.unconfirmed:
        return False
    if other.started or index.is_admitted(other):
        return True
    return other.waiting and other.order < remediation.order and index.refusal(other) is None


def _refusal_of_firing(remediation: Remediation) -> Refuse | None:
    if remediation.resolved_at is None or remediation.options.on_resolve is OnResolve.KEEP:
        return None
    return Refuse(Reason.RESOLVED)


def _refusal_of_resolved(remediation: Remediation, index: AdmissionIndex) -> Refuse | None:
    firing = index.firing(remediation)
    if remediation.starts_at is not None and any(
        other.starts_at is not None
        and other.starts_at > remediation.starts_at
        and other.resolved_at is None
        # A startsAt that only wobbled is not a new alert.
        and index.refusal(other) not in (Reason.SAME_INCIDENT, Reason.SAME_OCCURRENCE)
        for other in firing
    ):
        return Refuse(Reason.FIRING_AGAIN)
    if any(other.waiting or other.occupying for other in firing):
        return None  # whether there is something to undo is known when they have finished
    last_undo = max(
        (
            other.started_at
            for other in index.of_incident(remediation)
            if other.phase is Phase.SUCCEEDED and other.started_at is not None
        ),
        default=None,
    )
    starts = [other.started_at for other in firing if other.started and other.started_at]
    if not starts or (last_undo is not None and max(starts) <= last_undo):
        return Refuse(Reason.NOTHING_TO_UNDO)
    return None


def _wait(
    remediation: Remediation, index: AdmissionIndex, envelope: Envelope | None, pause: Pause | None
) -> Wait | None:
    """Why a Job must not start yet."""
    if envelope is None:
        return Wait(Reason.NO_CATALOG)
    if pause is not None and not pause.is_over(index.now):
        return Wait(Reason.PAUSED, pause.until, pause.message)
    if (breaker := index.breakers.check(remediation)) is not None:
        return Wait(Reason.NOT_HELPING, breaker.until, breaker.message)
    if remediation.phase is Phase.AWAITING_APPROVAL:
        return Wait(Reason.APPROVAL, message=remediation.message)
    return (
        _unconfirmed_of_incident(remediation, index)
        or _resolve_delay(remediation, index)
        or _busy_target(remediation, index)
        or _cooldown(remediation, index)
        or _limit(remediation, index, envelope)
    )


def _unconfirmed_of_incident(remediation: Remediation, index: AdmissionIndex) -> Wait | None:
    """Wait while it is unknown whether another Job of the incident started."""
    for other in index.of_incident(remediation) if index.unconfirmed else ():
        if other.uid != remediation.uid and other.uid in index.unconfirmed:
            return Wait(Reason.TARGET_BUSY, message=f"Job {other.key} may have started")
    return None


def _resolve_delay(remediation: Remediation, index: AdmissionIndex) -> Wait | None:
    """A Job for a resolved alert waits in case it fires again, and for the Job that it undoes."""
    if remediation.status is not Status.RESOLVED:
        return None
    delay = remediation.options.resolve_delay
    if index.now < (end := remediation.received_at + delay):
        message = f"waiting for resolve-delay ({format_duration(delay)}): the alert may fire again"
        return Wait(Reason.RESOLVE_DELAY, end, message)
    for other in index.firing(remediation):
        if other.waiting or other.occupying:
            message = f"Job {other.key} of the firing alert has not finished"
            return Wait(Reason.FIRING_RUNS, message=message)
    return None


def _busy_target(remediation: Remediation, index: AdmissionIndex) -> Wait | None:
    other = index.busy(remediation.target)
    if other is None:
        return None
    state = "in a Kueue queue for" if other.phase is Phase.QUEUED else "running on"
    return Wait(Reason.TARGET_BUSY, message=f"Job {other.key} is {state} the same target")


def _cooldown(remediation: Remediation, index: AdmissionIndex) -> Wait | None:
    cooldown = remediation.options.cooldown
    last_end = index.last_end(remediation.operario, remediation.target)
    if last_end is None or last_end + cooldown <= index.now:
        return None
    message = (
        f"the last Job of this operario on this target finished at {format_seconds(last_end)}, "
        f"its cooldown is {format_duration(cooldown)}"
    )
    return Wait(Reason.COOLDOWN, last_end + cooldown, message)


def _limit(remediation: Remediation, index: AdmissionIndex, envelope: Envelope) -> Wait | None:
    options, limits = remediation.options, envelope.limits
    running = index.occupying(remediation.operario)
    if running >= options.max_concurrent:
        message = (
            f"{plural(running, 'Job')} of this operario {_running(index, remediation.operario)}, "
            f"max-concurrent is {options.max_concurrent}"
        )
        return Wait(Reason.MAX_CONCURRENT, message=message)
    hour = index.last_hour(remediation.operario)
    if len(hour) >= options.max_per_hour:
        return Wait(
            Reason.MAX_PER_HOUR,
            _next_free(hour, options.max_per_hour, index.now, HOUR),
            f"{plural(len(hour), 'Job')} of this operario started in the last hour, "
            f"max-per-hour is {options.max_per_hour}",
        )
    running = index.occupying()
    if running >= limits.concurrent:
        return Wait(
            Reason.LIMIT_CONCURRENT,
            message=f"{plural(running, 'remediation')} {_running(index)}, "
            f"limits.concurrent in openfero.yaml is {limits.concurrent}",
        )
    minute = index.last_minute()
    if len(minute) >= limits.per_minute:
        return Wait(
            Reason.LIMIT_PER_MINUTE,
            _next_free(minute, limits.per_minute, index.now, MINUTE),
            f"{plural(len(minute), 'remediation')} started in the last minute, "
            f"limits.perMinute in openfero.yaml is {limits.per_minute}",
        )
    return None


def _running(index: AdmissionIndex, operario: str | None = None) -> str:
    """What the Jobs do that count for a limit: those in a Kueue queue may not have started."""
    return "running or queued by Kueue" if index.any_queued(operario) else "running"


def _next_free(starts: Starts, limit: int, now: datetime, window: timedelta) -> datetime:
    """When a full window has room for one more start."""
    # The limit is read from the Job, where somebody may have written one below 1.
    return starts.latest(limit) + window if limit > 0 else now + window

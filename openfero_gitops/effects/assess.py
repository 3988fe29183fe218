"""The effect of a remediation: a pure function of what is recorded on the Jobs of its incident.

With S the start of the Job, E its end and W = E + heals-within:

- healed: the alert was resolved between S and W, and did not fire again within heals-within after.
- not-healed: it still fired after W; it fired again; it was resolved only after W; or another Job
  of the incident had to start before it was resolved, which then is the one that may have healed.
- unknown: it was not delivered until six hours after W (Alertmanager sends no resolved
  notification of a silenced alert), or it was resolved before the Job started.
- pending: anything else.

A dry run starts nothing. It has the effect of a Job that would have done nothing when its alert was
received: how often alerts are resolved without a remediation.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import structs

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.duration import format_age
from openfero_gitops.domain.effect import FINAL_EFFECTS, Effect
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import STARTS_AT_TOLERANCE, Phase, same_incident
from openfero_gitops.domain.timestamp import format_seconds
from openfero_gitops.effects.incident import Incident

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.domain.remediation import JobKey, Remediation

#: After this time without news the effect is unknown.
UNKNOWN_AFTER: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Assessment:
    """An effect, since when it holds, and why; `at` is None while it is pending.

    Attributes:
        effect: what is known of the effect.
        at: since when it holds; None while it is pending.
        message: why.
        next_change: when time alone may change it; None if only news can.
        known_at: when the facts made it known; None while it is pending, and once it is final and
            settled.
        is_revisable: whether a delivery that comes late may still change a final effect.
    """

    effect: Effect
    at: datetime | None
    message: str
    next_change: datetime | None = None
    known_at: datetime | None = None
    is_revisable: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """What the effect is about: a Job that has ended, or a dry run, which takes no time."""

    remediation: Remediation
    start: datetime
    end: datetime

    @property
    def heals_within(self) -> timedelta:
        return self.remediation.options.heals_within

    @property
    def deadline(self) -> datetime:
        """Until when the alert must be resolved."""
        return self.end + self.heals_within

    def since_end(self, moment: datetime) -> str:
        """How long after the end something was; for the end of a sentence."""
        if moment < self.end:
            return "while the Job was running"
        age = format_age(moment - self.end)
        return f"after {age}" if is_dry_run(self.remediation) else f"{age} after the Job ended"


def is_dry_run(remediation: Remediation) -> bool:
    """Whether a Job never ran because its mode was dry-run."""
    return (
        remediation.phase is Phase.REFUSED
        and remediation.reason == Reason.DRY_RUN
        and not remediation.started
    )


def has_effect(remediation: Remediation) -> bool:
    """Whether a Job has an effect: one of a firing alert that started, or is a dry run."""
    return remediation.status is Status.FIRING and (remediation.has_run or is_dry_run(remediation))


def assess(
    remediation: Remediation, incident: Incident | Iterable[Remediation], now: datetime
) -> Assessment | None:
    """Return the effect of a remediation at `now`; None if it has none.

    `incident` are all Jobs with its `incident`, itself or not; to assess several of them, pass an
    `Incident`. An effect that is settled as healed or not-healed is returned as it is recorded.
    """
    if not has_effect(remediation):
        return None
    settled = None
    if remediation.effect is not None:
        settled = Assessment(remediation.effect, remediation.effect_at, remediation.effect_message)
        if settled.effect in FINAL_EFFECTS:
            return settled
    if not isinstance(incident, Incident):
        incident = Incident(incident)
    assessed = _assess(remediation, incident, now)
    if settled is not None and assessed.effect not in FINAL_EFFECTS:
        return replace(settled, next_change=assessed.next_change)
    if is_dry_run(remediation) and assessed.effect is not Effect.PENDING:
        return replace(assessed, message=f"would have run; {assessed.message}")
    return assessed


def assess_all(remediations: Iterable[Remediation], now: datetime) -> dict[JobKey, Assessment]:
    """Return the effect of each remediation that has one; `remediations` are all Jobs."""
    remediations = list(remediations)
    incidents = index_incidents(remediations)
    assessed = (
        (remediation.key, assess(remediation, incidents.get(remediation.incident, ()), now))
        for remediation in remediations
    )
    return {key: assessment for key, assessment in assessed if assessment is not None}


def index_incidents(remediations: Iterable[Remediation]) -> dict[str, Incident]:
    """Group Jobs by incident, without those whose incident is unknown."""
    jobs: dict[str, list[Remediation]] = defaultdict(list)
    for remediation in remediations:
        if remediation.incident:
            jobs[remediation.incident].append(remediation)
    return {digest: Incident(group) for digest, group in jobs.items()}


def with_last_delivery(remediation: Remediation, incident: Incident) -> Remediation:
    """Return a Job as it will be once the last delivery of the incident is recorded on it.

    That happens only after the Job for the delivery was created.
    """
    began_by = None if remediation.starts_at is None else _same_until(remediation)
    delivery = incident.last_delivery(began_by)
    if delivery is None or not is_still_firing(
        remediation, delivery.starts_at, delivery.delivered_at
    ):
        return remediation
    return structs.replace(remediation, still_firing_at=delivery.delivered_at)


def is_still_firing(remediation: Remediation, starts_at: datetime | None, moment: datetime) -> bool:
    """Whether a firing delivery at `moment` must be recorded on a Job of its labels.

    It shows that the remediation did not heal. An alert that began later is another incident, and
    has a Job of its own.
    """
    if not has_effect(remediation) or remediation.effect in FINAL_EFFECTS:
        return False
    if remediation.still_firing_at is not None or remediation.resolved_at is not None:
        return False
    run = _run_of(remediation)
    if run is None or moment <= run.deadline:
        return False
    if starts_at is None or remediation.starts_at is None:
        return True
    return starts_at <= _same_until(remediation)


def _same_until(remediation: Remediation) -> datetime:
    """The latest startsAt that is not a later alert's."""
    return remediation.received_at + STARTS_AT_TOLERANCE


def _run_of(remediation: Remediation) -> _Run | None:
    """What the effect is about; None if the Job has not ended."""
    received = remediation.received_at
    if is_dry_run(remediation):
        return _Run(remediation, received, received)
    if not remediation.finished or remediation.finished_at is None:
        return None
    # One that was stopped and started again may have healed at its first start.
    start = remediation.admitted_at if remediation.starts > 1 else remediation.started_at
    start = start or remediation.started_at or received
    return _Run(remediation, start, remediation.finished_at)


def _assess(remediation: Remediation, incident: Incident, now: datetime) -> Assessment:
    run = _run_of(remediation)
    if run is None:
        return Assessment(Effect.PENDING, None, "the Job has not ended")
    resolved = remediation.resolved_at
    if resolved is not None and resolved < run.start:
        message = "the alert was resolved before the Job started"
        if is_dry_run(remediation):
            message = "the alert was already resolved when it was received"
        return _known(Effect.UNKNOWN, resolved, message)
    refire = _first_refire(run, incident)
    following = _next_run(run, incident)
    if resolved is None or (refire is not None and refire <= resolved):
        # A resolution after that is the one of the alert that fired again.
        return _assess_unresolved(run, refire, following, now)
    if following is not None and following.start <= resolved:
        return following.not_healed(run, max(run.deadline, resolved))
    return _assess_resolved(run, resolved, refire, now)


def _assess_resolved(
    run: _Run, resolved: datetime, refire: datetime | None, now: datetime
) -> Assessment:
    """Assess a run whose alert was resolved after its start."""
    dry_run = is_dry_run(run.remediation)
    if resolved > run.deadline:
        message = f"resolved {'without us ' * dry_run}only {run.since_end(resolved)}"
        return _known(Effect.NOT_HEALED, resolved, message)
    quiet_until = resolved + run.heals_within
    if refire is not None and refire <= quiet_until:
        message = f"fired again {format_age(refire - resolved)} after it was resolved"
        return _known(Effect.NOT_HEALED, refire, message)
    if now < quiet_until:
        message = f"resolved; healed unless it fires again before {format_seconds(quiet_until)}"
        return Assessment(Effect.PENDING, None, message, quiet_until)
    message = f"resolved {'without us ' * dry_run}{run.since_end(resolved)}"
    return _revisable(Effect.HEALED, resolved, message, max(quiet_until, run.end))


def _assess_unresolved(
    run: _Run, refire: datetime | None, following: _NextRun | None, now: datetime
) -> Assessment:
    """Assess a run of which no resolution was heard before the alert fired again, if it did."""
    still_firing = run.remediation.still_firing_at
    if refire is not None and refire <= run.deadline + run.heals_within:
        message = f"fired again {run.since_end(refire)}"
        # Its resolution before that may be heard late.
        return _revisable(Effect.NOT_HEALED, refire, message, refire)
    if still_firing is not None:
        message = f"still firing {run.since_end(still_firing)}"
        return _revisable(Effect.NOT_HEALED, still_firing, message, still_firing)
    if now < run.deadline:
        # Also if another attempt started: that the alert was resolved before may be heard late.
        message = f"waiting until {format_seconds(run.deadline)} for the alert to be resolved"
        return Assessment(Effect.PENDING, None, message, run.deadline)
    if following is not None and following.start <= run.deadline:
        return following.not_healed(run, run.deadline)
    return _without_news(run, refire, now)


def _without_news(run: _Run, refire: datetime | None, now: datetime) -> Assessment:
    """Assess a run whose alert was not delivered in time."""
    if refire is not None:
        message = "fired again, but when it was resolved before that is not known"
        return _known(Effect.UNKNOWN, refire, message)
    give_up = run.deadline + UNKNOWN_AFTER
    if now < give_up:
        message = (
            "the alert has not been delivered since; the effect becomes unknown at "
            f"{format_seconds(give_up)}"
        )
        return Assessment(Effect.PENDING, None, message, give_up)
    silence = format_age(give_up - run.end)
    since = "" if is_dry_run(run.remediation) else " after the Job ended"
    message = f"the alert was not delivered again for {silence}{since}; it may be silenced"
    return _known(Effect.UNKNOWN, give_up, message)


def _known(effect: Effect, at: datetime, message: str) -> Assessment:
    """An effect that is known as soon as it holds."""
    return Assessment(effect, at, message, known_at=at)


def _revisable(effect: Effect, at: datetime, message: str, known_at: datetime) -> Assessment:
    """An effect that a delivery which comes late may still change."""
    return Assessment(effect, at, message, known_at=known_at, is_revisable=True)


@dataclass(frozen=True, slots=True)
class _NextRun:
    """The first Job of the same incident that started after the end of a run."""

    start: datetime
    remediation: Remediation

    def not_healed(self, run: _Run, known_at: datetime) -> Assessment:
        """The effect of the run before: the alert still fired when this one started."""
        message = (
            f"still firing {run.since_end(self.start)}, when Job {self.remediation.key} started"
        )
        return _revisable(Effect.NOT_HEALED, self.start, message, known_at)


def _first_refire(run: _Run, incident: Incident) -> datetime | None:
    """When the alert first began to fire again after the start of a run, as far as is known."""
    if run.remediation.starts_at is None:
        return None
    for job in incident.began_after(run.start):
        if job.key != run.remediation.key and not same_incident(job, run.remediation):
            return job.starts_at
    return None


def _next_run(run: _Run, incident: Incident) -> _NextRun | None:
    remediation = run.remediation
    starts_at = remediation.starts_at
    began_by = None if starts_at is None else max(starts_at, _same_until(remediation))
    for job in incident.ran_after(run.end, began_by):
        if (
            job.key != remediation.key
            and job.started_at is not None
            and (job.starts_at == starts_at or same_incident(job, remediation))
        ):
            return _NextRun(job.started_at, job)
    return None

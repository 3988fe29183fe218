"""The circuit breaker: an operario that does not help on a target is not started there again.

It is open when the latest Jobs of an operario on a target whose effect is known were all
`not-healed`, at least `stop-after-not-healed` of them, and all created from one version of the
operario. The next Job of that version waits for a person; a new version of the operario starts
again. Jobs whose effect is pending or unknown are skipped.

Effects are computed from what is recorded on the Jobs, whether or not a leader has settled them.
The delivery that made the waiting Job may show that the Job before did not help, and is recorded on
that one only after the waiting Job exists: so the deliveries of all Jobs of the incident count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import FINAL_EFFECTS, Effect
from openfero_gitops.effects.assess import assess, with_last_delivery
from openfero_gitops.effects.incident import Incident

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment


class OpenBreaker(NamedTuple):
    """Why a Job must not start, as a clause.

    `spec_digest` is the version of the operario that did not help. At `until` time alone may
    change that: a later Job may turn out to have healed its alert.
    """

    message: str
    spec_digest: str
    until: datetime | None


class _NotHealed(NamedTuple):
    """The latest Jobs with a known effect, back to the first that healed or has another version.

    Attributes:
        jobs: with the messages of their effects, the latest first; all of one version.
        until: when a later Job may become known as healed without further news.
    """

    jobs: Sequence[tuple[Remediation, str]]
    until: datetime | None


@dataclass(slots=True)
class Breakers:
    """The breakers of all operarios and targets, each computed when it is checked first.

    `by_incident` are all Jobs by incident, which effects depend on, and `started_on` those that
    started, by operario and target. Of the `unconfirmed` (uids) it is unknown whether they started,
    so no effect may depend on them.
    """

    now: datetime
    by_incident: Mapping[str, Sequence[Remediation]]
    started_on: Mapping[tuple[str, str], Sequence[Remediation]]
    unconfirmed: Collection[str] = frozenset()
    _not_healed: dict[tuple[str, str], _NotHealed] = field(default_factory=dict)
    _incidents: dict[str, Incident] = field(default_factory=dict)

    def check(self, remediation: Remediation) -> OpenBreaker | None:
        """Check whether a waiting Job must not start because its operario does not help."""
        limit = remediation.options.stop_after_not_healed
        if limit is None or remediation.status is not Status.FIRING or remediation.approved_by:
            return None
        key = remediation.operario, remediation.target
        started = self.started_on.get(key, ())
        if len(started) < limit:
            return None
        if key not in self._not_healed:
            self._not_healed[key] = self._latest_not_healed(started)
        jobs, until = self._not_healed[key]
        # Somebody who can change Jobs may have written another version on this one.
        versions = (remediation.spec_digest, remediation.active_digest or remediation.spec_digest)
        if len(jobs) < limit or jobs[0][0].spec_digest not in versions:
            return None
        digest = jobs[0][0].spec_digest
        message = self._message(jobs, limit)
        if digest != remediation.spec_digest:
            message += (
                "; the active catalog has the version of these Jobs, but this Job records another "
                "one: it waits until that is active, or until it is approved"
            )
        if not remediation.waiting:
            message += "; the next firing delivery of the alert creates a Job that can be approved"
        return OpenBreaker(message, digest, until)

    def _latest_not_healed(self, started: Sequence[Remediation]) -> _NotHealed:
        jobs: list[tuple[Remediation, str]] = []
        until: datetime | None = None
        for job in sorted(started, key=self._order, reverse=True):
            if job.status is not Status.FIRING or job.uid in self.unconfirmed:
                continue
            assessment = self._assess(job)
            if assessment is None:
                continue
            if assessment.effect is Effect.NOT_HEALED:
                if jobs and jobs[0][0].spec_digest != job.spec_digest:
                    break
                jobs.append((job, assessment.message))
            elif assessment.effect is Effect.HEALED:
                break
            elif not jobs and job.resolved_at is not None and assessment.next_change is not None:
                until = min(until or assessment.next_change, assessment.next_change)
        return _NotHealed(jobs, until)

    def _assess(self, job: Remediation) -> Assessment | None:
        if job.effect in FINAL_EFFECTS:
            return assess(job, (), self.now)
        incident = self._incidents.get(job.incident)
        if incident is None:
            jobs = self.by_incident[job.incident]
            incident = Incident(other for other in jobs if other.uid not in self.unconfirmed)
            self._incidents[job.incident] = incident
        return assess(with_last_delivery(job, incident), incident, self.now)

    def _order(self, job: Remediation) -> tuple[datetime, tuple[datetime, str, str]]:
        return (job.started_at or self.now, job.order)

    @staticmethod
    def _message(jobs: Sequence[tuple[Remediation, str]], limit: int) -> str:
        latest, effect_message = jobs[0]
        counted = "last Job" if len(jobs) == 1 else f"last {len(jobs)} Jobs"
        return (
            f"the {counted} of this operario for this target did not heal the alert "
            f"(stop-after-not-healed: {limit}). Latest: Job {latest.key}, {effect_message}"
        )

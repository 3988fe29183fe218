"""Say what a delivery of an alert would do now, with the Jobs that exist in the cluster.

`explain` answers for an empty cluster and lists conditions. Here the same functions that the
controller uses look at its Jobs: whether the alert has its Job already, gets another attempt, or
would wait or be refused because of other Jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.decide import Admit, Wait, decide
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.delivery.attempt import healing_job, is_next_attempt_due, runs_so_far
from openfero_gitops.delivery.match import NoMatch, match
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.labels import REPLICA_LABELS, without
from openfero_gitops.domain.remediation import FINAL, Outcome
from openfero_gitops.domain.text import printable
from openfero_gitops.jobs.observe import read_remediation
from openfero_gitops.jobs.render import render

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.jobs.render import Delivery, Rendered

_MAX_MESSAGE_CHARACTERS: Final = 1000
#: Jobs that started earlier count for no limit.
_LONGEST_LIMIT: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class OutcomeNow:
    """What a delivery of one alert would do now.

    `reason` is why there is no Job, why it waits or is refused; None if it starts at once, or
    exists. `until` is when a wait ends by itself. `job` is the Job that exists or would be created.
    """

    outcome: Outcome
    reason: Reason | None
    message: str
    job: JobKey | None = None
    until: datetime | None = None


def outcome_now(
    alert: Alert,
    catalog: Catalog,
    remediations: Collection[Remediation],
    pause: Pause | None,
    delivery: Delivery,
    *,
    jobs_namespace: str,
    replica_labels: frozenset[str] = REPLICA_LABELS,
) -> OutcomeNow:
    """Decide about an alert as a replica and the leader would; nothing is created.

    `remediations` are all Jobs of the controller.
    """
    result = match(alert, catalog, {remediation.key for remediation in remediations})
    if isinstance(result, NoMatch):
        return OutcomeNow(Outcome.NO_MATCH, result.reason, f"No Job: {result.reason.text}")

    def rendered_as(attempt: int) -> Rendered:
        return render(
            alert,
            result.operario,
            catalog.envelope,
            catalog.revision,
            delivery,
            jobs_namespace=jobs_namespace,
            attempt=attempt,
            replica_labels=replica_labels,
        )

    rendered = rendered_as(1)
    incident_digest = read_remediation(rendered.manifest).incident
    incident = [job for job in remediations if job.incident == incident_digest and not job.deleting]
    latest = _latest_attempt(alert, incident)
    if latest is not None:
        if not _is_next_attempt_due(latest, incident, delivery.received_at):
            return OutcomeNow(
                Outcome.EXISTS,
                None,
                f"Job {latest.key} exists for this alert ({latest.phase}): no other Job is created",
                latest.key,
            )
        rendered = rendered_as(latest.attempt + 1)
    return _decided(rendered, catalog, remediations, pause, delivery.received_at)


def _latest_attempt(alert: Alert, incident: Sequence[Remediation]) -> Remediation | None:
    """Return the Job of the newest attempt for this start of the alert."""
    same = (
        job for job in incident if alert.starts_at is not None and job.starts_at == alert.starts_at
    )
    return max(same, key=lambda job: (job.attempt, job.order), default=None)


def _is_next_attempt_due(
    latest: Remediation, incident: Sequence[Remediation], now: datetime
) -> bool:
    attempts = [job for job in incident if job.starts_at == latest.starts_at]
    healing = {job.attempt: healing_job(job, incident) for job in attempts}
    return is_next_attempt_due(healing[latest.attempt], runs_so_far(healing.values()), now)


def _that_matter(
    created: Remediation, remediations: Collection[Remediation], now: datetime
) -> list[Remediation]:
    """Return the Jobs on which the decision about another one depends; most ended long ago.

    They are those that wait or run, that started within the longest limit, and for each that waits
    the others of its operario, and of its labels, firing or resolved: a Job that waits may start
    first.
    """
    undecided = [created, *(job for job in remediations if job.waiting)]
    operarios = {job.operario for job in undecided}
    incidents = {job.incident for job in undecided} | {
        incident_digest(without(job.labels, job.replica_labels), Status.FIRING)
        for job in undecided
        if job.status is Status.RESOLVED
    }
    since = now - _LONGEST_LIMIT
    return [
        job
        for job in remediations
        if job.phase not in FINAL
        or job.occupying
        or job.operario in operarios
        or job.incident in incidents
        or (job.started and max(job.admitted_at or since, job.started_at or since) >= since)
    ]


def _decided(
    rendered: Rendered,
    catalog: Catalog,
    remediations: Collection[Remediation],
    pause: Pause | None,
    now: datetime,
) -> OutcomeNow:
    """Decide about a Job that is created now, beside the others."""
    key = rendered.key
    if rendered.refusal is not None:
        message = printable(rendered.message, _MAX_MESSAGE_CHARACTERS)
        return OutcomeNow(
            Outcome.REFUSED,
            rendered.refusal,
            f"Job {key} would be created and refused: {message}",
            key,
        )
    [created] = with_requirements([read_remediation(rendered.manifest)], catalog)
    others = _that_matter(created, remediations, now)
    decisions = decide((*others, created), catalog.envelope, pause=pause, now=now)
    decision = next(decision for job, decision in decisions if job.key == created.key)
    if isinstance(decision, Admit):
        return OutcomeNow(
            Outcome.CREATED, None, f"Job {key} would be created and start at once", key
        )
    why = decision.message or decision.reason.text
    if isinstance(decision, Wait):
        return OutcomeNow(
            Outcome.CREATED,
            decision.reason,
            f"Job {key} would be created and wait: {why}",
            key,
            decision.until,
        )
    return OutcomeNow(
        Outcome.REFUSED, decision.reason, f"Job {key} would be created and refused: {why}", key
    )

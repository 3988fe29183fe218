"""What failed and needs a person: Jobs that failed or did not heal, while their alerts fire.

The status and the page list them with `list_unresolved`, the notifications with `find_unresolved`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.assess import assess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.effects.incident import Incident


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A remediation that failed or did not heal, since when that is known, and why.

    It is reported until its alert is resolved, but not beyond `until`.
    """

    remediation: Remediation
    since: datetime
    until: datetime
    message: str

    @property
    def failed(self) -> bool:
        """Whether the Job failed; else it succeeded, but did not heal the alert."""
        return self.remediation.phase is Phase.FAILED


def list_unresolved(
    remediations: Iterable[Remediation],
    incident_of: Callable[[Remediation], Incident],
    remember: timedelta,
    now: datetime,
) -> list[Unresolved]:
    """Return what needs a person: of each incident, the newest Job that failed or did not heal.

    Args:
        remediations: all of them.
        incident_of: returns the incident of a Job.
        remember: how long after the end of a Job it is reported at most.
        now: the time.
    """
    newest: dict[str, Unresolved] = {}
    for remediation in remediations:
        unresolved = find_unresolved(remediation, incident_of, remember, now)
        if unresolved is None:
            continue
        incident = remediation.incident or str(remediation.key)
        other = newest.get(incident)
        if other is None or other.remediation.order < remediation.order:
            newest[incident] = unresolved
    return list(newest.values())


def find_unresolved(
    remediation: Remediation,
    incident_of: Callable[[Remediation], Incident],
    remember: timedelta,
    now: datetime,
) -> Unresolved | None:
    """Return why a remediation needs a person; None if it does not.

    `incident_of` returns the incident of a Job, and is called only if the answer depends on it.
    `remember` limits how long after the end of the Job this is so: an alert of which nothing is
    heard any more may be gone.
    """
    failed = remediation.phase is Phase.FAILED
    if remediation.deleting or not (failed or remediation.phase is Phase.SUCCEEDED):
        return None
    ended_at = remediation.finished_at or remediation.received_at
    until = ended_at + remember
    if until <= now:
        return None
    if failed:
        if _is_failure_over(remediation, incident_of):
            return None
        message = remediation.message or remediation.reason
        return Unresolved(remediation, ended_at, until, message)
    assessment = _not_healed(remediation, incident_of, now)
    if assessment is None:
        return None
    return Unresolved(remediation, assessment.at or ended_at, until, assessment.message)


def _is_failure_over(
    remediation: Remediation, incident_of: Callable[[Remediation], Incident]
) -> bool:
    if remediation.status is Status.FIRING:
        return remediation.resolved_at is not None
    # What had to be undone is undone if a later Job for it succeeded.
    undo = incident_of(remediation).last_undo
    return undo is not None and remediation.order < undo.order


def _not_healed(
    remediation: Remediation, incident_of: Callable[[Remediation], Incident], now: datetime
) -> Assessment | None:
    """Return the effect of a Job that did not heal an alert which still fires, or fires again."""
    if remediation.status is not Status.FIRING or remediation.effect not in (
        None,
        Effect.NOT_HEALED,
    ):
        return None
    incident = incident_of(remediation)
    if not _still_fires(remediation, incident):
        return None
    assessment = assess(remediation, incident, now)
    return assessment if assessment and assessment.effect is Effect.NOT_HEALED else None


def _still_fires(remediation: Remediation, incident: Incident) -> bool:
    resolved_at = remediation.resolved_at
    if resolved_at is None:
        return True
    newest = incident.newest or remediation
    # One that fires again much later is another incident.
    return (
        newest.resolved_at is None
        and newest.starts_at is not None
        and newest.starts_at <= resolved_at + remediation.options.heals_within
    )

"""What failed and needs a person: Jobs that failed or did not heal, while their alerts fire.

The status, the page and the notifications all answer with `find_unresolved`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.assess import assess

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from openfero_gitops.domain.remediation import Remediation


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


def find_unresolved(
    remediation: Remediation,
    incident: Sequence[Remediation],
    remember: timedelta,
    now: datetime,
) -> Unresolved | None:
    """Return why a remediation needs a person; None if it does not.

    `incident` are all Jobs with its `incident`. `remember` limits how long after the end of the
    Job this is so: an alert of which nothing is heard any more may be gone.
    """
    unresolved = None
    if remediation.phase is Phase.FAILED:
        unresolved = _find_failed(remediation, incident, remember)
    elif remediation.phase is Phase.SUCCEEDED:
        unresolved = _find_not_healed(remediation, incident, remember, now)
    is_over = unresolved is None or unresolved.until <= now or remediation.deleting
    return None if is_over else unresolved


def _find_failed(
    remediation: Remediation, incident: Sequence[Remediation], remember: timedelta
) -> Unresolved | None:
    if _is_failure_over(remediation, incident):
        return None
    ended_at = _ended_at(remediation)
    message = remediation.message or remediation.reason
    return Unresolved(remediation, ended_at, ended_at + remember, message)


def _find_not_healed(
    remediation: Remediation, incident: Sequence[Remediation], remember: timedelta, now: datetime
) -> Unresolved | None:
    settled = remediation.effect in (Effect.HEALED, Effect.UNKNOWN)
    if settled or not _still_fires(remediation, incident):
        return None
    assessment = assess(remediation, incident, now)
    if assessment is None or assessment.effect is not Effect.NOT_HEALED:
        return None
    ended_at = _ended_at(remediation)
    since = assessment.at or ended_at
    return Unresolved(remediation, since, ended_at + remember, assessment.message)


def _ended_at(remediation: Remediation) -> datetime:
    return remediation.finished_at or remediation.received_at


def _is_failure_over(remediation: Remediation, incident: Iterable[Remediation]) -> bool:
    if remediation.status is Status.FIRING:
        return remediation.resolved_at is not None
    # What had to be undone is undone if a later Job for it succeeded.
    return any(
        other.phase is Phase.SUCCEEDED and remediation.order < other.order for other in incident
    )


def _still_fires(remediation: Remediation, incident: Iterable[Remediation]) -> bool:
    """Whether the alert of a remediation that did not help still fires, or fires again."""
    resolved_at = remediation.resolved_at
    if resolved_at is None:
        return True
    newest = max((remediation, *incident), key=lambda job: job.order)
    # One that fires again much later is another incident.
    return (
        newest.resolved_at is None
        and newest.starts_at is not None
        and newest.starts_at <= resolved_at + remediation.options.heals_within
    )

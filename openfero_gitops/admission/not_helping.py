"""The Jobs that do not start because their operario does not help, for people.

Admission decides about each waiting Job alone, and names the first reason: during a pause that is
the pause. People need to know the state of the incident. It lasts while Jobs are refused because
they waited too long, and while admission is paused, until the alert is resolved, a Job starts, or
the operario is changed or removed in Git.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import structs

from openfero_gitops.admission.breaker import Breakers
from openfero_gitops.admission.requirements import active_operario
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import JobKey, Remediation

_DUPLICATES: Final = (Reason.SAME_OCCURRENCE, Reason.SAME_INCIDENT)


@dataclass(frozen=True, slots=True)
class NotHelping:
    """Why no Job starts: since when, until when at most (None: no limit), and a message."""

    since: datetime
    until: datetime | None
    message: str


def list_not_helping(
    remediations: Sequence[Remediation], catalog: Catalog | None, now: datetime
) -> Mapping[JobKey, NotHelping]:
    """Return the newest Job of each incident and operario that does not help, if it never started.

    It waits, or was refused because it waited too long, and the next delivery of its alert makes
    another attempt. A refused Job counts for `remember` at most, because silenced alerts are never
    reported as resolved.

    `remediations` are all Jobs, the waiting ones with what the active `catalog` requires. Without a
    catalog refused Jobs are judged by what is recorded on them.
    """
    remember = (catalog.envelope if catalog else Envelope()).remember
    held_back = [job for job in remediations if _is_held_back(job)]
    if not held_back:
        return {}
    breakers, attempts = _index(remediations, held_back, now)
    result: dict[JobKey, NotHelping] = {}
    for jobs in attempts.values():
        jobs.sort(key=lambda job: job.order)
        newest = jobs[-1]
        if not _is_held_back(newest):
            continue
        refused_at = None if newest.waiting else newest.finished_at or newest.received_at
        until = refused_at and refused_at + remember
        if until is not None and until <= now:
            continue
        attempt = newest if newest.waiting else _next_attempt(newest, catalog)
        if attempt is not None and (breaker := breakers.check(attempt)) is not None:
            message = breaker.message
            if not newest.waiting:
                message = f"{newest.message or newest.reason}; {message}"
            result[newest.key] = NotHelping(_first_in_row(jobs).received_at, until, message)
    return result


def _index(
    remediations: Iterable[Remediation], held_back: Iterable[Remediation], now: datetime
) -> tuple[Breakers, Mapping[tuple[str, str], list[Remediation]]]:
    """Return the breakers, and the Jobs of each incident and operario that are not duplicates.

    Only what the Jobs that are held back depend on is indexed: that is little of many Jobs.
    """
    breakers_read = {(job.operario, job.target) for job in held_back}
    attempts_read = {(job.incident, job.operario) for job in held_back}
    by_incident: dict[str, list[Remediation]] = defaultdict(list)
    attempts: dict[tuple[str, str], list[Remediation]] = defaultdict(list)
    started_on: dict[tuple[str, str], list[Remediation]] = defaultdict(list)
    for job in remediations:
        if job.deleting or not job.incident:
            continue
        by_incident[job.incident].append(job)
        if (job.operario, job.target) in breakers_read and job.started:
            started_on[job.operario, job.target].append(job)
        attempt = job.incident, job.operario
        if attempt in attempts_read and not (
            job.phase is Phase.REFUSED and job.reason in _DUPLICATES
        ):
            attempts[attempt].append(job)
    return Breakers(now, by_incident, started_on), attempts


def _next_attempt(refused: Remediation, catalog: Catalog | None) -> Remediation | None:
    """Return a refused Job with the options that the next attempt for its alert has.

    None if the next attempt is not of this version of the operario.
    """
    if catalog is None:
        return refused
    operario = active_operario(refused, catalog)
    if operario is None or operario.spec_digest != refused.spec_digest:
        return None
    return structs.replace(refused, options=operario.options)


def _is_held_back(job: Remediation) -> bool:
    """Whether a Job of an alert that fires has not started, and a later attempt still may.

    (One that was refused as not helping only makes room for a new version of the operario.)
    """
    if job.status is not Status.FIRING or job.deleting:
        return False
    if job.waiting:
        return True
    return job.phase is Phase.REFUSED and job.reason == Reason.MAX_WAIT and job.resolved_at is None


def _first_in_row(jobs: Sequence[Remediation]) -> Remediation:
    """Return the first of the latest Jobs that were all held back while the alert fired."""
    first = jobs[-1]
    for job in reversed(jobs[:-1]):
        if not _is_held_back(job) or job.resolved_at is not None:
            break
        first = job
    return first

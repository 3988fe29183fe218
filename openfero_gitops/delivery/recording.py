"""Records on the Jobs of an incident what a delivery says about its alert.

That is when the alert was resolved, that it still fires after a remediation should have healed it,
and that it is still delivered, for which its Jobs are kept. Each of the first two is recorded once.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from openfero_gitops.background import in_turns, together
from openfero_gitops.delivery.attempt import jobs_to_keep
from openfero_gitops.delivery.pairs import is_later_member, is_resolved_by
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.errors import ApiError, Conflict, Invalid, NotFound
from openfero_gitops.domain.labels import replica_labels_in, without
from openfero_gitops.domain.remediation import Foreign
from openfero_gitops.effects.assess import is_still_firing
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from openfero_gitops.concurrency import AdaptiveSlots
    from openfero_gitops.delivery.pairs import Identity
    from openfero_gitops.domain.alert import Alert, Occurrence
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Jobs

_log = structlog.get_logger(__name__)


class IncidentRecorder:
    """Writes on existing Jobs what is heard of their alerts."""

    def __init__(
        self,
        jobs: Jobs,
        view: View,
        requests: AdaptiveSlots,
        replica_labels: frozenset[str],
    ) -> None:
        """Take the dependencies; `requests` limits the concurrent requests of all deliveries."""
        self._jobs = jobs
        self._view = view
        self._requests = requests
        self._replica_labels = replica_labels

    async def record_resolved(self, alerts: Iterable[Alert], received_at: datetime) -> None:
        """Record on every firing Job of resolved alerts that they were resolved.

        Raises:
            ApiError: it may not be recorded on each; the delivery must be repeated.
        """
        resolved_at: dict[str, datetime] = {}
        async for alert in in_turns(alerts):
            replica_labels = replica_labels_in(alert.labels, self._replica_labels)
            incident = incident_digest(without(alert.labels, replica_labels), Status.FIRING)
            moment = alert.ends_at or received_at
            resolved_at[incident] = max(moment, resolved_at.get(incident, moment))
        if not resolved_at:
            return
        jobs = {job.key: job for job in await self._jobs.of_incidents(list(resolved_at))}
        for incident in resolved_at:
            # The view also has Jobs that were created under other replica labels.
            for job in self._view.of_incident(incident):
                jobs.setdefault(job.key, job)

        due = []
        for job in jobs.values():
            if not job.incident:
                continue
            moment = resolved_at[job.incident]
            if job.resolved_at is None and is_resolved_by(job, moment):
                due.append(self._resolve(job, moment))
        for result in await asyncio.gather(*due, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _resolve(self, job: Remediation, resolved_at: datetime) -> None:
        async with self._requests.take():
            try:
                patched = await self._jobs.patch(job.key, patches.resolve(job, resolved_at))
            except NotFound:
                return  # deleted in the meantime
            except Invalid:
                await self._confirm_resolved(job)
            else:
                self._view.apply(observe(patched))

    async def _confirm_resolved(self, job: Remediation) -> None:
        """Check that a patch failed only because the Job has its resolved-at already."""
        try:
            current = observe(await self._jobs.get(job.key))
        except NotFound:
            return
        if isinstance(current, Foreign):
            return
        if current.uid == job.uid and current.resolved_at is None:
            raise Conflict(f"annotation resolved-at could not be written to Job {job.key}")

    async def record_delivered(
        self,
        alerts: Mapping[Identity, Alert],
        occurrences: Mapping[Identity, Occurrence],
        own: Mapping[Identity, JobKey | None],
        remember: timedelta,
        received_at: datetime,
    ) -> None:
        """Record that alerts were delivered: extend how long their Jobs are remembered.

        If a firing alert should have been healed by now, that is recorded with it. `occurrences`
        are those of the alerts, and `own` has the Job of each alert that has one. A failed write is
        left to the next delivery.
        """
        kept: dict[JobKey, Remediation] = {}
        still_firing: dict[JobKey, Remediation] = {}
        async for identity, alert in in_turns(alerts.items()):
            jobs = self._view.of_incident(occurrences[identity].incident)
            for job in jobs_to_keep(jobs):
                if received_at - job.delivered_at > remember / 10 or (
                    job.key == own.get(identity)
                    and is_later_member(alert, job, self._replica_labels)
                ):
                    kept[job.key] = job
            if alert.status is Status.FIRING:
                # The Job of a pair may have the start of its other member.
                starts_at = next(
                    (job.starts_at for job in jobs if job.key == own.get(identity)),
                    alert.starts_at,
                )
                still_firing.update(
                    (job.key, job) for job in jobs if is_still_firing(job, starts_at, received_at)
                )
        writes = []
        for job in {**kept, **still_firing}.values():
            patch: patches.Patch = []
            if job.key in still_firing:
                patch += patches.still_firing(job, received_at)
            if job.key in kept:
                patch += patches.keep_alive(job, received_at, _ttl(job, remember, received_at))
            writes.append(self._record(job, patch))
        await together(writes, "record a delivery")

    async def _record(self, job: Remediation, patch: patches.Patch) -> None:
        try:
            async with self._requests.take():
                patched = await self._jobs.patch(job.key, patch)
            self._view.apply(observe(patched))
        except ApiError as error:
            # The next delivery tries again, long before the Job expires.
            _log.info("a delivery was not recorded", job=str(job.key), error=str(error))


def _ttl(job: Remediation, remember: timedelta, now: datetime) -> int:
    """Return the seconds after its end for which a Job must be kept; it may say more already."""
    ttl = remember
    if job.finished_at is not None:
        ttl += now - job.finished_at
    return max(job.ttl_seconds or 0, -(-ttl // timedelta(seconds=1)))

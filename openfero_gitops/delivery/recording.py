"""Records on the Jobs of an incident what a delivery says about its alert.

That is when the alert was resolved, and that it is still delivered, for which its Jobs are kept.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from openfero_gitops.background import in_turns
from openfero_gitops.delivery.attempt import jobs_to_keep
from openfero_gitops.delivery.pairs import is_later_member, is_resolved_by
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.errors import ApiError, Conflict, Invalid, NotFound
from openfero_gitops.domain.labels import replica_labels_in, without
from openfero_gitops.domain.remediation import Foreign
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from openfero_gitops.delivery.pairs import Identity
    from openfero_gitops.domain.alert import Alert
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
        requests: asyncio.Semaphore,
        replica_labels: frozenset[str],
    ) -> None:
        """Take the dependencies; `requests` limits the concurrent requests of all deliveries."""
        self._jobs = jobs
        self._view = view
        self._requests = requests
        self._replica_labels = replica_labels

    def incident(self, alert: Alert, status: Status) -> str:
        """Return the digest of the incident of an alert, in this or another state."""
        replica_labels = replica_labels_in(alert.labels, self._replica_labels)
        return incident_digest(without(alert.labels, replica_labels), status)

    async def record_resolved(self, alerts: Iterable[Alert], received_at: datetime) -> None:
        """Record on every firing Job of resolved alerts that they were resolved.

        Raises:
            ApiError: it may not be recorded on each; the delivery must be repeated.
        """
        resolved_at: dict[str, datetime] = {}
        async for alert in in_turns(alerts):
            incident = self.incident(alert, Status.FIRING)
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
        async with self._requests:
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
        own: Mapping[Identity, JobKey | None],
        remember: timedelta,
        received_at: datetime,
    ) -> None:
        """Extend how long the Jobs of repeated alerts are remembered.

        `own` has the Job of each alert that has one.
        """
        due: dict[JobKey, Remediation] = {}
        async for identity, alert in in_turns(alerts.items()):
            for job in jobs_to_keep(self._view.of_incident(self.incident(alert, alert.status))):
                if received_at - job.delivered_at > remember / 10 or (
                    job.key == own.get(identity)
                    and is_later_member(alert, job, self._replica_labels)
                ):
                    due[job.key] = job

        async def keep(job: Remediation) -> None:
            ttl = remember
            if job.finished_at is not None:
                ttl += received_at - job.finished_at
            seconds = max(job.ttl_seconds or 0, -(-ttl // timedelta(seconds=1)))
            patch = patches.keep_alive(job, received_at, seconds)
            try:
                async with self._requests:
                    patched = await self._jobs.patch(job.key, patch)
                self._view.apply(observe(patched))
            except ApiError as error:
                # The next delivery tries again, long before the Job expires.
                _log.info("a Job's expiry was not extended", job=str(job.key), error=str(error))

        async with asyncio.TaskGroup() as tasks:
            for job in due.values():
                tasks.create_task(keep(job), name="keep alive")

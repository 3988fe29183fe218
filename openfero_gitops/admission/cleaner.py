"""Finishes what Kubernetes leaves open: failure messages, cancellations, old Jobs.

Only the leader does. A Job's Pods are deleted before the Job, so that the failure message of a
container is copied to the Job.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.admission.expiry import expired_jobs
from openfero_gitops.background import wait_for_event
from openfero_gitops.decision_log import Decided, log_decision_about
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import (
    ApiError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.operario import OnResolve
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.failure import failure_message
from openfero_gitops.jobs.observe import observe
from openfero_gitops.tracing import NO_TRACES, job_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs, RunningTerm, Traces

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 60.0
_RETRY: Final = timedelta(minutes=1)
#: Changes within this time are handled in one pass.
_BATCH_WINDOW_SECONDS: Final = 0.2
#: Time between two deletions: ten thousand Jobs take a quarter of an hour.
_DELETION_INTERVAL_SECONDS: Final = 0.1
#: Decisions of people, which the leader only sees.
_BY_HAND: Final[Mapping[str, Decided]] = {
    Reason.REFUSED_BY_HUMAN: Decided.REFUSED,
    Reason.CANCELLED_BY_HUMAN: Decided.CANCELLED,
}
_BACKOFF: Final = Backoff(first_seconds=1.0, max_seconds=10.0)


class Cleaner:
    """Follows Jobs to their end, and deletes those that Kubernetes never would."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        view: View,
        catalog: Callable[[], Catalog | None],
        counts: Counts,
        now: Callable[[], datetime],
        traces: Traces = NO_TRACES,
    ) -> None:
        """Take the dependencies; nothing is started."""
        self._jobs = jobs
        self._view = view
        self._catalog = catalog
        self._counts = counts
        self._now = now
        self._traces = traces
        # When a Job that was tried may be tried again, by uid.
        self._next_patch: dict[str, datetime] = {}
        self._next_deletion: dict[str, datetime] = {}

    async def run(self, term: RunningTerm) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(term), name="follow")
                tasks.create_task(self._clean(term), name="clean")
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _follow(self, term: RunningTerm) -> None:
        changed = self._view.subscribe()
        record = self._view.record_changes()
        started = self._now()
        unfinished = {job.uid: job.key for job in self._view if _is_unfinished(job)}
        # Jobs of an earlier term may have been finished by another leader.
        self._next_patch = {u: at for u, at in self._next_patch.items() if u in unfinished}
        try:
            while True:
                changed.clear()
                for before, after in record.take():
                    if after is None:
                        continue
                    if _has_ended(before, after, started):
                        self._note_end(after)
                    if _is_unfinished(after):
                        unfinished[after.uid] = after.key
                for uid, key in list(unfinished.items()):
                    if (job := self._current(uid, key)) is not None:
                        await self._finish(job, term)
                        job = self._current(uid, key)
                    if job is None or not _is_unfinished(job):
                        del unfinished[uid]
                        self._next_patch.pop(uid, None)
                if await wait_for_event(changed, _POLL_SECONDS):
                    await asyncio.sleep(_BATCH_WINDOW_SECONDS)
        finally:
            self._view.unsubscribe(changed)
            self._view.end_record(record)

    def _note_end(self, job: Remediation) -> None:
        self._counts.ended(job)
        if (decided := _BY_HAND.get(job.reason)) is not None:
            log_decision_about(job, decided, job.reason, message=job.message)
        _log.info("Job ended", job=str(job.key), phase=job.phase.value, operario=job.operario)
        self._trace_run(job)

    def _trace_run(self, job: Remediation) -> None:
        """Trace the run of a Job that has ended, if it was started."""
        if job.has_run and job.started_at is not None:
            failed = job.phase is not Phase.SUCCEEDED
            # Kubernetes records whole seconds, which begin before the admission.
            start = max(job.started_at, job.admitted_at or job.started_at)
            self._traces.past(
                "run",
                start,
                max(start, job.finished_at or self._now()),
                {**job_attributes(job), "openfero.phase": job.phase.value},
                after=job.traceparent,
                failure=f"{job.reason}: {job.message}" if failed else "",
            )

    def _current(self, uid: str, key: JobKey) -> Remediation | None:
        """Return a Job as it is now; None if it does not exist any more."""
        job = self._view.get(key)
        return job if job is not None and job.uid == uid else None

    async def _finish(self, job: Remediation, term: RunningTerm) -> None:
        """Write on a Job what Kubernetes leaves open, as far as it may be tried now."""
        if _lacks_message(job) and self._may_patch(job):
            await self._record_failure(job, term)
        if job.unrecorded_start is not None and self._may_patch(job):
            await self._record_start(job, job.unrecorded_start, term)
        if _must_be_cancelled(job) and self._may_patch(job):
            await self._cancel(job, term)

    def _may_patch(self, job: Remediation) -> bool:
        """Whether to patch a Job now: Jobs change all the time, and not every patch succeeds."""
        return _is_due(self._next_patch, job, self._now())

    async def _record_failure(self, job: Remediation, term: RunningTerm) -> None:
        """Copy the failure message of a container to its Job."""
        try:
            message = failure_message(job, await self._jobs.pods(job.key))
            term.check()
            changed = await self._jobs.patch(job.key, patches.record_failure(job, message))
        except NotFound:
            self._view.remove(job.key, job.uid)
        except ApiError as error:
            _log.info("cannot record why a Job failed", job=str(job.key), error=str(error))
        else:
            self._view.apply(observe(changed))

    async def _record_start(self, job: Remediation, moment: datetime, term: RunningTerm) -> None:
        """Record on a Job that it was started, so that a further start is recognized."""
        term.check()
        try:
            changed = await self._jobs.patch(job.key, patches.record_start(job, moment))
        except NotFound:
            self._view.remove(job.key, job.uid)
        except ApiError as error:
            _log.info("cannot record the start of a Job", job=str(job.key), error=str(error))
        else:
            del self._next_patch[job.uid]  # the next start may come within the minute
            self._view.apply(observe(changed))
            if job.starts > 1:
                _log.warning(
                    "Job started again",
                    job=str(job.key),
                    operario=job.operario,
                    starts=job.starts,
                )

    async def _cancel(self, job: Remediation, term: RunningTerm) -> None:
        """Stop a Job whose alert is resolved."""
        term.check()
        try:
            changed = await self._jobs.patch(job.key, patches.cancel_resolved(job))
        except NotFound:
            self._view.remove(job.key, job.uid)
        except Invalid:
            del self._next_patch[job.uid]  # it has just changed, and the view will show how
        except ApiError as error:
            _log.info("cannot cancel a Job", job=str(job.key), error=str(error))
        else:
            self._view.apply(observe(changed))
            log_decision_about(job, Decided.CANCELLED, Reason.RESOLVED.value)

    async def _clean(self, term: RunningTerm) -> None:
        """Delete the Jobs that Kubernetes would keep forever, one after the other."""
        failures = 0
        while True:
            catalog = self._catalog()
            expired = expired_jobs(self._view, catalog.envelope, self._now()) if catalog else []
            uids = {job.uid for job, _ in expired}
            self._next_deletion = {u: at for u, at in self._next_deletion.items() if u in uids}
            deleted = 0
            for job, expiry in expired:
                if not self._is_unchanged(job) or not _is_due(
                    self._next_deletion, job, self._now()
                ):
                    continue
                pause_seconds = 0.0
                term.check()
                try:
                    await self._jobs.delete(job.key, job.uid, job.resource_version)
                except NotFound:
                    self._view.remove(job.key, job.uid)
                except (Throttled, Unavailable, Unauthorized) as error:
                    failures += 1
                    retry_after = error.retry_after if isinstance(error, Throttled) else 0.0
                    pause_seconds = _BACKOFF.delay(failures, retry_after=retry_after)
                    _log.info("cannot delete an old Job", job=str(job.key), error=str(error))
                except ApiError as error:  # of this Job alone
                    failures = 0
                    _log.info("cannot delete an old Job", job=str(job.key), error=str(error))
                else:
                    failures = 0
                    deleted += 1
                    _log.debug("old Job deleted", job=str(job.key), because=expiry.value)
                await asyncio.sleep(max(_DELETION_INTERVAL_SECONDS, pause_seconds))
            if deleted:
                _log.info("old Jobs deleted", jobs=deleted)
            await asyncio.sleep(_POLL_SECONDS)

    def _is_unchanged(self, job: Remediation) -> bool:
        """Whether a Job is as it was when it was judged, which may be minutes ago."""
        current = self._view.get(job.key)
        return current is not None and (current.uid, current.resource_version) == (
            job.uid,
            job.resource_version,
        )


def _is_due(not_before: dict[str, datetime], job: Remediation, now: datetime) -> bool:
    if not_before.get(job.uid, now) > now:
        return False
    not_before[job.uid] = now + _RETRY
    return True


def _has_ended(before: Remediation | None, job: Remediation, since: datetime) -> bool:
    """Whether a Job has ended with a change; of a Job that is new in the view, since a moment.

    The leader may begin its term before it has listed the Jobs of the last day, whose ends earlier
    leaders have counted. Kubernetes records ends in whole seconds, so `since` is cut to them, too.
    """
    if job.phase not in FINAL:
        return False
    if before is None:
        return (job.finished_at or job.received_at) >= since.replace(microsecond=0)
    return before.phase not in FINAL


def _is_unfinished(job: Remediation) -> bool:
    """Whether something must be written on a Job."""
    return _lacks_message(job) or job.unrecorded_start is not None or _must_be_cancelled(job)


def _lacks_message(job: Remediation) -> bool:
    """Whether a Job failed, and the failure message of a container is not on it yet."""
    return job.phase is Phase.FAILED and not job.has_message


def _must_be_cancelled(job: Remediation) -> bool:
    """Whether a Job is running for a resolved alert, and its operario says to cancel it.

    One that Kueue has never started is waiting for its start, like a Job that is not admitted.
    """
    may_be_cancelled = job.options.on_resolve is OnResolve.CANCEL_RUNNING or (
        job.options.on_resolve is OnResolve.CANCEL and job.phase is Phase.QUEUED and not job.starts
    )
    return (
        job.status is Status.FIRING
        and job.resolved_at is not None
        and may_be_cancelled
        and job.decision is None
        and job.occupying
    )

"""Settles effects: records on each Job whether it helped, once that is known.

Only the leader does. An effect that is healed or not-healed is never changed again: the patch fails
if another leader settled the Job first. So it is settled only once deliveries that come late had
time to arrive; until then it is shown as it is assessed. A Job is assessed when something about its
incident has changed, or when time alone may change its effect; those that are settled cost nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.background import in_turns, wait_for_event
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.effect import FINAL_EFFECTS, Effect
from openfero_gitops.domain.errors import (
    ApiError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.remediation import Remediation
from openfero_gitops.effects.assess import assess, has_effect, is_dry_run
from openfero_gitops.effects.incident_index import IncidentIndex
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from openfero_gitops.tracing import NO_TRACES, job_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import JobKey
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.jobs.changes import JobChange
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs, RunningTerm, Traces

_log = structlog.get_logger(__name__)

#: Longest time for which a final effect is not settled because a delivery may come late: the
#: default `group_interval` of Alertmanager, after which it repeats a delivery that failed.
_LONGEST_GRACE: Final = timedelta(minutes=5)
#: Part of heals-within for which it is not settled, if that is shorter.
_GRACE_DIVISOR: Final = 3
#: Longest time between two passes.
_POLL_SECONDS: Final = 60.0
#: Changes within this time are handled in one pass.
_BATCH_WINDOW_SECONDS: Final = 1.0
#: Moments that are kept at most per Job that is due: a Job is often scheduled anew.
_MAX_PER_DUE: Final = 4
#: Pauses of all writes while the API server accepts none.
_BACKOFF: Final = Backoff(first_seconds=1.0, max_seconds=30.0)
#: Pauses of a single Job that the API server does not let change.
_BLOCKED: Final = Backoff(first_seconds=60.0, max_seconds=900.0)


@dataclass(slots=True)
class _Progress:
    """When the settler assesses Jobs again, by uid, even if nothing changes until then.

    Attributes:
        due: the moments, with the names of the Jobs.
        order: the same, the earliest first, and moments that no longer count.
        failures: how often the API server did not let a Job change.
    """

    due: dict[str, tuple[datetime, JobKey]] = field(default_factory=dict)
    order: list[tuple[datetime, str]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def take_due(self, now: datetime) -> list[JobKey]:
        """Return the Jobs that are due; each must be scheduled again, or is forgotten."""
        keys = []
        while self.order and self.order[0][0] <= now:
            moment, uid = heapq.heappop(self.order)
            if self._counts(moment, uid):
                keys.append(self.due.pop(uid)[1])
        return keys

    def seconds_until_due(self, now: datetime) -> float:
        """How long nothing has to be done unless a Job changes."""
        while self.order and not self._counts(*self.order[0]):
            heapq.heappop(self.order)
        if not self.order:
            return _POLL_SECONDS
        seconds = (self.order[0][0] - now).total_seconds()
        return min(max(seconds, _BATCH_WINDOW_SECONDS), _POLL_SECONDS)

    def schedule(self, job: Remediation, moment: datetime | None) -> None:
        """Assess a Job again at a time, or only when something changes."""
        self.failures.pop(job.uid, None)
        if moment is None:
            self.due.pop(job.uid, None)
        elif not self._counts(moment, job.uid):
            self.due[job.uid] = (moment, job.key)
            heapq.heappush(self.order, (moment, job.uid))
            if len(self.order) > _MAX_PER_DUE * len(self.due):
                self.order = sorted((at, uid) for uid, (at, _) in self.due.items())

    def block(self, job: Remediation, now: datetime) -> None:
        """Note that the API server did not let a Job change: it is tried again after a while."""
        failures = self.failures.get(job.uid, 0) + 1
        self.schedule(job, now + timedelta(seconds=_BLOCKED.delay(failures)))
        self.failures[job.uid] = failures

    def is_blocked(self, uid: str, now: datetime) -> bool:
        """Whether the API server did not let a Job change a short time ago."""
        return uid in self.failures and uid in self.due and self.due[uid][0] > now

    def _counts(self, moment: datetime, uid: str) -> bool:
        return uid in self.due and self.due[uid][0] == moment


class Settler:
    """Records the effects of remediations while this replica leads."""

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
        self._incidents = IncidentIndex(view)
        self._catalog = catalog
        self._counts = counts
        self._now = now
        self._traces = traces

    async def run(self, term: RunningTerm) -> None:
        """Work until cancelled."""
        changed = self._view.subscribe()
        record = self._view.record_changes()
        progress: _Progress | None = None
        failures = 0
        try:
            while True:
                changed.clear()
                pause_seconds = _POLL_SECONDS
                # Before all Jobs are listed, others of the same incident may be missing.
                if self._view.complete:
                    if progress is None:
                        # What was settled before this term was counted by an earlier leader.
                        progress = _Progress()
                        record.take()
                        due = [job for job in self._view if _may_change(job)]
                    else:
                        due = self._changed(record.take(), progress)
                    retry_after = await self._settle_all(due, progress, term)
                    failures = 0 if retry_after is None else failures + 1
                    if retry_after is not None:
                        await asyncio.sleep(_BACKOFF.delay(failures, retry_after=retry_after))
                        continue
                    pause_seconds = progress.seconds_until_due(self._now())
                if await wait_for_event(changed, pause_seconds):
                    await asyncio.sleep(_BATCH_WINDOW_SECONDS)
        finally:
            self._view.unsubscribe(changed)
            self._view.end_record(record)

    def _changed(self, changes: Iterable[JobChange], progress: _Progress) -> list[Remediation]:
        """Report new effects; return the Jobs that must be assessed: again, or for the first time.

        A Job may change the effect of every other Job of its incident.
        """
        jobs = {key: self._view.get(key) for key in progress.take_due(self._now())}
        incidents: set[str] = set()
        for before, after in changes:
            if after is not None:
                jobs[after.key] = after
                incidents.add(after.incident)
                if before is not None and after.effect is not before.effect:
                    self._report(after)
            elif before is not None:
                progress.schedule(before, None)
                incidents.add(before.incident)
        for incident in incidents - {""}:
            jobs.update((job.key, job) for job in self._view.of_incident(incident))
        changed = [job for job in jobs.values() if job is not None and _may_change(job)]
        return sorted(changed, key=lambda job: job.order)

    def _report(self, job: Remediation) -> None:
        """Log and count an effect that was settled, by this leader or in its time by an earlier."""
        if job.effect is None:
            return
        _log.info(
            "effect settled",
            job=str(job.key),
            operario=job.operario,
            effect=job.effect.value,
            why=job.effect_message,
        )
        self._trace(job, job.effect)
        if not is_dry_run(job):
            self._counts.settled(job, is_active=self._is_active(job))

    def _trace(self, job: Remediation, effect: Effect) -> None:
        """Trace how long after the Job's end its effect was clear, if not before."""
        clear_at = job.effect_at or self._now()
        self._traces.past(
            "effect",
            min(job.finished_at or clear_at, clear_at),
            clear_at,
            {**job_attributes(job), "openfero.effect": effect.value},
            after=job.traceparent,
            failure=job.effect_message if effect is Effect.NOT_HEALED else "",
        )

    def _is_active(self, job: Remediation) -> bool:
        """Whether the operario of a Job is in the active catalog."""
        catalog = self._catalog()
        operarios = catalog.by_alert.get(job.alertname.lower(), ()) if catalog else ()
        return any(operario.name == job.operario for operario in operarios)

    async def _settle_all(
        self, due: Iterable[Remediation], progress: _Progress, term: RunningTerm
    ) -> float | None:
        """Assess Jobs and record what is known; return None once all are done.

        If the API server accepts no writes now, the rest is left for the next pass, and the seconds
        for which it wants no request are returned.
        """
        stopped: ApiError | None = None
        async for listed in in_turns(due):
            job = self._view.get(listed.key)
            if job is None or job.uid != listed.uid or not _may_change(job):
                progress.schedule(listed, None)
                continue
            now = self._now()
            assessment = assess(job, self._incidents.of(job), now)
            settles_at = settling_time(job, assessment) if assessment is not None else None
            if assessment is None or settles_at is None or now < settles_at:
                next_change = assessment.next_change if assessment is not None else None
                progress.schedule(job, settles_at or next_change)
                continue
            if progress.is_blocked(job.uid, now):
                continue
            if stopped is not None:
                progress.schedule(job, now)
                continue
            try:
                await self._settle(job, assessment, term)
            except ApiError as error:
                if isinstance(error, Throttled | Unavailable | Unauthorized):
                    stopped = error
                    progress.schedule(job, now)
                else:  # of this Job alone
                    progress.block(job, now)
                _log.info("cannot record an effect", job=str(job.key), error=str(error))
            else:
                progress.schedule(job, None)
        if stopped is None:
            return None
        return stopped.retry_after if isinstance(stopped, Throttled) else 0.0

    async def _settle(self, job: Remediation, assessment: Assessment, term: RunningTerm) -> None:
        """Record an effect, unless another leader has recorded one.

        Raises:
            ApiError: it was not recorded.
        """
        at = assessment.at or self._now()
        settle = partial(patches.settle, job, assessment.effect, at, assessment.message)
        patch = settle()
        try:
            try:
                await self._patch(job, patch, term)
            except Invalid:
                read = await self._jobs.get(job.key)
                current = observe(read)
                self._view.apply(current)
                if not isinstance(current, Remediation) or _tested(current) != _tested(job):
                    return  # it is assessed again
                as_written = settle(annotations=read["metadata"].get("annotations") or {})
                if as_written == patch:
                    raise  # it was not a test that failed
                await self._patch(job, as_written, term)
        except NotFound:
            self._view.remove(job.key, job.uid)

    async def _patch(self, job: Remediation, patch: patches.Patch, term: RunningTerm) -> None:
        term.check()
        self._view.apply(observe(await self._jobs.patch(job.key, patch)))


def settling_time(job: Remediation, assessment: Assessment) -> datetime | None:
    """Return from when a new effect is settled; None if there is none that is known."""
    known_at = None if assessment.effect is job.effect else assessment.known_at
    if known_at is None or not assessment.is_revisable:
        return known_at
    return known_at + min(_LONGEST_GRACE, job.options.heals_within / _GRACE_DIVISOR)


def _tested(job: Remediation) -> tuple[Any, ...]:
    """What the patch of an effect tests."""
    return job.uid, job.effect, job.resolved_at, job.still_firing_at


def _may_change(job: Remediation) -> bool:
    """Whether a Job has an effect that is not final."""
    return has_effect(job) and job.effect not in FINAL_EFFECTS and not job.deleting

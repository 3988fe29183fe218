"""Starts waiting Jobs, or refuses them. Only the leader does.

A new leader lists the Jobs, writes a stamp of its term on each waiting one, and only then admits.
The stamp takes the Job away from earlier leaders: their patches test an older stamp, so that an
admission of theirs that is still in flight fails. After an admission without an answer the Job
counts as running, until a new stamp succeeds and proves that the admission did not.

A leader that takes its own lease back, with no other leader in between, trusts the stamps of its
last term. Otherwise, on an API server so slow that the lease is lost before all stamps are
written, each term would start again with the first Job and none would admit anything.

A leader that stops sends nothing more and waits for the answers. If it has all of them, no
admission of any leader is in flight: those of earlier leaders failed on the stamps. The next
leader learns this from the lease (`Term.handed_over`) and needs no stamps. It writes stamps if an
answer is missing, if a namespace could not be listed when the term began, or if the stamps were
not all written.

If somebody else starts a Job, the leader writes `admitted-at` on it and never starts it again: if
the Job is suspended soon enough, nothing else on it shows that it was started.

If the API server rejects changes to a Job (RBAC, an admission policy), the Job is blocked for a
while and takes no place in the queue.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import structs

from openfero_gitops.admission.decide import Admit, Refuse, Wait, decide_indexed, next_change
from openfero_gitops.admission.job_index import JobIndex
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.background import wait_for_event
from openfero_gitops.concurrency import AdaptiveSlots
from openfero_gitops.decision_log import Decided, log_decision_about
from openfero_gitops.domain.concurrency import ConcurrencyLimit
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound, Throttled
from openfero_gitops.domain.feed import Failed
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase, Remediation
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe
from openfero_gitops.tracing import NO_TRACES, job_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.live_index import LiveIndex
    from openfero_gitops.admission.pause import Control
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs, Term, Traces

_log = structlog.get_logger(__name__)

#: Writes in flight. Eight keep an idle API server busy. Sixteen, and the requests of deliveries,
#: leave connections of the client (`MAX_CONNECTIONS`) for the renewal of the lease. With two, one
#: slow write does not stop the others.
_WRITES: Final = ConcurrencyLimit(minimum=2, maximum=16, limit=8)
#: Failed writes after which a pass sends no more: the API server has a problem.
_MAX_FAILURES_PER_PASS: Final = 32
#: Between two passes: changes within this time are handled in one pass, as in a storm each Job
#: changes six times.
_BATCH_WINDOW_SECONDS: Final = 0.05
#: Pause after a pass with a failed write, also if Jobs changed.
_MIN_RETRY_SECONDS: Final = 1.0
#: Longest pause, whatever `Retry-After` says.
_MAX_RETRY_SECONDS: Final = 30.0
_BLOCKED_SECONDS: Final = 30.0
#: Longest time that a new leader waits for the view's own list before it lists the Jobs itself.
_MAX_LIST_SECONDS: Final = 60.0
#: Longest time that a write can be in flight; an API server's default timeout is a minute.
_MAX_IN_FLIGHT_SECONDS: Final = 90.0
#: Longest time between two passes.
_MAX_IDLE_SECONDS: Final = 5.0
#: Time between two passes while a Job waits for what neither a Job event nor a deadline ends.
_POLL_SECONDS: Final = 1.0
_POLLED_REASONS: Final = (Reason.PAUSED, Reason.NO_CATALOG)
#: Deciding blocks the event loop: it gets a tenth of the time.
_IDLE_PER_BUSY: Final = 9.0


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    """A Job of which it is unknown whether an admission was, or will be, carried out.

    `since` is when the last such admission may have been sent, by the event loop's clock.
    `decision` is the one whose answer is missing, if this replica sent one; if it was carried out,
    the Job carries `stamp`.
    """

    remediation: Remediation
    since: float
    decision: Admit | Refuse | None = None
    stamp: str = ""


@dataclass(slots=True)
class _TermState:
    """What the admitter knows in one term.

    `trusted_terms` are those whose stamps keep every other leader out. `complete` means that
    `unconfirmed` (by uid) holds each Job on which a write of an earlier leader may be in flight.
    `blocked` has by uid until when a Job must not be tried again, by the event loop's clock.
    """

    term: Term
    trusted_terms: frozenset[str] = frozenset()
    complete: bool = False
    stamps: int = 0
    unconfirmed: dict[str, _Unconfirmed] = field(default_factory=dict)
    blocked: dict[str, float] = field(default_factory=dict)
    # Of the current pass.
    failures: int = 0
    retry_after_seconds: float = 0.0
    busy_seconds: float = 0.0

    def new_stamp(self) -> str:
        """A stamp that no write in flight carries."""
        self.stamps += 1
        return f"{self.term.id}#{self.stamps}"

    def is_stamped(self, remediation: Remediation) -> bool:
        """Whether a Job carries a stamp of a trusted term, so that no other leader can write."""
        return (remediation.term or "").rpartition("#")[0] in self.trusted_terms

    def continued_by(self, term: Term) -> _TermState:
        """The state at the start of the next term of this replica."""
        if term.continues != self.term.id:
            return _TermState(term, frozenset({term.id}))
        return _TermState(term, self.trusted_terms | {term.id}, unconfirmed=self.unconfirmed)


class Admitter:
    """Admits and refuses waiting Jobs while this replica leads."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        view: View,
        index: LiveIndex,
        catalog: Callable[[], Catalog | None],
        control: Control,
        counts: Counts,
        now: Callable[[], datetime],
        identity: str,
        stopwatch: Callable[[], float] = time.perf_counter,
        traces: Traces = NO_TRACES,
    ) -> None:
        """Take the dependencies.

        `index` is that of the view; `stopwatch` measures how long deciding blocks the event loop.
        """
        self._jobs = jobs
        self._view = view
        self._index = index
        self._catalog = catalog
        self._control = control
        self._counts = counts
        self._now = now
        self._identity = identity
        self._stopwatch = stopwatch
        self._traces = traces
        self.write_slots = AdaptiveSlots(_WRITES)
        self._state: _TermState | None = None
        #: The last decision of this term on each waiting Job.
        self.decisions: Sequence[tuple[Remediation, Decision]] = ()

    async def run(self, term: Term) -> None:
        """Admit until cancelled, or until the term has ended or is about to."""
        previous = self._state
        state = previous.continued_by(term) if previous else _TermState(term, frozenset({term.id}))
        self._state = state
        changed = self._view.subscribe()
        waking = asyncio.create_task(_set_after(term.closing, changed), name="wake at the end")
        try:
            await self._await_view(state, changed)
            if not term.closing.is_set():
                await self._take_over(state)
            while not term.closing.is_set():
                changed.clear()
                idle_seconds = await self._pass(state)
                ended = _loop_time()
                if state.failures:
                    retry_seconds = min(state.retry_after_seconds, _MAX_RETRY_SECONDS)
                    await wait_for_event(term.closing, max(_MIN_RETRY_SECONDS, retry_seconds))
                    continue
                if await wait_for_event(changed, idle_seconds):
                    # In a storm Jobs change all the time: deciding must not block deliveries.
                    # The first change after a while does not wait.
                    idle_seconds = max(_BATCH_WINDOW_SECONDS, state.busy_seconds * _IDLE_PER_BUSY)
                    if (seconds_left := ended + idle_seconds - _loop_time()) > 0:
                        await wait_for_event(term.closing, seconds_left)
            # A pass has waited for the answers to all its writes.
            settled = state.complete and not state.unconfirmed
            _log.info(
                "admission stopped",
                term=term.id,
                settled=settled,
                unconfirmed=len(state.unconfirmed),
            )
            term.finish(settled=settled)
        finally:
            waking.cancel()
            self._view.unsubscribe(changed)
            self.decisions = ()
            await asyncio.wait({waking})

    async def _await_view(self, state: _TermState, changed: asyncio.Event) -> None:
        """Wait while the view lists Jobs for the first time, as it does when a replica starts.

        Two lists at once would read and hold every Job twice; a second one reads only Jobs that
        have changed since the first.
        """
        deadline = _loop_time() + _MAX_LIST_SECONDS
        while self._view.being_listed and not state.term.closing.is_set():
            changed.clear()
            if not await wait_for_event(changed, deadline - _loop_time()):
                return

    async def _take_over(self, state: _TermState) -> None:
        """List the Jobs from the API server and stamp those that an earlier leader may start."""
        self._control.begin_term()
        unlisted = set()
        for listed in await self._jobs.listed():
            if isinstance(listed, Failed):
                unlisted.add(listed.namespace)
                _log.warning(
                    "cannot list Jobs", namespace=listed.namespace, error=str(listed.error)
                )
                continue
            self._view.replace(listed.namespace, listed.jobs, listed.resource_version)
        waiting = [job for job in self._view if job.waiting and not job.deleting]
        _log.info(
            "admission started", term=state.term.id, jobs=len(self._view), waiting=len(waiting)
        )
        previous, state.unconfirmed = state.unconfirmed, {}
        for job in waiting:
            # A Job that could not be listed may have been admitted at any time.
            handed_over = state.term.handed_over and job.key.namespace not in unlisted
            if job.uid in previous or not (handed_over or state.is_stamped(job)):
                sent = previous.get(job.uid) or _Unconfirmed(job, 0.0)
                state.unconfirmed[job.uid] = replace(sent, remediation=job, since=_loop_time())
        for uid, unconfirmed in previous.items():
            if uid not in state.unconfirmed:
                self._note_if_carried_out(unconfirmed)
        state.complete = state.term.handed_over or not unlisted
        await self._confirm(state)

    async def _pass(self, state: _TermState) -> float:
        """Decide on all waiting Jobs and carry it out; return the seconds until the next pass."""
        started = _loop_time()
        state.failures, state.retry_after_seconds = 0, 0.0
        state.blocked = {uid: until for uid, until in state.blocked.items() if until > started}
        blocked_before = len(state.blocked)
        await self._confirm(state)
        pause = await self._control.read_pause()
        # No await from here to the decision: all of it must be about the same moment.
        measured = self._stopwatch()
        catalog = self._catalog()
        now = self._now()
        # Before every namespace has been listed it is unknown what is running: decide nothing.
        index = self._index.get() if self._view.complete else JobIndex()
        waiting = with_requirements(index.waiting.values(), catalog)
        decisions = decide_indexed(
            index,
            [self._assumed(job, state) for job in waiting],
            catalog.envelope if catalog else None,
            pause=pause,
            now=now,
            unconfirmed=state.unconfirmed.keys(),
        )
        self.decisions = decisions
        state.busy_seconds = self._stopwatch() - measured
        async with asyncio.TaskGroup() as tasks:
            for job, decision in decisions:
                if isinstance(decision, Admit | Refuse) and job.uid not in state.blocked:
                    tasks.create_task(self._carry_out(state, job, decision), name="admit")
            for job in list(index.started_by_other.values()):
                if job.uid not in state.blocked:
                    tasks.create_task(self._record_start(state, job), name="record a start")
        if not state.unconfirmed:
            await self._control.acknowledge(state.term.check)
        if len(state.blocked) > blocked_before:
            return 0.0  # the limits have room for others
        idle_seconds = [_MAX_IDLE_SECONDS, *(until - started for until in state.blocked.values())]
        if (moment := next_change(decisions)) is not None:
            idle_seconds.append((moment - now).total_seconds())
        if any(
            isinstance(decision, Wait) and decision.reason in _POLLED_REASONS
            for _, decision in decisions
        ):
            idle_seconds.append(_POLL_SECONDS)
        return max(min(idle_seconds), _BATCH_WINDOW_SECONDS)

    @staticmethod
    def _assumed(job: Remediation, state: _TermState) -> Remediation:
        """A Job as it must be counted.

        With an unconfirmed admission it counts as running; a blocked one waits as for approval.
        """
        if job.waiting and job.uid in state.unconfirmed:
            return structs.replace(job, phase=Phase.RUNNING, suspended=False, started=True)
        if job.waiting and job.uid in state.blocked:
            return structs.replace(job, phase=Phase.AWAITING_APPROVAL)
        return job

    async def _confirm(self, state: _TermState) -> None:
        """Stamp unconfirmed Jobs: a stamp that succeeds proves that no admission did, or will."""

        async def confirm(job: Remediation) -> None:
            try:
                await self._write(state, job, patches.stamp(job, state.new_stamp()))
            except ApiError as error:
                self._record_failure(state, job, error)
            else:
                self._note_if_carried_out(state.unconfirmed.pop(job.uid))

        async with asyncio.TaskGroup() as tasks:
            for uid, unconfirmed in list(state.unconfirmed.items()):
                if uid not in state.blocked:
                    tasks.create_task(confirm(unconfirmed.remediation), name="stamp")

    async def _carry_out(
        self, state: _TermState, job: Remediation, decision: Admit | Refuse
    ) -> None:
        stamp = state.new_stamp()
        attributes = {**job_attributes(job), "openfero.reason": decision.reason.value}
        try:
            if isinstance(decision, Admit):
                with self._traces.step("admit", attributes, after=job.traceparent):
                    patch = patches.admit(job, stamp, self._identity, self._now())
                    applied = await self._write(state, job, patch)
            else:
                with self._traces.step("refuse", attributes, after=job.traceparent):
                    patch = patches.refuse(job, stamp, decision.reason, decision.message)
                    applied = await self._write(state, job, patch)
        except ApiError as error:
            if not error.answered:
                state.unconfirmed[job.uid] = _Unconfirmed(job, _loop_time(), decision, stamp)
            self._record_failure(state, job, error)
            return
        except asyncio.CancelledError:
            # The API server may carry it out nevertheless.
            state.unconfirmed[job.uid] = _Unconfirmed(job, _loop_time(), decision, stamp)
            raise
        if applied:
            self._note(job, decision)

    def _note(self, job: Remediation, decision: Admit | Refuse) -> None:
        """Count and log a decision that was carried out."""
        if isinstance(decision, Admit):
            decided, message = Decided.ADMITTED, ""
        else:
            decided, message = Decided.REFUSED, decision.message
        self._counts.decided(decision.reason)
        log_decision_about(
            job,
            decided,
            decision.reason.value,
            message=message,
            approved_by=job.approved_by or "",
        )

    def _note_if_carried_out(self, unconfirmed: _Unconfirmed) -> None:
        """Count and log a decision without an answer, if the Job shows that it was carried out."""
        job, decision = unconfirmed.remediation, unconfirmed.decision
        current = self._view.get(job.key)
        if decision is None or current is None or current.uid != job.uid:
            return
        if current.term == unconfirmed.stamp:
            self._note(job, decision)

    async def _record_start(self, state: _TermState, job: Remediation) -> None:
        """Write on a Job that somebody else started it."""
        try:
            applied = await self._write(state, job, patches.started_by_other(job, self._now()))
        except ApiError as error:
            self._record_failure(state, job, error)
            return
        if applied:
            _log.warning(
                "Job started outside of the controller", job=str(job.key), operario=job.operario
            )

    def _record_failure(self, state: _TermState, job: Remediation, error: ApiError) -> None:
        """Note a failed write, and how soon it may be tried again."""
        if isinstance(error, Forbidden | Invalid):
            state.blocked[job.uid] = _loop_time() + _BLOCKED_SECONDS
            unconfirmed = state.unconfirmed.get(job.uid)
            if unconfirmed and _loop_time() - unconfirmed.since > _MAX_IN_FLIGHT_SECONDS:
                self._note_if_carried_out(state.unconfirmed.pop(job.uid))
            _log.warning("API server rejects changes to a Job", job=str(job.key), error=str(error))
            return
        state.failures += 1
        if isinstance(error, Throttled):
            state.retry_after_seconds = max(state.retry_after_seconds, error.retry_after)
        if state.failures == 1:  # the others of this pass have the same cause
            _log.warning(
                "cannot write a decision, or its answer was lost",
                job=str(job.key),
                error=str(error),
            )

    async def _write(self, state: _TermState, job: Remediation, patch: patches.Patch) -> bool:
        """Send a patch; if a test in it fails, read the Job instead.

        Returns whether the patch was applied. Raises ApiError if that is unknown, or if the API
        server rejects the change itself.
        """
        async with self.write_slots.take() as slot:
            slot.measured = False  # nothing is sent yet
            if state.failures >= _MAX_FAILURES_PER_PASS:
                raise Throttled("not sent: too many writes failed")
            if state.term.closing.is_set():
                raise Throttled("not sent: this leader is about to hand over")
            state.term.check()
            slot.measured = True
            try:
                self._view.apply(observe(await self._jobs.patch(job.key, patch)))
            except Invalid:
                try:
                    current = observe(await self._jobs.get(job.key))
                except NotFound:
                    self._view.remove(job.key, job.uid)
                    return False
                self._view.apply(current)
                if isinstance(current, Remediation) and _tested(current) == _tested(job):
                    raise  # it was not a test that failed
                return False
            except NotFound:
                self._view.remove(job.key, job.uid)
                return False
            return True


def _tested(job: Remediation) -> tuple[object, ...]:
    """Everything that the patches of the admitter test."""
    return (
        job.uid,
        job.waiting,
        job.admitted_at,
        job.decision,
        job.term,
        job.resolved_at,
        job.approved_by,
    )


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


async def _set_after(first: asyncio.Event, event: asyncio.Event) -> None:
    """Set an event as soon as another one is set."""
    await first.wait()
    event.set()

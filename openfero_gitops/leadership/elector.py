"""Takes the lease, runs the leader's work, and ends it before another replica can lead.

A term lasts until `renew_deadline` after the *start* of the last successful renewal, measured by
CLOCK_BOOTTIME, which runs on while a process is frozen or a machine sleeps. Another replica waits
for `lease_duration`, which is longer, after it *read* that renewal, which is later. So a term has
ended before the lease can pass on, whatever happens to the wall clock, the process or the network.
`LeaseTerm.check`, called after the last await before each write, keeps a replica from writing that
was frozen in the middle of its work.

The check cannot stop a request that is already in flight. Therefore each patch that starts a Job
tests the stamp that was read from the Job. The next leader first writes new stamps, after which
older requests fail.

A replica that stops lets its work finish what it has started, for as long as one request for the
lease may take. If no admission is in flight then, of this leader or earlier ones, the release
marks the lease as settled (`LeaseRecord.settled`). A replica that takes the lease in exactly that
state needs no stamps (`LeaseTerm.handed_over`), however late the release arrives: nobody can have
led in between. A term that ends in any other way leaves no mark, and every new leader removes it.

When a term ends, its work is cancelled. The lease is released only after the work has ended, so
that another replica can take it at once. Work that does not end within a lease duration cannot be
stopped from within this process: `Elector.run` raises `WorkStuck` without releasing the lease, and
the program exits. Until then `LeaseTerm.check` keeps the work from writing.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import structlog

from openfero_gitops.background import OnChange, log_failure
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    OpenFeroError,
    Throttled,
    UsageError,
)
from openfero_gitops.domain.lease import JITTER, Leadership
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.leadership.election import (
    Acquire,
    Create,
    LeadershipReason,
    LeaseCandidate,
    ObservedLease,
    StandBy,
    StepDown,
    acquire_or_wait,
    describe_silent_holder,
    expires_at,
    observe_lease,
    release,
    renew_or_step_down,
)
from openfero_gitops.leadership.term import LeaseTerm, TermEnded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from openfero_gitops.domain.lease import LeaseDurations, LeaseRecord

#: Part of the retry period: longest delay before a lease that has just changed is read, so that
#: the candidates do not all come at the same instant.
_MAX_SHORT_DELAY: Final = 0.05
#: In retry periods: longest silence of a watch before the lease is read.
_MAX_WATCH_SILENCE: Final = 1.5
_WATCH_SECONDS: Final = 300.0
#: Longest pause of a replica whose work fails again and again; longer work resets the back-off.
_MAX_BACKOFF_SECONDS: Final = 60.0
#: `time.CLOCK_BOOTTIME` exists on Linux; elsewhere CLOCK_MONOTONIC runs on during sleep.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: Another replica wrote since the lease was read: read it again.
_CONFLICTS: Final = (AlreadyExists, Conflict, NotFound)

_log = structlog.get_logger(__name__)


def boottime() -> float:
    """Seconds since the machine started, including the time that it slept."""
    return time.clock_gettime(_CLOCK)


def utc_now() -> datetime:
    """The wall clock's time, which the Lease shows to people."""
    return datetime.now(UTC)


class WorkStuck(OpenFeroError):
    """Cancelled work did not end; only the end of this process ends it."""


class LeaseStore(Protocol):
    """Reads and writes the lease. Each method raises only `ApiError`, within its timeout."""

    async def read(self, *, timeout: float) -> LeaseRecord | None:
        """Return the record, None if there is no Lease."""
        ...

    async def create(self, record: LeaseRecord, *, timeout: float) -> LeaseRecord:
        """Create the Lease; return the record as stored."""
        ...

    async def replace(
        self, record: LeaseRecord, resource_version: str, *, timeout: float
    ) -> LeaseRecord:
        """Replace the Lease if it is still at this version; return the record as stored."""
        ...

    def changes(
        self, resource_version: str, *, timeout: float
    ) -> AsyncGenerator[LeaseRecord | None, None]:
        """Yield the record at each change after this version, None when it was deleted.

        Ends by itself, and may yield nothing. It saves reads and shows a release at once, but no
        write depends on it.
        """
        ...


class Elector:
    """Takes the lease whenever it is free, and leads.

    `lead` is the leader's work: it runs until it is cancelled, and reacts to `LeaseTerm.closing`.
    Each of `on_change` is called with a status that changed, and must not block. `identity` should
    be unique: two replicas of one name do not lead together, but cannot be told apart. `clock`
    returns seconds that never jump, `wall` the time for people to read.
    """

    def __init__(
        self,
        lease: LeaseStore,
        identity: str,
        durations: LeaseDurations,
        lead: Callable[[LeaseTerm], Awaitable[None]],
        *,
        on_change: Sequence[Callable[[Leadership], None]] = (),
        clock: Callable[[], float] = boottime,
        wall: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
    ) -> None:
        if not identity:
            raise UsageError("identity is empty: a lease without a holder counts as free")
        self._lease = lease
        self._candidate = LeaseCandidate(identity, int(durations.lease_duration))
        self._durations = durations
        self._lead = lead
        self._on_change = tuple(on_change)
        self._clock = clock
        self._wall = wall
        self._rng = rng if rng is not None else random.Random()  # noqa: S311, not a secret
        self._work_backoff = Backoff(durations.retry_period * 2, _MAX_BACKOFF_SECONDS)
        self._observed = ObservedLease()
        # The record with which this process last took the lease, or tried to without an answer.
        self._acquired: LeaseRecord | None = None
        self._must_release = False  # the Lease may still have that record, and no work is running
        self._settled = False  # and no admission is in flight
        # The id of the own last term, with each record that it may have left in the Lease.
        self._last_term: tuple[tuple[str, LeaseRecord], ...] = ()
        self._lease_error = OnChange(_log.warning, "cannot read or write the Lease")
        self._forbidden = ""  # why this replica may not take the lease, at the last attempt
        self._status = Leadership()

    @property
    def status(self) -> Leadership:
        """Who leads, as far as this replica knows."""
        return self._status

    @property
    def trouble(self) -> str:
        """Why this replica cannot lead, or nobody may be leading although the lease has a holder.

        Empty if nothing is wrong.
        """
        if self._status.leader:
            return ""
        silent = describe_silent_holder(self._candidate, self._observed, self._clock())
        return self._forbidden or silent

    async def run(self) -> NoReturn:
        """Run until cancelled; then stop the work, release the lease, and end.

        Raises:
            WorkStuck: the work does not end after it was cancelled; end the process.
        """
        failures = 0
        not_before = self._clock()
        try:
            while True:
                term, acquired = await self._acquire(not_before)
                started = self._clock()
                reason = await self._run_term(term, acquired)
                await self._release()
                not_before = self._clock()
                if reason in (LeadershipReason.FAILED, LeadershipReason.RETURNED):
                    failures = failures + 1 if not_before - started < _MAX_BACKOFF_SECONDS else 1
                    delay = self._work_backoff.delay(failures)
                    not_before += delay * self._rng.uniform(1 / JITTER, JITTER)
        finally:
            await self._release()

    async def _acquire(self, not_before: float) -> tuple[LeaseTerm, LeaseRecord]:
        """Wait for the lease and take it, but not before this time."""
        is_retry = False  # after a conflict the lease is read again at once, but only once
        while True:
            try:
                self._observe(await self._lease.read(timeout=self._durations.request_timeout))
                step = acquire_or_wait(
                    self._candidate,
                    self._observed,
                    self._acquired,
                    now=self._clock(),
                    wall=self._wall(),
                )
                if isinstance(step, StandBy):
                    self._forbidden = ""
                    self._publish(step.reason)
                    delay = await self._watch_holder(step)
                elif self._clock() < not_before:
                    self._publish(LeadershipReason.BACKING_OFF)
                    delay = self._delay_until(not_before)
                else:
                    term = await self._write_acquisition(step)
                    self._forbidden = ""
                    if term.holds():
                        return term, step.record
                    delay = 0.0  # frozen during the write: the term has already ended
                is_retry = False
            except ApiError as error:
                self._forbidden = str(error) if isinstance(error, Forbidden) else ""
                is_retry = isinstance(error, _CONFLICTS) and not is_retry
                if is_retry:
                    delay = self._short_delay()
                else:
                    delay = self._delay_after(error)
                    self._publish(f"cannot read or write the Lease: {error}")
            await asyncio.sleep(delay)

    async def _watch_holder(self, step: StandBy) -> float:
        """Watch the lease while another replica leads; return when to read it, in seconds."""
        now = asyncio.get_running_loop().time
        started = self._clock()
        if self._observed.record is not None:
            version = self._observed.record.resource_version
            try:
                async with (
                    asyncio.timeout(self._max_silence()) as limit,
                    aclosing(self._lease.changes(version, timeout=_WATCH_SECONDS)) as changes,
                ):
                    async for record in changes:
                        self._observe(record)
                        if self._observed.held is None:
                            return self._short_delay()  # it was released
                        self._publish(step.reason)
                        limit.reschedule(now() + self._max_silence())
            except TimeoutError:
                return 0.0
            except ApiError as error:
                _log.debug("cannot watch the Lease, reading it instead", error=str(error))
        # Not less, or a watch that ends at once would be started again at once.
        return max(0.0, self._delay_until(step.until) - (self._clock() - started))

    def _max_silence(self) -> float:
        """How long to wait for the holder's next renewal before the lease is read."""
        left = max(0.0, expires_at(self._candidate, self._observed) - self._clock())
        return min(self._durations.retry_period * _MAX_WATCH_SILENCE, left + self._short_delay())

    async def _write_acquisition(self, step: Create | Acquire) -> LeaseTerm:
        before = (self._acquired, self._must_release)
        replaced = self._observed.record  # in exactly this state, by its resourceVersion
        handed_over = replaced is not None and replaced.settled
        continues = next(
            (
                term_id
                for term_id, record in self._last_term
                if replaced and replaced.same_term(record)
            ),
            "",
        )
        acquired_at = format_time(step.record.acquired_at) if step.record.acquired_at else ""
        term_id = f"{self._candidate.identity}/{step.record.transitions}/{acquired_at}"
        self._acquired, self._must_release, self._settled = step.record, True, False
        timeout = self._durations.request_timeout
        started = self._clock()
        try:
            if isinstance(step, Create):
                stored = await self._lease.create(step.record, timeout=timeout)
            else:
                stored = await self._lease.replace(
                    step.record, step.resource_version, timeout=timeout
                )
        except ApiError as error:
            if error.answered:  # it was rejected: the Lease does not have this record
                self._acquired, self._must_release = before
            raise
        self._observe(stored)
        self._last_term = ((term_id, step.record),)
        deadline = started + self._durations.renew_deadline
        return LeaseTerm(term_id, self._clock, deadline, continues, handed_over=handed_over)

    async def _run_term(self, term: LeaseTerm, acquired: LeaseRecord) -> LeadershipReason:
        """Run the work while the term lasts; return why it ended."""
        _log.info("became leader", term=term.id)
        self._publish("took the lease", term)
        work = asyncio.create_task(self._run_work(term), name=f"work of {term.id}")
        renewal = asyncio.create_task(self._renew(term, acquired), name=f"renewal of {term.id}")
        reason = LeadershipReason.STOPPING
        try:
            while term.holds() and not work.done() and not renewal.done():
                await asyncio.wait(
                    {work, renewal},
                    timeout=term.remaining(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if renewal.done():
                reason = renewal.result()
            elif not term.holds():
                reason = LeadershipReason.EXPIRED  # work that noticed it first has not failed
            else:
                failed = work.cancelled() or work.exception() is not None
                reason = LeadershipReason.FAILED if failed else LeadershipReason.RETURNED
        except asyncio.CancelledError:
            await self._finish_work(term, work, renewal)
            raise
        finally:
            self._settled = term.settled
            term.end()
            _log.info("stopped leading", term=term.id, reason=reason.value)
            self._publish(reason)
            await self._cancel_work(work, renewal)
        return reason

    async def _run_work(self, term: LeaseTerm) -> None:
        try:
            await self._lead(term)
        except TermEnded:
            if term.holds():
                raise
        except Exception as error:
            log_failure(_log, "the leader's work failed", error, term=term.id)
            raise

    async def _finish_work(
        self, term: LeaseTerm, work: asyncio.Task[None], renewal: asyncio.Task[LeadershipReason]
    ) -> None:
        """Let the work finish what it has started, if that does not take long."""
        term.closing.set()
        finished = asyncio.create_task(term.finished.wait(), name=f"end of the work of {term.id}")
        try:
            await asyncio.wait(
                {work, renewal, finished},
                timeout=min(term.remaining(), self._durations.request_timeout),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            finished.cancel()

    async def _cancel_work(
        self, work: asyncio.Task[None], renewal: asyncio.Task[LeadershipReason]
    ) -> None:
        """Cancel both tasks and wait until they have ended; only then the lease is released."""
        self._must_release = False
        renewal.cancel()
        work.cancel()
        until = self._clock() + self._durations.lease_duration
        cancelled: asyncio.CancelledError | None = None
        tasks: set[asyncio.Task[Any]] = {work, renewal}
        while not work.done() or not renewal.done():
            try:
                await asyncio.wait(tasks, timeout=max(0.0, until - self._clock()))
            except asyncio.CancelledError as error:
                cancelled = error  # SIGTERM, after the term had ended for another reason
            if self._clock() >= until:
                break
        if not work.done():
            raise WorkStuck(
                "the leader's work did not end within "
                f"{self._durations.lease_duration:g} s of being cancelled: this process must end"
            )
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # mark as retrieved: it was logged where it was raised
        self._must_release = True
        if cancelled is not None:
            raise cancelled

    async def _renew(self, term: LeaseTerm, acquired: LeaseRecord) -> LeadershipReason:
        """Renew until the lease is lost; the caller watches the deadline."""
        delay = self._durations.retry_period
        must_read = is_retry = False
        while True:
            await asyncio.sleep(delay)
            try:
                if must_read:
                    self._observe(await self._lease.read(timeout=self._timeout(term)))
                    must_read = False
                step = renew_or_step_down(self._observed.record, acquired, wall=self._wall())
                if isinstance(step, StepDown):
                    return step.reason
                if not term.holds():
                    return LeadershipReason.EXPIRED
                started = self._clock()
                stored = await self._lease.replace(
                    step.record, step.resource_version, timeout=self._timeout(term)
                )
            except ApiError as error:
                conflict = isinstance(error, _CONFLICTS)
                must_read = must_read or conflict
                is_retry = conflict and not is_retry
                delay = self._short_delay() if is_retry else self._delay_after(error)
            else:
                if not term.extend(started + self._durations.renew_deadline):
                    return LeadershipReason.EXPIRED
                self._observe(stored)
                is_retry = False
                delay = max(0.0, started + self._durations.retry_period - self._clock())

    async def _release(self) -> None:
        """Release the lease if this replica still holds it, within the time of one request."""
        acquired = self._acquired
        if acquired is None or not self._must_release:
            return
        try:
            async with asyncio.timeout(self._durations.request_timeout):
                while True:
                    if await self._try_release(acquired):
                        return
                    await asyncio.sleep(self._durations.retry_period * _MAX_SHORT_DELAY)
        except TimeoutError:
            _log.warning("cannot release the Lease, it will expire", holder=acquired.holder)

    async def _try_release(self, acquired: LeaseRecord) -> bool:
        timeout = self._durations.request_timeout
        try:
            self._observe(await self._lease.read(timeout=timeout))
            step = release(
                self._observed.record, acquired, wall=self._wall(), settled=self._settled
            )
            if step is not None:
                self._last_term += tuple(
                    (term_id, step.record) for term_id, _ in self._last_term[:1]
                )
                self._observe(
                    await self._lease.replace(step.record, step.resource_version, timeout=timeout)
                )
        except ApiError as error:
            if not isinstance(error, _CONFLICTS):
                self._delay_after(error)
            return False
        self._must_release = False
        self._publish(self._status.reason)
        return True

    def _delay_until(self, moment: float) -> float:
        """How long to wait before the lease is read, if nothing can be done before then."""
        left = max(0.0, moment - self._clock())
        return min(self._retry_delay(), left + self._short_delay())

    def _timeout(self, term: LeaseTerm) -> float:
        return min(self._durations.request_timeout, max(term.remaining(), 0.001))

    def _retry_delay(self) -> float:
        return self._durations.retry_period * self._rng.uniform(1 / JITTER, JITTER)

    def _short_delay(self) -> float:
        return self._durations.retry_period * self._rng.uniform(0.0, _MAX_SHORT_DELAY)

    def _delay_after(self, error: ApiError) -> float:
        """Log each kind of error once; return the seconds to wait before the next attempt."""
        self._lease_error.set(type(error).__name__, message=str(error))
        retry_after = error.retry_after if isinstance(error, Throttled) else 0.0
        return max(self._retry_delay(), min(retry_after, self._durations.lease_duration))

    def _observe(self, record: LeaseRecord | None) -> None:
        self._lease_error.clear()
        self._observed = observe_lease(self._observed, record, self._clock())

    def _publish(self, reason: str, term: LeaseTerm | None = None) -> None:
        held = self._observed.held
        status = Leadership(
            leader=term is not None,
            holder=held.holder if held else "",
            term=term.id if term else "",
            since=held.acquired_at if held else None,
            reason=str(reason),
        )
        if status == self._status:
            return
        self._status = status
        for listener in self._on_change:
            try:
                listener(status)
            except Exception:  # noqa: BLE001 - a page that fails must not keep the work running
                _log.exception("a listener to leadership changes failed")

"""One replica leads: takes the lease, runs the guarded work, and stops it in time.

The work runs under a `Term`. A term lasts until `renew_deadline` after the *start* of the last
renewal that succeeded, by CLOCK_BOOTTIME, which counts while a process is frozen and while a
machine sleeps. Another replica waits for `lease_duration` after it *saw* that renewal, which is
later, and longer. So a term is over before the lease can pass on, whatever happens to the wall
clock, the process or the network; and `Term.check`, called after the last await before each
write, is what makes a replica that was frozen in mid-work keep still when it thaws.

What a check cannot stop is a request that is on its way already. What starts Jobs therefore tests
the stamp that was read from the object: whoever leads next stamps it first, and the request then
fails, however late it comes.

A replica that is told to stop lets the work finish first what it has begun, for as long as one
request of the lease may take, and the work says how it leaves things. Where nothing is under way
any more, of its own or of those who led before, the release says so (`LeaseRecord.settled`), and
whoever takes the lease in exactly that state is spared the stamps (`Term.handed_over`). It stays
true however late the release arrives, since nobody can have led in between. A term that ends in
any other way says nothing, and whoever takes a lease takes the word away with it.

The work is cancelled when its term ends, and waited for: the lease is released, so that another
replica takes it over at once, only after the work has ended. Work that does not end within
another lease duration cannot be ended from inside this process: `Elector.run` then raises
`WorkStuck` without releasing, and the program exits. Until it has, `Term.check` keeps it still.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import structlog

from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    NotFound,
    OpenFeroError,
    Throttled,
    UsageError,
)
from openfero_gitops.domain.lease import JITTER, Leadership
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.leadership.election import (
    Acquire,
    Because,
    Candidate,
    Create,
    Sighting,
    StepDown,
    Wait,
    keep,
    release,
    runs_out,
    see,
    stand,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from openfero_gitops.domain.lease import LeaseDurations, LeaseRecord

#: Of the retry period: how long at most to hold back before reading a lease that just changed,
#: so that the candidates do not come all in the same instant.
_MOMENT: Final = 0.05
#: Of the retry period: how long a watched lease may rest before it is read all the same.
_SILENCE: Final = 1.5
#: Seconds: how long one watch of the lease lasts.
_WATCH: Final = 300.0
#: Seconds: the longest rest of a replica whose work fails again and again.
_LONGEST_REST: Final = 60.0
#: `time.CLOCK_BOOTTIME` is Linux'; elsewhere CLOCK_MONOTONIC counts a sleeping machine's time.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

#: Somebody wrote since the lease was read: read it again.
_IN_BETWEEN: Final = (AlreadyExists, Conflict, NotFound)

_log = structlog.get_logger(__name__)


def boottime() -> float:
    """Seconds since the machine started, those that it slept included."""
    return time.clock_gettime(_CLOCK)


def utc_now() -> datetime:
    """Return the wall clock's time, which goes into the Lease for people to read."""
    return datetime.now(UTC)


class TermEnded(OpenFeroError):
    """The replica does not lead any more: what was about to be written must not be."""


class WorkStuck(OpenFeroError):
    """Cancelled work did not end: only the end of this process ends it."""


class Term:
    """One leadership, as the work it guards sees it.

    `id` is this leadership's alone: a replica that leads twice has two. A term that has ended
    stays so. `clock` gives seconds; `deadline` is by that clock. `continues` is the id of this
    replica's own term before, where it took back a lease that nobody else had since. `closing` is
    set when the replica is to stop: the work then begins nothing more, and calls `finish` when
    all that it had begun is done.
    """

    __slots__ = (
        "_clock",
        "_continues",
        "_deadline",
        "_ended",
        "_handed_over",
        "_id",
        "_settled",
        "closing",
        "finished",
    )

    def __init__(
        self,
        term_id: str,
        clock: Callable[[], float],
        deadline: float,
        continues: str = "",
        *,
        handed_over: bool = False,
    ) -> None:
        self._id = term_id
        self._continues = continues
        self._handed_over = handed_over
        self._clock = clock
        self._deadline = deadline
        self._ended = False
        self._settled = False
        self.closing = asyncio.Event()
        self.finished = asyncio.Event()

    @property
    def id(self) -> str:
        """The name of this leadership, one line of text."""
        return self._id

    @property
    def continues(self) -> str:
        """The id of the own term that this one follows; empty where another may have led since."""
        return self._continues

    @property
    def handed_over(self) -> bool:
        """Whether whoever led before left nothing under way that could still start a Job."""
        return self._handed_over

    @property
    def settled(self) -> bool:
        """Whether the work was finished, and left nothing under way either."""
        return self._settled

    def finish(self, *, settled: bool) -> None:
        """Say that all is done that was begun; what ends by itself is not handed over.

        `settled` says that no admission is under way, this term's or an earlier one's.
        """
        self._settled = settled and self.closing.is_set() and self.holds()
        self.finished.set()

    def holds(self) -> bool:
        """Whether the replica still leads; asks nothing but the clock."""
        return self.remaining() > 0

    def check(self) -> None:
        """Call it after the last await before each write.

        Raises:
            TermEnded: the replica does not lead any more.
        """
        if not self.holds():
            raise TermEnded(f"the term {self._id} has ended: nothing may be written in it")

    def remaining(self) -> float:
        """How many seconds the term lasts if no renewal follows; fit as a write's timeout."""
        left = self._deadline - self._clock()
        if left <= 0:
            self._ended = True
        return 0.0 if self._ended else left

    def extend(self, deadline: float) -> bool:
        """Move the deadline; False, and no effect, where the term has ended before."""
        if not self.holds():
            return False
        self._deadline = max(self._deadline, deadline)
        return True

    def end(self) -> None:
        """End it now and for good."""
        self._ended = True


class LeaseStore(Protocol):
    """Where the lease lies. Every method raises `ApiError` alone, within its timeout (seconds)."""

    async def read(self, *, timeout: float) -> LeaseRecord | None:
        """Return what it says, None where there is none."""
        ...

    async def create(self, record: LeaseRecord, *, timeout: float) -> LeaseRecord:
        """Store a new one; return it as stored."""
        ...

    async def replace(
        self, record: LeaseRecord, resource_version: str, *, timeout: float
    ) -> LeaseRecord:
        """Write it, if it is still of that version; return it as stored."""
        ...

    def changes(
        self, resource_version: str, *, timeout: float
    ) -> AsyncGenerator[LeaseRecord | None, None]:
        """Yield what it says after that version, at each change, None when it was deleted.

        Ends by itself; may say nothing at all. It saves reading again and again, and tells of a
        release at once, but nothing is written on the strength of it.
        """
        ...


class Elector:
    """Stands for the lease, leads, and stands again.

    `lead` is the guarded work: it runs until it is cancelled, and heeds `Term.closing`. Each of
    `on_change` is called with the new status when something about it changed; it must not block.
    `identity` names this replica, best uniquely: two of one name do not lead together, but nobody
    can tell them apart. `clock` gives seconds that never jump, `wall` the time for people to read.
    """

    def __init__(
        self,
        lease: LeaseStore,
        identity: str,
        durations: LeaseDurations,
        lead: Callable[[Term], Awaitable[None]],
        *,
        on_change: Sequence[Callable[[Leadership], None]] = (),
        clock: Callable[[], float] = boottime,
        wall: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
    ) -> None:
        if not identity:
            raise UsageError("identity is empty: a lease without a holder is held by nobody")
        self._lease = lease
        self._candidate = Candidate(identity, int(durations.lease_duration))
        self._durations = durations
        self._lead = lead
        self._on_change = tuple(on_change)
        self._clock = clock
        self._wall = wall
        self._rng = rng if rng is not None else random.Random()  # noqa: S311, not a secret
        self._seen = Sighting()
        # With what this process last took the lease, or tried to without hearing the answer.
        self._mine: LeaseRecord | None = None
        self._to_release = False  # it may still lie there, and nothing runs under it
        self._settled = False  # nor is anything under way any more
        # The own last term, and how it left the lease: what lies there while nobody followed it.
        self._left: tuple[tuple[str, LeaseRecord], ...] = ()
        self._trouble: type[ApiError] | None = None
        self._status = Leadership()

    @property
    def status(self) -> Leadership:
        """Who leads, as far as is known here."""
        return self._status

    async def run(self) -> NoReturn:
        """Go on until cancelled; then stop the work, release the lease, and end.

        Raises:
            WorkStuck: the work ignores that it was cancelled; end the process.
        """
        failures = 0
        rested = self._clock()
        try:
            while True:
                term, mine = await self._win(rested)
                began = self._clock()
                reason = await self._serve(term, mine)
                await self._release()
                rested = self._clock()
                if reason in (Because.FAILED, Because.RETURNED):
                    failures = failures + 1 if rested - began < _LONGEST_REST else 1
                    rested += self._rest(failures)
        finally:
            await self._release()

    async def _win(self, rested: float) -> tuple[Term, LeaseRecord]:
        """Wait for the lease and take it, but not before that time; return the record, too."""
        at_once = False  # it is read again at once after somebody wrote in between, but once only
        while True:
            try:
                self._note(await self._lease.read(timeout=self._durations.request_timeout))
                step = stand(
                    self._candidate, self._seen, self._mine, now=self._clock(), wall=self._wall()
                )
                if isinstance(step, Wait):
                    self._publish(step.reason)
                    pause = await self._follow(step)
                elif self._clock() < rested:
                    self._publish(Because.RESTING)
                    pause = self._until(rested)
                else:
                    term = await self._take(step)
                    if term.holds():
                        return term, step.record
                    pause = 0.0  # frozen over the write: what was won is over already
                at_once = False
            except ApiError as error:
                at_once = isinstance(error, _IN_BETWEEN) and not at_once
                if at_once:
                    pause = self._moment()
                else:
                    pause = self._survive(error)
                    self._publish(f"the lease cannot be had: {error}")
            await asyncio.sleep(pause)

    async def _follow(self, step: Wait) -> float:
        """Look on while another leads; return in how many seconds to read the lease again."""
        now = asyncio.get_running_loop().time
        began = self._clock()
        if self._seen.record is not None:
            version = self._seen.record.resource_version
            try:
                async with (
                    asyncio.timeout(self._patience()) as limit,
                    aclosing(self._lease.changes(version, timeout=_WATCH)) as changes,
                ):
                    async for record in changes:
                        self._note(record)
                        if self._seen.held is None:
                            return self._moment()  # it was released
                        self._publish(step.reason)
                        limit.reschedule(now() + self._patience())
            except TimeoutError:
                return 0.0
            except ApiError as error:
                _log.debug("the lease cannot be watched, only read", error=str(error))
        # Not less, or a watch that ends at once would be begun again at once.
        return max(0.0, self._until(step.until) - (self._clock() - began))

    def _patience(self) -> float:
        """How long to wait for the holder's next sign of life before reading it oneself."""
        left = max(0.0, runs_out(self._candidate, self._seen) - self._clock())
        return min(self._durations.retry_period * _SILENCE, left + self._moment())

    async def _take(self, step: Create | Acquire) -> Term:
        before = (self._mine, self._to_release)
        there = self._seen.record
        # (It is replaced in exactly the state that was read.)
        handed_over = there is not None and there.settled
        continues = next((own for own, left in self._left if there and there.same_term(left)), "")
        taken = format_time(step.record.acquired_at) if step.record.acquired_at else ""
        term_id = f"{self._candidate.identity}/{step.record.transitions}/{taken}"
        self._mine, self._to_release, self._settled = step.record, True, False
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
            if error.answered:  # it was refused, so that nothing of it lies there
                self._mine, self._to_release = before
            raise
        self._note(stored)
        self._left = ((term_id, step.record),)
        deadline = started + self._durations.renew_deadline
        return Term(term_id, self._clock, deadline, continues, handed_over=handed_over)

    async def _serve(self, term: Term, mine: LeaseRecord) -> Because:
        """Run the work as long as the term lasts; say why it ended."""
        _log.info("leading", term=term.id)
        self._publish("took the lease", term)
        work = asyncio.create_task(self._guard(term), name=f"guarded work of {term.id}")
        renewal = asyncio.create_task(self._renew(term, mine), name=f"renewal of {term.id}")
        reason = Because.STOPPING
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
                reason = Because.EXPIRED  # and work that noticed it first has not failed
            else:
                crashed = work.cancelled() or work.exception() is not None
                reason = Because.FAILED if crashed else Because.RETURNED
        except asyncio.CancelledError:
            await self._close(term, work, renewal)
            raise
        finally:
            self._settled = term.settled
            term.end()
            _log.info("not leading any more", term=term.id, reason=reason.value)
            self._publish(reason)
            await self._stop(work, renewal)
        return reason

    async def _guard(self, term: Term) -> None:
        try:
            await self._lead(term)
        except TermEnded:
            if term.holds():
                raise
        except Exception:
            _log.exception("the guarded work failed", term=term.id)
            raise

    async def _close(
        self, term: Term, work: asyncio.Task[None], renewal: asyncio.Task[Because]
    ) -> None:
        """Let the work finish what it has begun, if that does not take long."""
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

    async def _stop(self, work: asyncio.Task[None], renewal: asyncio.Task[Because]) -> None:
        """Cancel both and wait; nothing is released, and nobody leaves, before they have ended."""
        self._to_release = False
        renewal.cancel()
        work.cancel()
        patience = self._durations.lease_duration
        until = self._clock() + patience
        cancelled: asyncio.CancelledError | None = None
        both: set[asyncio.Task[Any]] = {work, renewal}
        while not work.done() or not renewal.done():
            try:
                await asyncio.wait(both, timeout=max(0.0, until - self._clock()))
            except asyncio.CancelledError as error:
                cancelled = error  # SIGTERM, while the term had ended for another reason
            if self._clock() >= until:
                break
        if not work.done():
            raise WorkStuck(
                f"the guarded work did not end within {patience:g} s of being cancelled:"
                " this process must end"
            )
        for task in both:
            if task.done() and not task.cancelled():
                task.exception()  # seen, and logged where it arose
        self._to_release = True
        if cancelled is not None:
            raise cancelled

    async def _renew(self, term: Term, mine: LeaseRecord) -> Because:
        """Renew until the lease is lost; the deadline is watched by whoever awaits this."""
        pause = self._durations.retry_period
        unsure = at_once = False
        while True:
            await asyncio.sleep(pause)
            try:
                if unsure:
                    self._note(await self._lease.read(timeout=self._timeout(term)))
                    unsure = False
                step = keep(self._seen.record, mine, wall=self._wall())
                if isinstance(step, StepDown):
                    return step.reason
                if not term.holds():
                    return Because.EXPIRED
                started = self._clock()
                stored = await self._lease.replace(
                    step.record, step.resource_version, timeout=self._timeout(term)
                )
            except ApiError as error:
                written = isinstance(error, _IN_BETWEEN)
                unsure = unsure or written
                at_once = written and not at_once
                pause = self._moment() if at_once else self._survive(error)
            else:
                if not term.extend(started + self._durations.renew_deadline):
                    return Because.EXPIRED
                self._note(stored)
                at_once = False
                pause = max(0.0, started + self._durations.retry_period - self._clock())

    async def _release(self) -> None:
        """Free the lease if it is still ours, in the time of one request."""
        mine = self._mine
        if mine is None or not self._to_release:
            return
        try:
            async with asyncio.timeout(self._durations.request_timeout):
                while True:
                    if await self._try_release(mine):
                        return
                    await asyncio.sleep(self._durations.retry_period * _MOMENT)
        except TimeoutError:
            _log.warning("the lease could not be released, it runs out", holder=mine.holder)

    async def _try_release(self, mine: LeaseRecord) -> bool:
        timeout = self._durations.request_timeout
        try:
            self._note(await self._lease.read(timeout=timeout))
            step = release(self._seen.record, mine, wall=self._wall(), settled=self._settled)
            if step is not None:
                self._left += tuple((own, step.record) for own, _ in self._left[:1])
                self._note(
                    await self._lease.replace(step.record, step.resource_version, timeout=timeout)
                )
        except ApiError as error:
            if not isinstance(error, _IN_BETWEEN):
                self._survive(error)
            return False
        self._to_release = False
        self._publish(self._status.reason)
        return True

    def _until(self, moment: float) -> float:
        """How long to look away from a lease about which nothing can be done before then."""
        return min(self._jittered(), max(0.0, moment - self._clock()) + self._moment())

    def _timeout(self, term: Term) -> float:
        return min(self._durations.request_timeout, max(term.remaining(), 0.001))

    def _jittered(self) -> float:
        return self._durations.retry_period * self._rng.uniform(1 / JITTER, JITTER)

    def _moment(self) -> float:
        return self._durations.retry_period * self._rng.uniform(0.0, _MOMENT)

    def _rest(self, failures: int) -> float:
        """How long to leave the lease to others after work that failed, so many times in a row."""
        doubled = self._durations.retry_period * 2.0 ** min(failures, 16)
        return min(doubled, _LONGEST_REST) * self._rng.uniform(1 / JITTER, JITTER)

    def _survive(self, error: ApiError) -> float:
        """Say once what is wrong, and how many seconds to wait before the next try."""
        if type(error) is not self._trouble:
            self._trouble = type(error)
            _log.warning("the lease cannot be had or kept", error=str(error))
        asked = error.retry_after if isinstance(error, Throttled) else 0.0
        return max(self._jittered(), min(asked, self._durations.lease_duration))

    def _note(self, record: LeaseRecord | None) -> None:
        self._trouble = None
        self._seen = see(self._seen, record, self._clock())

    def _publish(self, reason: str, term: Term | None = None) -> None:
        held = self._seen.held
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
        for tell in self._on_change:
            try:
                tell(status)
            except Exception:  # noqa: BLE001, a page that fails must not keep work from stopping
                _log.exception("a listener to leadership failed")

"""The single door through which Jobs start: the leader's work.

A new leader lists the Jobs, stamps its term on every one that waits, and only then admits.
A stamp takes a Job away from whoever led before: an admission of theirs that is still on its way
tests the older stamp and fails. Whatever an admission without an answer may have done is found
out by a new stamp; until then it counts as running.

A leader that takes its own lease back, which nobody else had since, trusts the stamps of its term
before: on an API server so slow that the lease is lost before all are written, each term would
begin with the first of them again, and none would admit anything.

A leader that is to stop sends nothing more, and waits for the answers to what it has sent. If none
is missing then, nothing of anybody's is under way on a Job that waits: what earlier leaders had
sent failed on the stamps of the take-over, and Jobs that are younger they never knew. The next
leader is told so (`Term.handed_over`), and stamps nothing: it has as much reason to trust as the
one that stamped. Where that cannot be said (an answer is missing, a namespace could not be listed
when the term began, the stamps were not all written), the next one stamps.

A Job that somebody else started is never the leader's to start again: it writes `admitted-at` on
it, since a person who suspends it soon enough leaves nothing else that tells of it.

A Job that the API server will not have changed (no right in its namespace, a policy) is barred
for a while, without a place in the queue, so that it does not stand in the way of the others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.admission.decide import Admit, Refuse, Wait, decide, next_look
from openfero_gitops.domain.errors import ApiError, Forbidden, Invalid, NotFound, Throttled
from openfero_gitops.domain.feed import Lost
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.pause import Control
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import Counts, Jobs, Term

_log = structlog.get_logger(__name__)

#: As many requests as keep an API server busy; more would only make the lease's own wait longer.
_AT_ONCE: Final = 8
#: So many failures end a look: the API server has trouble enough.
_MOST_FAILURES: Final = 32
# Seconds.
_GATHER: Final = 0.01  # the view's news of one moment are taken together
_AFTER_FAILURE: Final = 1.0  # whatever news there is
_LONGEST_REST: Final = 30.0  # whatever the API server asks for
_BARRED: Final = 30.0
_ON_ITS_WAY: Final = 90.0  # no request is; an API server gives one a minute, if not told otherwise
_LONGEST_SLEEP: Final = 5.0  # so soon is a pause noticed when there is no news
#: What ends such a wait is no Job's news, nor the clock's: so many seconds later it is asked for.
_ASK_AGAIN: Final = 1.0
_UNTOLD: Final = (Reason.PAUSED, Reason.NO_CATALOG)
_REST: Final = 9.0  # times as long as deciding took


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A Job of which nobody knows whether an admission was, or will be, carried out.

    `since` is when such an admission was last sent, or may have been, by the loop's time.
    """

    one: Remediation
    since: float


@dataclass(slots=True)
class _Reign:
    """What belongs to one term, and ends with it.

    By uid, `barred` has until when a Job is not to be tried again, by the loop's time. `trusted`
    are the terms whose stamps keep every other leader out. `whole` says that `unsettled` has every
    Job on which something of an earlier leader's may be under way.
    """

    term: Term
    trusted: frozenset[str] = frozenset()
    whole: bool = False
    stamps: int = 0
    unsettled: dict[str, _Doubt] = field(default_factory=dict)
    barred: dict[str, float] = field(default_factory=dict)
    failures: int = 0  # of this look
    rest: float = 0.0  # seconds that the API server asked for in this look
    thought: float = 0.0  # seconds for which nothing else could be done in it

    def stamp(self) -> str:
        """A stamp that no write under way carries."""
        self.stamps += 1
        return f"{self.term.id}#{self.stamps}"

    def has_stamped(self, one: Remediation) -> bool:
        """Whether a Job bears a stamp of this leader, behind which nobody else can write."""
        return (one.term or "").rpartition("#")[0] in self.trusted

    def following(self, term: Term) -> _Reign:
        """What goes on in the next term of the same replica, if it follows this one directly."""
        if term.continues != self.term.id:
            return _Reign(term, frozenset({term.id}))
        return _Reign(term, self.trusted | {term.id}, unsettled=self.unsettled)


class Admitter:
    """Admits and refuses waiting Jobs for as long as it leads."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        view: View,
        catalog: Callable[[], Catalog | None],
        control: Control,
        counts: Counts,
        now: Callable[[], datetime],
        identity: str,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take what is needed; nothing is started. `stopwatch` tells how long deciding takes."""
        self._jobs = jobs
        self._view = view
        self._catalog = catalog
        self._control = control
        self._counts = counts
        self._now = now
        self._identity = identity
        self._stopwatch = stopwatch
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._last: _Reign | None = None
        #: What was decided at the last look of this term, on everything that waited.
        self.last_look: Sequence[tuple[Remediation, Decision]] = ()

    async def run(self, term: Term) -> None:
        """Lead until cancelled, or until the term has ended or is to end."""
        reign = self._last.following(term) if self._last else _Reign(term, frozenset({term.id}))
        self._last = reign
        news = self._view.subscribe()
        try:
            await self._take_over(reign)
            while not term.closing.is_set():
                news.clear()
                pause = await self._look(reign)
                if reign.failures:
                    rest = max(_AFTER_FAILURE, min(reign.rest, _LONGEST_REST))
                    await _rest(rest, term.closing)
                    continue
                await _rest(pause, term.closing, news)
                if news.is_set():
                    # In a storm there is news all the time: deciding must not starve taking in.
                    await _rest(max(_GATHER, reign.thought * _REST), term.closing)
            # (What a look has sent, it waits for.)
            settled = reign.whole and not reign.unsettled
            _log.info("finished", term=term.id, settled=settled, in_doubt=len(reign.unsettled))
            term.finish(settled=settled)
        finally:
            self._view.unsubscribe(news)
            self.last_look = ()

    async def _take_over(self, reign: _Reign) -> None:
        """List consistently, then stamp every Job that waits, unless nobody can have sent more."""
        self._control.begin_term()
        lost = set()
        for listed in await self._jobs.listed():
            if isinstance(listed, Lost):
                lost.add(listed.namespace)
                _log.warning(
                    "jobs cannot be listed", namespace=listed.namespace, error=str(listed.error)
                )
                continue
            self._view.replace(
                listed.namespace, map(observe, listed.items), listed.resource_version
            )
        waiting = [one for one in self._view if one.waiting and not one.deleting]
        _log.info("leading", term=reign.term.id, jobs=len(self._view), waiting=len(waiting))
        doubts, reign.unsettled = reign.unsettled, {}
        for one in waiting:
            # (What was not listed may have been admitted, however long ago.)
            handed_over = reign.term.handed_over and one.key.namespace not in lost
            if one.uid in doubts or not (handed_over or reign.has_stamped(one)):
                reign.unsettled[one.uid] = _Doubt(one, _time())
        reign.whole = reign.term.handed_over or not lost
        await self._settle(reign)

    async def _look(self, reign: _Reign) -> float:
        """Decide on what waits and carry it out; seconds until the clock asks for another look."""
        began = _time()
        reign.failures, reign.rest = 0, 0.0
        reign.barred = {uid: until for uid, until in reign.barred.items() if until > began}
        barred = len(reign.barred)
        await self._settle(reign)
        pause = await self._control.read_pause()
        # From here to the decision nothing is waited for: it rests on what is known now.
        thinking = self._stopwatch()
        catalog = self._catalog()
        now = self._now()
        # (Where a namespace was never listed, nobody knows what runs there: nothing is decided.)
        known = list(self._view) if self._view.whole else []
        decided = decide(
            [self._believed(one, reign) for one in known],
            catalog.envelope if catalog else None,
            pause=pause,
            now=now,
            doubtful=reign.unsettled.keys(),
        )
        self.last_look = decided
        reign.thought = self._stopwatch() - thinking
        async with asyncio.TaskGroup() as tasks:
            for one, decision in decided:
                if isinstance(decision, Admit | Refuse) and one.uid not in reign.barred:
                    tasks.create_task(self._carry_out(reign, one, decision), name="admit")
            for one in known:
                if one.unnoted and one.uid not in reign.barred:
                    tasks.create_task(self._note_start(reign, one), name="note a start")
        if not reign.unsettled:
            await self._control.acknowledge(reign.term.check)
        if len(reign.barred) > barred:
            return 0.0  # there is room for others
        pauses = [_LONGEST_SLEEP, *(until - began for until in reign.barred.values())]
        if (moment := next_look(decided)) is not None:
            pauses.append((moment - now).total_seconds())
        if any(isinstance(found, Wait) and found.reason in _UNTOLD for _, found in decided):
            pauses.append(_ASK_AGAIN)
        return max(min(pauses), _GATHER)

    @staticmethod
    def _believed(one: Remediation, reign: _Reign) -> Remediation:
        """A Job as it must be counted.

        One whose admission has no answer runs. One that is barred waits as if for a human.
        """
        if one.waiting and one.uid in reign.unsettled:
            return dataclasses.replace(one, phase=Phase.RUNNING, suspended=False, started=True)
        if one.waiting and one.uid in reign.barred:
            return dataclasses.replace(one, phase=Phase.AWAITING_APPROVAL)
        return one

    async def _settle(self, reign: _Reign) -> None:
        """Stamp what is in doubt: a stamp that succeeds proves that nothing else did."""

        async def settle(one: Remediation) -> None:
            try:
                await self._write(reign, one, patches.stamp(one, reign.stamp()))
            except ApiError as error:
                self._note(reign, one, error)
            else:
                del reign.unsettled[one.uid]

        async with asyncio.TaskGroup() as tasks:
            for uid, doubt in list(reign.unsettled.items()):
                if uid not in reign.barred:
                    tasks.create_task(settle(doubt.one), name="stamp")

    async def _carry_out(self, reign: _Reign, one: Remediation, decision: Admit | Refuse) -> None:
        stamp = reign.stamp()
        if isinstance(decision, Admit):
            patch = patches.admit(one, stamp, self._identity, self._now())
        else:
            patch = patches.refuse(one, stamp, decision.reason, decision.message)
        try:
            applied = await self._write(reign, one, patch)
        except ApiError as error:
            if not error.answered:
                reign.unsettled[one.uid] = _Doubt(one, _time())
            self._note(reign, one, error)
            return
        except asyncio.CancelledError:
            reign.unsettled[one.uid] = _Doubt(one, _time())  # it may be carried out all the same
            raise
        if applied:
            self._counts.decided(decision.reason)
            _log.info(
                "admitted" if isinstance(decision, Admit) else "refused",
                job=str(one.key),
                operario=one.operario,
                reason=decision.reason.value,
                commit=one.commit,
            )

    async def _note_start(self, reign: _Reign, one: Remediation) -> None:
        try:
            noted = await self._write(reign, one, patches.started_by_other(one, self._now()))
        except ApiError as error:
            self._note(reign, one, error)
            return
        if noted:
            _log.warning("somebody else started a Job", job=str(one.key), operario=one.operario)

    @staticmethod
    def _note(reign: _Reign, one: Remediation, error: ApiError) -> None:
        """Take note of a write that failed, and of how soon it may be tried again."""
        if isinstance(error, Forbidden | Invalid):
            reign.barred[one.uid] = _time() + _BARRED
            doubt = reign.unsettled.get(one.uid)
            if doubt is not None and _time() - doubt.since > _ON_ITS_WAY:
                del reign.unsettled[one.uid]
            _log.warning("a Job may not be changed", job=str(one.key), error=str(error))
            return
        reign.failures += 1
        if isinstance(error, Throttled):
            reign.rest = max(reign.rest, error.retry_after)
        if reign.failures == 1:  # the others of this look fail of the same
            _log.warning("a decision was not written", job=str(one.key), error=str(error))

    async def _write(self, reign: _Reign, one: Remediation, patch: patches.Patch) -> bool:
        """Send a patch; where its tests fail, read the Job and count it as what it is.

        Returns whether it was applied. Raises ApiError where nobody knows, and where the API
        server will not have it.
        """
        async with self._at_once:
            if reign.failures >= _MOST_FAILURES:
                raise Throttled("too many writes have failed: this one was not sent")
            if reign.term.closing.is_set():
                raise Throttled("this leader is about to hand over: this was not sent")
            reign.term.check()
            try:
                self._view.apply(observe(await self._jobs.patch(one.key, patch)))
            except Invalid:
                try:
                    now = observe(await self._jobs.get(one.key))
                except NotFound:
                    self._view.remove(one.key, one.uid)
                    return False
                self._view.apply(now)
                if _as_decided(one, now):
                    raise  # it was no test that failed
                return False
            except NotFound:
                self._view.remove(one.key, one.uid)
                return False
            return True


def _as_decided(one: Remediation, now: Remediation) -> bool:
    """Whether all that our patches test is as it was."""
    return _tested(now) == _tested(one)


def _tested(one: Remediation) -> tuple[object, ...]:
    return (
        one.uid,
        one.waiting,
        one.admitted_at,
        one.decision,
        one.term,
        one.resolved_at,
        one.approved_by,
    )


def _time() -> float:
    return asyncio.get_running_loop().time()


async def _rest(seconds: float, *calls: asyncio.Event) -> None:
    """Wait so many seconds, or until one of these is set."""
    waits = [asyncio.create_task(call.wait(), name="rest") for call in calls]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()

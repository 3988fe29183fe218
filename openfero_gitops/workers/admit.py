"""The single door through which Jobs start: the leader's work.

A new leader lists the Jobs, stamps its term on every one that waits, and only then admits.
A stamp takes a Job away from whoever led before: an admission of theirs that is still on its way
tests the older stamp and fails. Whatever an admission without an answer may have done is found
out by a new stamp; until then it counts as running.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from openfero_gitops.domain.errors import ApiError, Invalid, NotFound
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.pipeline import patches
from openfero_gitops.pipeline.decide import Admit, Refuse, decide, next_look
from openfero_gitops.pipeline.observe import observe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.feed import Listed
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.workers.observe import View

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 32
#: Seconds: the view's news of one moment are taken together; a failing API server is not pressed.
_GATHER: Final = 0.01
_REST: Final = 2.0  # times as long as the look took
_AFTER_FAILURE: Final = 1.0
_LONGEST_SLEEP: Final = 30.0


class Jobs(Protocol):
    """The Jobs as the leader reads and changes them."""

    async def listed(self) -> Sequence[Listed]:
        """Every Job of ours, consistently, namespace by namespace; raises ApiError."""
        ...

    async def get(self, key: JobKey) -> dict[str, Any]:
        """Read one Job, consistently; raises ApiError."""
        ...

    async def patch(self, key: JobKey, patch: patches.Patch) -> dict[str, Any]:
        """Change one Job; raises ApiError, `Invalid` where a test failed."""
        ...


class Term(Protocol):
    """A time of leadership."""

    @property
    def id(self) -> str:
        """Unlike that of any other term."""
        ...

    def check(self) -> None:
        """Raise where the term has ended, or may have: called before every write."""
        ...


class Counts(Protocol):
    """What is counted about admission."""

    def decided(self, reason: Reason) -> None:
        """A decision was carried out."""
        ...


@dataclass(slots=True)
class _Reign:
    """What belongs to one term, and ends with it."""

    term: Term
    stamps: int = 0
    unsettled: dict[str, Remediation] = field(default_factory=dict)
    failed: bool = False

    def stamp(self) -> str:
        """A stamp that no write under way carries."""
        self.stamps += 1
        return f"{self.term.id}#{self.stamps}"


class Admitter:
    """Admits and refuses waiting Jobs for as long as it leads."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        view: View,
        catalog: Callable[[], Catalog | None],
        paused: Callable[[], Awaitable[bool]],
        counts: Counts,
        now: Callable[[], datetime],
        identity: str,
    ) -> None:
        """Take what is needed; nothing is started."""
        self._jobs = jobs
        self._view = view
        self._catalog = catalog
        self._paused = paused
        self._counts = counts
        self._now = now
        self._identity = identity
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def run(self, term: Term) -> None:
        """Lead until cancelled, or until the term has ended."""
        reign = _Reign(term)
        news = self._view.subscribe()
        try:
            await self._take_over(reign)
            while True:
                news.clear()
                began = time.perf_counter()
                pause = await self._look(reign)
                took = time.perf_counter() - began
                try:
                    async with asyncio.timeout(pause):
                        await news.wait()
                except TimeoutError:
                    continue
                # In a storm there is news all the time: looking must not starve taking in.
                await asyncio.sleep(max(_GATHER, took * _REST))
        finally:
            self._view.unsubscribe(news)

    async def _take_over(self, reign: _Reign) -> None:
        """List consistently, then stamp every Job that waits."""
        for listed in await self._jobs.listed():
            self._view.replace(
                listed.namespace, map(observe, listed.items), listed.resource_version
            )
        waiting = [one for one in self._view if one.waiting and not one.deleting]
        _log.info("leading", term=reign.term.id, jobs=len(self._view), waiting=len(waiting))
        for one in waiting:
            reign.unsettled[one.uid] = one
        await self._settle(reign)

    async def _look(self, reign: _Reign) -> float:
        """Decide on what waits and carry it out; seconds until the clock asks for another look."""
        reign.failed = False
        await self._settle(reign)
        catalog = self._catalog()
        now = self._now()
        decided = decide(
            [self._believed(one, reign) for one in self._view],
            catalog.envelope if catalog else None,
            paused=await self._paused(),
            now=now,
        )
        async with asyncio.TaskGroup() as tasks:
            for one, decision in decided:
                if isinstance(decision, Admit | Refuse):
                    tasks.create_task(self._carry_out(reign, one, decision), name="admit")
        if reign.failed or reign.unsettled:
            return _AFTER_FAILURE
        moment = next_look(decided)
        if moment is None:
            return _LONGEST_SLEEP
        return min(max((moment - now).total_seconds(), _GATHER), _LONGEST_SLEEP)

    @staticmethod
    def _believed(one: Remediation, reign: _Reign) -> Remediation:
        """A Job as it must be counted: one whose admission has no answer runs."""
        if one.uid in reign.unsettled and one.waiting:
            return dataclasses.replace(one, phase=Phase.RUNNING, suspended=False, started=True)
        return one

    async def _settle(self, reign: _Reign) -> None:
        """Stamp what is in doubt: a stamp that succeeds proves that nothing else did."""

        async def settle(one: Remediation) -> None:
            try:
                await self._write(reign, one, patches.stamp(one, reign.stamp()))
            except ApiError as error:
                reign.failed = True
                _log.warning("a Job could not be stamped", job=str(one.key), error=str(error))
            else:
                del reign.unsettled[one.uid]

        async with asyncio.TaskGroup() as tasks:
            for one in list(reign.unsettled.values()):
                tasks.create_task(settle(one), name="stamp")

    async def _carry_out(self, reign: _Reign, one: Remediation, decision: Admit | Refuse) -> None:
        stamp = reign.stamp()
        if isinstance(decision, Admit):
            patch = patches.admit(one, stamp, self._identity, self._now())
        else:
            patch = patches.refuse(one, stamp, decision.reason, decision.message)
        try:
            applied = await self._write(reign, one, patch)
        except ApiError as error:
            reign.failed = True
            if not error.answered:
                reign.unsettled[one.uid] = one
            _log.warning("a decision was not written", job=str(one.key), error=str(error))
            return
        if applied:
            self._counts.decided(decision.reason)
            _log.info(
                "admitted" if isinstance(decision, Admit) else "refused",
                job=str(one.key),
                operario=one.operario,
                reason=decision.reason.value,
                commit=one.commit,
            )

    async def _write(self, reign: _Reign, one: Remediation, patch: patches.Patch) -> bool:
        """Send a patch; where its tests fail, read the Job and count it as what it is.

        Returns whether it was applied. Raises ApiError where nobody knows.
        """
        async with self._at_once:
            reign.term.check()
            try:
                self._view.apply(observe(await self._jobs.patch(one.key, patch)))
            except Invalid:
                try:
                    now = observe(await self._jobs.get(one.key))
                except NotFound:
                    self._view.remove(one.key, one.uid)
                    return False
                if not self._view.apply(now) and now == self._view.get(one.key) == one:
                    # Not a test that failed: the API server will not have the change itself.
                    raise
                return False
            except NotFound:
                self._view.remove(one.key, one.uid)
                return False
            return True

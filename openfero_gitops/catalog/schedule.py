"""When to sync: at the interval, after a failure, and when somebody asks.

`Schedule` runs the sync on APScheduler, never twice at once. After failures it tries again soon,
then less and less often (`pause_before_sync`). `Asked` handles requests by a push hook, SIGHUP or
another replica: one sync runs and at most one more waits. A push hook reaches one replica, which
records the request in `openfero-control`; the others read it there within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from openfero_gitops.domain.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger(__name__)

_FIRST_RETRY: Final = timedelta(seconds=5)
#: Longest pause after failures, so that a recovery is noticed in time.
_LONGEST_RETRY: Final = timedelta(minutes=5)
#: Share by which a pause varies, so that replicas do not fetch all at once.
_JITTER: Final = 0.1
#: Seconds between two syncs that somebody asks for, which bounds a flood of push hooks.
_SECONDS_BETWEEN_REQUESTS: Final = 2.0


class Schedule:
    """Runs one coroutine function again and again, never twice at once.

    `pause` says after each run how long to rest until the next one.
    """

    def __init__(self, work: Callable[[], Awaitable[None]], pause: Callable[[], timedelta]) -> None:
        """Take the work; nothing is started."""
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._pause = pause
        self._asked = False  # for a run that has not begun yet

        one_at_a_time = asyncio.Lock()

        async def until_stopped() -> None:
            # The scheduler would log a run that was cut off at the end as a failed one.
            with contextlib.suppress(asyncio.CancelledError):
                async with one_at_a_time:
                    self._asked = False
                    try:
                        await work()
                    finally:
                        self._rest()

        self._job = self._scheduler.add_job(
            until_stopped,
            IntervalTrigger(seconds=pause().total_seconds(), timezone=UTC),
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=2,  # one that runs, and one that was asked for since it began
            misfire_grace_time=None,
        )

    def start(self) -> None:
        """Begin, with a first run at once."""
        self._scheduler.start()

    def now(self) -> None:
        """Run as soon as possible, and rest from then; to ask twice is to ask once."""
        self._asked = True
        self._job.modify(next_run_time=datetime.now(UTC))

    def stop(self) -> None:
        """End; a run under way is cancelled with its task."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _rest(self) -> None:
        if self._scheduler.running and not self._asked:
            self._job.modify(next_run_time=datetime.now(UTC) + self._pause())


def pause_before_sync(interval: timedelta, failures: int, chance: float) -> timedelta:
    """How long to rest until the next sync.

    Args:
        interval: between two that succeed.
        failures: how many in a row have failed until now.
        chance: a random number from 0 to 1.
    """
    pause = interval
    if failures:
        ceiling = max(interval, _LONGEST_RETRY)
        pause = min(min(interval, _FIRST_RETRY) * 2 ** min(failures - 1, 30), ceiling)
    return pause * (1 + _JITTER * (2 * chance - 1))


class Notice(Protocol):
    """Where replicas tell each other that a sync was asked for."""

    async def ask_for_sync(self, by: str) -> None:
        """Write it down; raises ApiError."""
        ...


class Asked:
    """Passes on that a sync was asked for."""

    def __init__(
        self,
        *,
        sync: Callable[[], None],
        notice: Notice,
        identity: str,
        wanted: asyncio.Event,
    ) -> None:
        """Take what starts a sync here, where the other replicas read of it, and who asks."""
        self._sync = sync
        self._notice = notice
        self._identity = identity
        self._asked = wanted

    def ask(self) -> None:
        """Ask for a sync here and on the other replicas; returns at once."""
        self._asked.set()

    async def run(self) -> None:
        """Pass on until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._sync()
            try:
                await self._notice.ask_for_sync(self._identity)
            except ApiError as error:
                # They sync at their interval.
                _log.info("the other replicas were not told of a sync", error=str(error))
            await asyncio.sleep(_SECONDS_BETWEEN_REQUESTS)

"""When to sync: at the interval, after a failure, and on request.

`Schedule` runs the sync on APScheduler, never twice at once. After failures it retries soon, then
less and less often (`delay_before_sync`); if the Git server said for how long it wants no request,
not even a requested sync runs before. However many syncs are requested, one runs and at most one
more waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from openfero_gitops.domain.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_FIRST_RETRY_SECONDS: Final = 5.0
#: Short enough that a recovery is noticed in time, unless the interval itself is longer.
_MAX_RETRY_SECONDS: Final = 300.0
#: Share by which a delay varies, so that replicas do not all fetch at once.
_JITTER: Final = 0.1


class Schedule:
    """Runs one coroutine function again and again, never twice at once.

    `delay` returns after each run how long to wait until the next one, `block` for how long none
    may run now, not even a requested one.
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        delay: Callable[[], timedelta],
        block: Callable[[], timedelta] = timedelta,
    ) -> None:
        """Prepare the schedule; `start` starts it."""
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._delay = delay
        self._block = block
        self._requested = False  # a run that has not begun yet

        one_at_a_time = asyncio.Lock()

        async def run_until_stopped() -> None:
            # The scheduler would log a run that is cancelled at the end as a failed one.
            with contextlib.suppress(asyncio.CancelledError):
                async with one_at_a_time:
                    self._requested = False
                    if block := self._block():
                        self._run_in(block)
                        return
                    try:
                        await work()
                    finally:
                        self._plan_next()

        self._job = self._scheduler.add_job(
            run_until_stopped,
            IntervalTrigger(seconds=delay().total_seconds(), timezone=UTC),
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=2,  # one that runs, and one that was requested since it began
            misfire_grace_time=None,
        )

    @property
    def next_run(self) -> datetime | None:
        """When the next run begins; None before the start."""
        return self._job.next_run_time if self._scheduler.running else None

    def start(self) -> None:
        """Start, with a first run at once."""
        self._scheduler.start()

    def now(self) -> None:
        """Request a run as soon as possible; requests before it begins are one request."""
        self._requested = True
        self._run_in(self._block())

    def stop(self) -> None:
        """Stop; a current run is cancelled with its task."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _plan_next(self) -> None:
        block = self._block()
        if not self._requested:
            self._run_in(self._delay())
        elif block:
            self._run_in(block)

    def _run_in(self, delay: timedelta) -> None:
        if self._scheduler.running:
            self._job.modify(next_run_time=datetime.now(UTC) + delay)


def delay_before_sync(
    interval: timedelta, failures: int, chance: float, block: timedelta = timedelta()
) -> timedelta:
    """Return how long to wait until the next sync.

    Args:
        interval: between two successful syncs.
        failures: the number of consecutive failures so far.
        chance: a random number from 0 to 1.
        block: for how long the Git server wants no request.
    """
    seconds = interval.total_seconds()
    if failures:
        backoff = Backoff(min(seconds, _FIRST_RETRY_SECONDS), max(seconds, _MAX_RETRY_SECONDS))
        seconds = backoff.delay(failures)
    delay = timedelta(seconds=seconds) * (1 + _JITTER * (2 * chance - 1))
    return max(delay, block * (1 + _JITTER * chance))

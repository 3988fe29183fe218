"""Repeating work by the clock, on APScheduler."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta


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

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
    """Runs one coroutine function at an interval with jitter, never twice at once."""

    def __init__(self, work: Callable[[], Awaitable[None]], interval: timedelta) -> None:
        """Take the work; nothing is started."""
        self._scheduler = AsyncIOScheduler(timezone=UTC)

        one_at_a_time = asyncio.Lock()

        async def until_stopped() -> None:
            # The scheduler would log a run that was cut off at the end as a failed one.
            with contextlib.suppress(asyncio.CancelledError):
                async with one_at_a_time:
                    await work()

        self._job = self._scheduler.add_job(
            until_stopped,
            IntervalTrigger(
                seconds=interval.total_seconds(),
                jitter=max(1, int(interval.total_seconds() / 10)),
                timezone=UTC,
            ),
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=2,  # one that runs, and one that was asked for since it began
            misfire_grace_time=None,
        )

    def start(self) -> None:
        """Begin, with a first run at once."""
        self._scheduler.start()

    def now(self) -> None:
        """Run as soon as possible, and at the interval from then."""
        self._job.modify(next_run_time=datetime.now(UTC))

    def stop(self) -> None:
        """End; a run under way is cancelled with its task."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

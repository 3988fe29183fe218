"""Limits how many requests wait for another server at once, and how long others wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_WAIT_SECONDS: Final = 1.0


class NoSlotError(Exception):
    """All slots were taken for too long."""


class Slots:
    """A number of slots; while all are taken, others wait for a second at most.

    So a server that hangs delays requests by little, however many there are.
    """

    def __init__(self, count: int, max_wait_seconds: float = MAX_WAIT_SECONDS) -> None:
        """Let `count` have a slot at once."""
        self.count = count
        self._max_wait_seconds = max_wait_seconds
        self._free = asyncio.Semaphore(count)

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it.

        Raises:
            NoSlotError: none became free in time.
        """
        try:
            async with asyncio.timeout(self._max_wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise NoSlotError from None
        try:
            yield
        finally:
            self._free.release()

"""Limits the requests in flight to the API server; the limit follows its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.domain.errors import Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openfero_gitops.domain.concurrency import ConcurrencyLimit


@dataclass(slots=True)
class Slot:
    """A slot that is taken; the limit learns nothing from it unless `measured`."""

    measured: bool = True


class AdaptiveSlots:
    """Slots for requests, first come, first served; their number follows the answers.

    If the number falls below the requests in flight, none begins until enough have ended.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        """Begin with this limit."""
        self._limit = limit
        self._in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def current(self) -> int:
        """The present number of slots."""
        return self._limit.current

    @property
    def maximum(self) -> int:
        """The largest number of slots there may ever be."""
        return self._limit.maximum

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[Slot]:
        """Wait for a slot and hold it during a request.

        The limit learns from a request that succeeds, or ends with Throttled or Unavailable; other
        errors and cancellation say nothing about the load of the API server.
        """
        await self._acquire()
        slot, began, in_flight = Slot(), asyncio.get_running_loop().time(), self._in_flight
        try:
            yield slot
        except (Throttled, Unavailable):
            self._learn(slot, began, in_flight, overloaded=True)
            raise
        else:
            self._learn(slot, began, in_flight, overloaded=False)
        finally:
            self._release()

    def _learn(self, slot: Slot, began: float, in_flight: int, *, overloaded: bool) -> None:
        if slot.measured:
            seconds = asyncio.get_running_loop().time() - began
            self._limit = self._limit.after(
                began=began, seconds=seconds, in_flight=in_flight, overloaded=overloaded
            )

    async def _acquire(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._admit()
        if waiter.done():
            return
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
            else:  # it got a slot in the same turn
                self._release()
            raise

    def _release(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiters and self._in_flight < self.current:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._in_flight += 1
                waiter.set_result(None)

"""Limits the requests in flight to the API server; the limit follows its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Self

from openfero_gitops.domain.errors import Throttled, Unavailable

if TYPE_CHECKING:
    from openfero_gitops.domain.concurrency import ConcurrencyLimit


class Slot:
    """A slot that is held during a request, as a context manager.

    The limit learns from a request that succeeds, or ends with Throttled or Unavailable; other
    errors and cancellation say nothing about the load of the API server. It learns nothing from a
    request that is not `measured`.
    """

    __slots__ = ("_began", "_in_flight", "_slots", "measured")

    def __init__(self, slots: AdaptiveSlots) -> None:
        self._slots = slots
        self._began = 0.0
        self._in_flight = 0
        self.measured = True

    async def __aenter__(self) -> Self:
        """Wait for the slot."""
        self._in_flight = await self._slots.acquire()
        self._began = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """Let the limit learn, and the next request begin."""
        overloaded = isinstance(error, Throttled | Unavailable)
        try:
            if self.measured and (error is None or overloaded):
                seconds = asyncio.get_running_loop().time() - self._began
                self._slots.learn(self._began, seconds, self._in_flight, overloaded=overloaded)
        finally:
            self._slots.release()


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

    def take(self) -> Slot:
        """Return a slot, to be entered."""
        return Slot(self)

    def learn(self, began: float, seconds: float, in_flight: int, *, overloaded: bool) -> None:
        """Adapt the limit to a request; see `ConcurrencyLimit.after`."""
        self._limit = self._limit.after(
            began=began, seconds=seconds, in_flight=in_flight, overloaded=overloaded
        )

    async def acquire(self) -> int:
        """Wait for a slot; return how many are taken then."""
        if self._waiters or self._in_flight >= self.current:
            await self._wait()
        else:
            self._in_flight += 1
        return self._in_flight

    async def _wait(self) -> None:
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
                self.release()
            raise

    def release(self) -> None:
        """Let the next request begin."""
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiters and self._in_flight < self.current:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._in_flight += 1
                waiter.set_result(None)

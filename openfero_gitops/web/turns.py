"""Lets pages and lists be built one after the other.

Each keeps the event loop busy for a moment. Many at once would keep it busy for so long that the
lease is lost, and would hold all their answers in memory. What waits for other servers, and what
streams, must not hold a turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_MAX_WAITING: Final = 1024
_MAX_PAUSE_SECONDS: Final = 0.3


class Turns:
    """Gives each request its turn, in the order in which they came."""

    def __init__(self, max_waiting: int = _MAX_WAITING) -> None:
        """Refuse requests while this many have a turn or wait for one."""
        self._max_waiting = max_waiting
        self._turn = asyncio.Lock()
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def take(self, request: web.Request) -> AsyncIterator[None]:
        """Wait for the request's turn, and hold it.

        Raises:
            web.HTTPServiceUnavailable: too many requests wait.
            web.HTTPBadRequest: the client disconnected while it waited.
        """
        if self._waiting >= self._max_waiting:
            raise web.HTTPServiceUnavailable(text="too many requests wait; repeat it later")
        self._waiting += 1
        try:
            await self._turn.acquire()
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                if request.transport is None:
                    raise web.HTTPBadRequest(text="the client disconnected")
                yield
            finally:
                # Until the next turn, deliveries and the lease have the event loop for as long as
                # this turn had it: a delivery needs it several times.
                pause = min(loop.time() - began, _MAX_PAUSE_SECONDS)
                loop.call_later(pause, self._turn.release)
        finally:
            self._waiting -= 1

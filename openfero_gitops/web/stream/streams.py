"""Sends events to the clients that listen.

A client has no queue of its own, only a position in the shared history. What it has not received is
encoded once for all clients at the same position (`slices`), and a client that falls behind the
history is disconnected: it reconnects with the id of the last event that it received. So the memory
for clients does not depend on how fast they read.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from openfero_gitops.background import wait_for_event
from openfero_gitops.web.connections.acceptor import HttpConnection
from openfero_gitops.web.stream.slices import MAX_SLICE_BYTES, SliceCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openfero_gitops.web.stream.history import EventFilter, EventHistory
    from openfero_gitops.web.stream.models import EventBody

#: More streams are refused, also if more connections are allowed.
MAX_STREAMS: Final = 1000
_RETRY_MILLISECONDS: Final = 3000
_RETRY_AFTER_SECONDS: Final = 30
_HEARTBEAT_SECONDS: Final = 15.0
#: Then a client reconnects, and its credentials are checked again.
_MAX_STREAM_SECONDS: Final = 600.0
#: How long events are recorded for clients that may reconnect, after the last one has left.
_RESUMABLE_SECONDS: Final = 600.0
#: A client that acknowledges nothing for so long is gone.
_SEND_TIMEOUT_SECONDS: Final = 30.0
#: The kernel doubles it, and it counts as memory of the container.
_SOCKET_BUFFER_BYTES: Final = 16 * 1024
#: Streams that write before other tasks have their turn: about 2 ms.
_STREAMS_PER_TURN: Final = 50


def max_streams(connections: int) -> int:
    """Return how many streams may be open: connections remain for everything else."""
    return min(MAX_STREAMS, connections * 3 // 4)


@dataclass(slots=True, eq=False)
class _Stream:
    """An open stream; `position` is the number of the last event that was written."""

    position: int
    wanted: EventFilter
    abort: Callable[[], None]
    wake: asyncio.Event
    #: Waits for a client that reads slowly.
    writing: bool = False
    gone: bool = False


class EventStreams:
    """The open event streams of a replica."""

    def __init__(
        self,
        history: EventHistory,
        *,
        limit: int = MAX_STREAMS,
        start: Callable[[], None] = lambda: None,
        resumable_seconds: float = _RESUMABLE_SECONDS,
    ) -> None:
        """Send the events of a history to at most `limit` clients.

        `start` is called before a client gets events if nobody followed them so far.
        """
        self._history = history
        self._limit = limit
        self._start = start
        self._resumable_seconds = resumable_seconds
        #: When the last client left, by the clock of the event loop; None before the first one.
        self._left_at: float | None = None
        self._streams: dict[_Stream, None] = {}
        self._slices = SliceCache(history)
        self._closed = False
        #: How many clients were disconnected because they read too slowly.
        self.dropped = 0

    def __len__(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    @property
    def followed(self) -> bool:
        """Whether a client listens, or has left recently and may reconnect."""
        if self._streams:
            return True
        now = asyncio.get_running_loop().time()
        return self._left_at is not None and now - self._left_at < self._resumable_seconds

    def publish(self, bodies: Iterable[EventBody]) -> None:
        """Send events to all clients; returns at once."""
        newest = self._history.newest
        self._history.append(bodies)
        if self._history.newest == newest:
            return
        self._slices.clear()
        for stream in self._streams:
            if stream.writing and not self._history.covers(stream.position):
                self._drop(stream)
        self._wake(iter(list(self._streams)))

    def _wake(self, streams: Iterator[_Stream]) -> None:
        """Wake some streams, and the others after other tasks had their turn."""
        for count, stream in enumerate(streams, start=1):
            stream.wake.set()
            if count == _STREAMS_PER_TURN:
                asyncio.get_running_loop().call_soon(self._wake, streams)
                return

    def close(self) -> None:
        """End all streams and refuse new ones; can be called more than once."""
        self._closed = True
        for stream in self._streams:
            stream.wake.set()
            if stream.writing:
                stream.abort()

    def _drop(self, stream: _Stream) -> None:
        self.dropped += 1
        stream.gone = True
        stream.abort()

    async def respond(self, request: web.Request, wanted: EventFilter) -> web.StreamResponse:
        """Answer a request with a stream of events, until either side ends it."""
        if self._closed:
            raise _unavailable("this replica is stopping")
        if len(self._streams) >= self._limit:
            raise _unavailable(f"{self._limit} event streams are open, which is the limit")
        transport, connection = request.transport, request.protocol
        if transport is None:
            raise web.HTTPBadRequest(text="the client disconnected")
        if not self.followed:
            if self._left_at is not None:
                self._history.forget()
                self._slices.clear()
            self._start()
        stream = _Stream(self._history.newest, wanted, transport.abort, asyncio.Event())
        greeting = self._greet(stream, request.headers.get("Last-Event-ID", ""))

        def lost() -> None:
            stream.gone = True
            stream.wake.set()

        # (Without a pause since the limit was checked.)
        self._streams[stream] = None
        try:
            if isinstance(connection, HttpConnection):
                connection.begin_stream(lost)
            # About one slice may wait in a connection before more is written to it.
            transport.set_write_buffer_limits(high=MAX_SLICE_BYTES)
            _limit_kernel_buffer(transport)
            response = EventSourceResponse(
                ping_interval=_HEARTBEAT_SECONDS, send_timeout=_SEND_TIMEOUT_SECONDS
            )
            response.headers["Cache-Control"] = "no-store"
            response.force_close()
            await response.prepare(request)
            async with response:
                await self._write(stream, response, greeting)
                await self._send_events(stream, response)
        except ConnectionError:
            pass  # the client disconnected, or was disconnected
        finally:
            del self._streams[stream]
            self._left_at = asyncio.get_running_loop().time()
        return response

    def _greet(self, stream: _Stream, last_event_id: str) -> bytes:
        """Encode the beginning of a stream, and set its position."""
        if not last_event_id:
            return self._history.greeting(_RETRY_MILLISECONDS)
        position = self._history.position(last_event_id)
        if position is None:
            return self._history.greeting(_RETRY_MILLISECONDS) + self._history.reset()
        stream.position = position
        return f"retry: {_RETRY_MILLISECONDS}\n\n".encode()

    async def _send_events(self, stream: _Stream, response: EventSourceResponse) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _MAX_STREAM_SECONDS
        while not (self._closed or stream.gone or loop.time() >= ends_at):
            stream.wake.clear()
            if stream.position == self._history.newest:
                await wait_for_event(stream.wake, ends_at - loop.time())
            elif self._history.covers(stream.position):
                events = self._slices.slice_after(stream.position, stream.wanted)
                stream.position = events.last
                if events.encoded:
                    await self._write(stream, response, events.encoded)
            else:
                self._drop(stream)

    @staticmethod
    async def _write(stream: _Stream, response: EventSourceResponse, data: bytes) -> None:
        stream.writing = True
        try:
            await response.write(data)
        finally:
            stream.writing = False


def _unavailable(reason: str) -> web.HTTPServiceUnavailable:
    return web.HTTPServiceUnavailable(
        text=f"{reason}; repeat the request later",
        headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
    )


def _limit_kernel_buffer(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)

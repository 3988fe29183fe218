"""Accepts connections for HTTP servers, within the limits of `table`.

aiohttp's sites accept any number of connections and wait an hour for the head of a request. Here
each connection is tracked from the moment it is accepted, before the TLS handshake, until its file
is closed. A sweep every second drops the connections whose time is over.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp.web_protocol import RequestHandler

from openfero_gitops.web.connections.table import (
    ConnectionTable,
    DropCause,
    Stage,
    TrackedConnection,
    source_of,
)
from openfero_gitops.web.headers import add_default_headers
from openfero_gitops.web.tls import TlsContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import StreamReader, web
    from aiohttp.web_request import BaseRequest

    from openfero_gitops.web.connections.table import ConnectionLimits
    from openfero_gitops.web.ports import Exposition
    from openfero_gitops.web.tls import TlsFiles

_log = structlog.get_logger(__name__)

_MAX_SWEEP_SECONDS: Final = 1.0
#: A sweep is at most this share of the shortest limit late.
_SWEEPS_PER_LIMIT: Final = 4
_BACKLOG: Final = 128
#: Then the event loop reads from the connections that it has.
_ACCEPTS_PER_TURN: Final = 16
#: The kernel's buffers of a connection. It would let them grow to several MiB, which count as
#: memory of the container.
_SOCKET_BUFFER_BYTES: Final = 128 * 1024
#: Complete requests of one connection that wait for the one before; clients do not pipeline.
_MAX_PIPELINED: Final = 2
#: Of a body, at once. asyncio's default is 256 KiB, which each connection could make us hold.
_MAX_READ_BYTES: Final = 64 * 1024
#: Between two log entries about dropped connections.
_LOG_INTERVAL_SECONDS: Final = 60.0
_ACCEPT_RETRY_SECONDS: Final = 0.5
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: For a client to answer the end of a TLS connection.
_TLS_SHUTDOWN_SECONDS: Final = 5.0
#: For the last answers to be sent when the server stops.
_DRAIN_SECONDS: Final = 1.0
_UNREAD_SECONDS_WHEN_STOPPING: Final = 2.0
_DRAIN_POLL_SECONDS: Final = 0.01
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\nX-Content-Type-Options: nosniff\r\n\r\n"
)


class _Socket(socket.socket):
    """A socket that reports what it could not send.

    This is where a slow reader shows with TLS too: asyncio's TLS transport does not count the bytes
    that wait in the transport below it.
    """

    #: Is called with the number of bytes that remain, and whether some were sent.
    report: Callable[[int, bool], None]

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send, and report how much of the data remains."""
        try:
            sent = super().send(data, flags)
        except (BlockingIOError, InterruptedError):
            self.report(len(data), False)  # noqa: FBT003 - a callback
            raise
        self.report(len(data) - sent, sent > 0)
        return sent

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        """Send, and report how much of the data remains; asyncio uses it from Python 3.12 on."""
        buffers = list(buffers)
        size = sum(map(len, buffers))
        try:
            sent = super().sendmsg(buffers, *rest)
        except (BlockingIOError, InterruptedError):
            self.report(size, False)  # noqa: FBT003 - a callback
            raise
        self.report(size - sent, sent > 0)
        return sent


class HttpConnection(RequestHandler):
    """aiohttp's protocol for one connection; it records in the table what the connection does."""

    __slots__ = (
        "_acceptor",
        "_body",
        "_head_bytes",
        "_lost",
        "_opening",
        "_table",
        "_tracked",
        "_wire",
    )

    def __init__(
        self, acceptor: Acceptor, tracked: TrackedConnection, server: web.Server, **options: Any
    ) -> None:
        """Serve one connection; `options` are those of aiohttp's protocol."""
        table = acceptor.table
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, keepalive_timeout=table.limits.idle_seconds, **options)
        self._acceptor = acceptor
        self._tracked = tracked
        self._table = table
        self._opening: asyncio.Task[Any] | None = None
        #: The transport, also after aiohttp has closed it; None before the end of the handshake.
        self._wire: asyncio.Transport | None = None
        self._head_bytes = 0
        #: Of the request that arrived last.
        self._body: StreamReader | None = None
        #: Is called when the connection of a stream is lost.
        self._lost: Callable[[], None] | None = None
        # aiohttp would hold 32, each with a head of up to 1 MiB.
        self._max_msg_queue_size = _MAX_PIPELINED
        self._msg_queue_resume_size = _MAX_PIPELINED - 1

    def open(self, sock: socket.socket, tls: dict[str, Any]) -> None:
        """Start the TLS handshake, or the connection if `tls` is empty."""
        owned = False  # by a transport, which closes it

        def protocol() -> HttpConnection:
            nonlocal owned
            owned = True
            return self

        def opened(task: asyncio.Task[Any]) -> None:
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                if not owned:
                    sock.close()
                self._acceptor.forget(self._tracked)
                self.abort()
            # A failed handshake is an OSError, and the client's affair.
            if error is not None and not isinstance(error, OSError):
                _log.error("cannot open a connection", exc_info=error)

        opening = self._loop.connect_accepted_socket(protocol, sock, **tls)
        self._opening = self._loop.create_task(opening)
        self._opening.add_done_callback(opened)

    def abort(self) -> None:
        """End the connection at once, without sending what waits."""
        if self._wire is not None:
            self._wire.abort()
        elif self._opening is not None:
            self._opening.cancel()

    def begin_stream(self, lost: Callable[[], None]) -> None:
        """Record that the answer has no end; `lost` is called when the connection is lost.

        Such a connection is no request in progress: it can be dropped where room is needed.
        """
        self._lost = lost
        self._table.move(self._tracked, Stage.STREAMING, self._loop.time())

    def retire(self) -> None:
        """End the connection after the request that it handles; at once if it handles none."""
        if self._tracked.stage is Stage.BUSY:
            self.close()
        else:
            self.abort()

    @property
    def client_ca(self) -> bytes | None:
        """The CA that the client's certificate was verified with; None without a certificate."""
        if self._wire is None or not self._wire.get_extra_info("peercert"):
            return None
        context = self._wire.get_extra_info("sslcontext")
        return context.client_ca if isinstance(context, TlsContext) else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._wire = transport  # type: ignore[assignment] # a transport of TCP or TLS
        transport.max_size = _MAX_READ_BYTES  # type: ignore[attr-defined]
        self._table.move(self._tracked, Stage.HEAD, self._loop.time())
        super().connection_made(transport)
        self._acceptor.check_certificate(self._tracked, self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop tracking the connection."""
        self._acceptor.forget(self._tracked)
        super().connection_lost(exc)
        if self._lost is not None:
            self._lost()
            self._lost = None

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and record what the connection does now."""
        tracked, requests = self._tracked, self._request_count
        if tracked.stage is Stage.STREAMING:
            self.abort()  # nothing can follow the request for a stream
            return
        if data and tracked.stage is Stage.IDLE:
            self._table.move(tracked, Stage.HEAD, self._loop.time())
            self._head_bytes = 0
        super().data_received(data)
        if self._request_count != requests:
            self._head_bytes = 0
            self._body = self._messages[-1][1]
            complete = self._body.is_eof()
            self._table.move(tracked, Stage.BUSY if complete else Stage.BODY, self._loop.time())
            if len(self._messages) > 1 and self._pipelined_bytes() > self._table.limits.head_bytes:
                self._acceptor.drop(tracked, DropCause.HEAD_TOO_LARGE)
        elif tracked.stage is Stage.BODY:
            if self._body is None or self._body.is_eof():
                handled = self._current_request is None and not self._messages
                self._table.move(tracked, Stage.IDLE if handled else Stage.BUSY, self._loop.time())
        elif tracked.stage is Stage.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._table.limits.head_bytes:
                if self.transport is not None:
                    self.transport.write(_HEAD_TOO_LARGE)
                self._acceptor.drop(tracked, DropCause.HEAD_TOO_LARGE)

    def _pipelined_bytes(self) -> int:
        return sum(
            len(name) + len(value)
            for message, _ in self._messages
            for name, value in getattr(message, "raw_headers", ())
        )

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and record that the connection waits for the client again."""
        if self._acceptor.closes_connections and not resp.prepared:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if not self._messages:
            # (A body that nobody wanted is still read for a moment.)
            complete = self._body is None or self._body.is_eof()
            stage = Stage.IDLE if complete else Stage.BODY
            self._table.move(self._tracked, stage, self._loop.time())
        return finished

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not valid HTTP, which does not reach the application."""
        response = super().handle_error(request, status, exc, message)
        add_default_headers(response.headers)
        return response


class Acceptor:
    """Accepts the connections of all listeners of a process."""

    def __init__(
        self, limits: ConnectionLimits, exposition: Exposition, tls: TlsFiles | None
    ) -> None:
        """Keep these limits; with `tls`, speak https. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self.table = ConnectionTable(limits)
        #: Whether each connection is closed after its next answer.
        self.closes_connections = False
        self._exposition = exposition
        self._tls = tls
        #: That the open connections were checked with.
        self._client_ca = tls.client_ca if tls is not None else None
        self._listening: list[socket.socket] = []
        self._retries: dict[socket.socket, asyncio.TimerHandle] = {}
        self._open: dict[TrackedConnection, HttpConnection] = {}
        self._sweep_timer: asyncio.TimerHandle | None = None
        shortest = min(limits.handshake_seconds, limits.head_seconds, limits.unread_seconds)
        self._sweep_seconds = min(_MAX_SWEEP_SECONDS, shortest / _SWEEPS_PER_LIMIT)
        #: Since the last log entry, by cause and by source.
        self._dropped: Counter[str] = Counter()
        self._dropped_sources: Counter[str] = Counter()
        self._log_again_at = 0.0

    async def listen(
        self,
        host: str | None,
        port: int,
        make: Callable[[Acceptor, TrackedConnection], HttpConnection],
    ) -> list[tuple[Any, ...]]:
        """Listen on an address; `make` builds the protocol of a connection.

        Returns the addresses of the sockets.

        Raises:
            OSError: the address is not available.
            UnicodeError: it is not a host name.
        """
        # asyncio resolves and binds the address; its server would also accept.
        server = await self._loop.create_server(
            asyncio.Protocol, host, port, start_serving=False, reuse_address=True
        )
        sockets = [bound.dup() for bound in server.sockets]
        server.close()
        self._listening += sockets
        for listening in sockets:
            listening.setblocking(False)  # noqa: FBT003 - signature of the library
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                listening.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
            listening.listen(_BACKLOG)
            self._loop.add_reader(listening, self._accept, listening, make)
        return [listening.getsockname() for listening in sockets]

    def stop_listening(self) -> None:
        """Accept no more connections; from now on, readers must not pause for long."""
        limits = self.table.limits
        self.table.limits = replace(
            limits, unread_seconds=min(limits.unread_seconds, _UNREAD_SECONDS_WHEN_STOPPING)
        )
        while self._listening:
            listening = self._listening.pop()
            if timer := self._retries.pop(listening, None):
                timer.cancel()
            self._loop.remove_reader(listening)
            listening.close()

    async def close(self) -> None:
        """Give the last answers a moment to be sent, then end all connections."""
        self.stop_listening()
        deadline = self._loop.time() + _DRAIN_SECONDS
        while self._open and self._loop.time() < deadline:  # noqa: ASYNC110 - rarely more than once
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        for connection in list(self._open.values()):
            connection.abort()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None

    def _accept(
        self,
        listening: socket.socket,
        make: Callable[[Acceptor, TrackedConnection], HttpConnection],
    ) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                if (victim := self.table.longest_waiting()) is not None:
                    self.drop(victim, DropCause.OPEN_FILES_LIMIT)
                # The socket stays readable: without a pause the loop would do nothing else.
                self._loop.remove_reader(listening)
                retry = partial(self._loop.add_reader, listening, self._accept, listening, make)
                self._retries[listening] = self._loop.call_later(_ACCEPT_RETRY_SECONDS, retry)
                return
            self._admit(accepted, source_of(address[0]), make)

    def _admit(
        self,
        accepted: socket.socket,
        source: str,
        make: Callable[[Acceptor, TrackedConnection], HttpConnection],
    ) -> None:
        """Open a new connection, perhaps in the place of another one."""
        victim, cause = self.table.room_for(source, self._loop.time())
        if victim is not None and cause is not None:
            self.drop(victim, cause)
        elif cause is not None:
            accepted.close()
            self._count(source, cause)
            return
        sock = _Socket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        sock.setblocking(False)  # noqa: FBT003 - signature of the library
        tracked = TrackedConnection(source)
        sock.report = partial(self._sent, tracked)
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {
                # Each connection gets the newest context. A TLS session of an earlier context
                # cannot be resumed with it, so a certificate counts only while its CA is trusted.
                "ssl": self._tls.newest(),
                # The table has the deadline.
                "ssl_handshake_timeout": 2 * self.table.limits.handshake_seconds,
                "ssl_shutdown_timeout": _TLS_SHUTDOWN_SECONDS,
            }
        connection = make(self, tracked)
        self._open[tracked] = connection
        self.table.add(tracked, Stage.HANDSHAKE if tls else Stage.HEAD, self._loop.time())
        self._exposition.connections(len(self.table))
        connection.open(sock, tls)
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(self._sweep_seconds, self._sweep)

    def forget(self, tracked: TrackedConnection) -> None:
        """Stop tracking a connection that is closed; can be called more than once."""
        self._open.pop(tracked, None)
        self.table.remove(tracked)
        self._exposition.connections(len(self.table))

    def drop(self, tracked: TrackedConnection, cause: DropCause) -> None:
        """End a connection at once, and count it."""
        self.table.remove(tracked)
        self._count(tracked.source, cause)
        if (connection := self._open.get(tracked)) is not None:
            connection.abort()

    def _count(self, source: str, cause: DropCause) -> None:
        self._exposition.connection_dropped(cause)
        self._dropped[cause] += 1
        self._dropped_sources[source] += 1

    def _sent(self, tracked: TrackedConnection, unsent: int, progress: bool) -> None:  # noqa: FBT001 - a callback
        if not unsent and not tracked.unsent:
            return
        self.table.sent(tracked, unsent, self._loop.time(), progress=progress)
        if self.table.over_budget() is not None:
            # (Not at once: asyncio is about to write.)
            self._loop.call_soon(self._drop_slowest_readers)

    def _drop_slowest_readers(self) -> None:
        while (slowest := self.table.over_budget()) is not None:
            self.drop(slowest, DropCause.UNSENT_LIMIT)

    def _sweep(self) -> None:
        """Drop the connections whose time is over; log what was dropped since the last time."""
        now = self._loop.time()
        for tracked, cause in self.table.expired(now):
            self.drop(tracked, cause)
        self._check_certificates()
        if self._dropped and now >= self._log_again_at:
            source, count = self._dropped_sources.most_common(1)[0]
            _log.warning(
                "connections dropped",
                **{cause.replace("-", "_"): n for cause, n in self._dropped.items()},
                most_from=source,
                most=count,
            )
            self._dropped.clear()
            self._dropped_sources.clear()
            self._log_again_at = now + _LOG_INTERVAL_SECONDS
        self._sweep_timer = None
        if self._open or self._dropped:
            self._sweep_timer = self._loop.call_later(self._sweep_seconds, self._sweep)

    def check_certificate(self, tracked: TrackedConnection, connection: HttpConnection) -> None:
        """End a connection if its client's certificate was verified with an earlier CA."""
        if self._tls is not None and connection.client_ca not in (None, self._tls.client_ca):
            self._count(tracked.source, DropCause.CLIENT_CA_CHANGED)
            connection.retire()

    def _check_certificates(self) -> None:
        """Check the certificates of all clients if the CA has changed."""
        if self._tls is None:
            return
        self._tls.newest()
        if self._tls.client_ca != self._client_ca:
            self._client_ca = self._tls.client_ca
            for tracked, connection in list(self._open.items()):
                self.check_certificate(tracked, connection)

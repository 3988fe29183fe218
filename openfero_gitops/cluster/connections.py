"""Connections to an API server that are kept, for requests with one small answer.

Every alert costs a few such requests. A general HTTP client spends more on each than TLS, sockets
and JSON do together: it supports redirects, cookies, middlewares, tracing and streams. Here a
request is one piece of bytes, httptools parses the answer, and nothing is repeated. Whatever else
is requested (lists, watches, logs), or through a proxy, goes through aiohttp; see `cluster.client`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, cast

import httptools
import msgspec

from openfero_gitops.cluster.answers import LARGE_BYTES, MAX_ANSWER_BYTES, MAX_ERROR_BYTES
from openfero_gitops.cluster.failures import never_sent
from openfero_gitops.domain.errors import Invalid
from openfero_gitops.request_errors import describe

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from yarl import URL

_T = TypeVar("_T")
_ENCODE: Final = msgspec.json.Encoder().encode

#: After so long without a request a connection is not used again: the server may be closing it.
KEPT_SECONDS: Final = 15.0
MAX_HEADER_BYTES: Final = 64 * 1024
_INFORMATIONAL: Final = 200  # lower ones announce another answer


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer; `body` is None if it had too many bytes."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytearray | None

    @property
    def succeeded(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status <= 299  # noqa: PLR2004

    def all(self, name: bytes) -> Iterator[str]:
        """Yield the values of a header, whose name is in lower case."""
        return (value.decode(errors="replace") for key, value in self.headers if key == name)

    def first(self, name: bytes) -> str | None:
        """Return the first value of a header, whose name is in lower case."""
        return next(self.all(name), None)


class _Connection(asyncio.Protocol):
    """A connection, on which one request at a time waits for its answer."""

    def __init__(self, on_lost: Callable[[_Connection], None]) -> None:
        self.idle_since = 0.0
        self.lost = False
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._waiting: asyncio.Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._body = bytearray()
        self._too_long = False
        self._ends_with_connection = False
        self._complete = False
        self._keep_alive = False
        self._paused = False

    async def exchange(
        self, request: bytes, read: Callable[[HttpAnswer], _T], large_answers: asyncio.Semaphore
    ) -> _T:
        """Send a request and return what `read` makes of the answer.

        A large answer holds a slot of `large_answers` until it was read.

        Raises:
            OSError: the connection was lost, or the answer is not HTTP.
        """
        self._begin()
        self._transport.write(request)
        try:
            await self._wait()
            if not self._paused:
                return read(self._answer())
            async with large_answers:
                self._transport.resume_reading()
                if not self._complete:
                    await self._wait()
                return read(self._answer())
        finally:
            self._waiting = None

    @property
    def reusable(self) -> bool:
        """Whether another request can be sent: the last answer is complete."""
        return (
            self._complete
            and not self._too_long
            and not self._transport.is_closing()
            and self._keep_alive
        )

    def abort(self) -> None:
        """Close at once, without a TLS shutdown."""
        self._transport.abort()

    async def _wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        if self.lost:
            raise ConnectionResetError
        await self._waiting

    def _answer(self) -> HttpAnswer:
        body, self._body = self._body, bytearray()  # a large one is not kept here
        status = self._parser.get_status_code()
        return HttpAnswer(status, tuple(self._headers), None if self._too_long else body)

    def _wake(self, error: Exception | None = None) -> None:
        if self._waiting is None or self._waiting.done():
            return
        if error is None:
            self._waiting.set_result(None)
        else:
            self._waiting.set_exception(error)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse a part of an answer."""
        if self._waiting is None or self._complete:  # nothing was requested
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._wake(ConnectionAbortedError("the answer is not HTTP"))
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request that waits, unless the end of the connection ends its answer."""
        self.lost = True
        self._on_lost(self)
        if error is None and self._ends_with_connection:
            self._complete = True
            self._wake()
        else:
            self._wake(ConnectionAbortedError("the connection was closed before the answer"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Refuse a second answer."""
        if self._complete:
            raise ValueError("an answer that was not requested")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("too many headers")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Find out how the answer ends."""
        names = {name for name, _ in self._headers}
        if b"content-encoding" in names:
            raise ValueError("an encoding that was not requested")
        self._ends_with_connection = names.isdisjoint((b"content-length", b"transfer-encoding"))

    def on_body(self, part: bytes) -> None:
        """Keep a part of the body, and wait for a slot if it becomes large."""
        if self._too_long:
            return
        self._body += part
        is_error = self._parser.get_status_code() >= 300  # noqa: PLR2004
        if len(self._body) > (MAX_ERROR_BYTES if is_error else MAX_ANSWER_BYTES):
            self._too_long = self._complete = True
            self._wake()
            self.abort()
        elif len(self._body) > LARGE_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        """End the wait for the answer."""
        if self._parser.get_status_code() < _INFORMATIONAL:
            self._headers.clear()
            return
        self._keep_alive = self._parser.should_keep_alive()  # only within this call
        self._complete = True
        self._wake()


def encode_body(body: object) -> bytes:
    """Serialize the body of a request to JSON.

    Raises:
        Invalid: it contains something that JSON cannot represent.
    """
    try:
        return _ENCODE(body)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Such as half of a surrogate pair, which UTF-8 cannot represent, but `\\u` can.
        try:
            return json.dumps(body).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise Invalid(f"the object cannot be serialized to JSON: {error}") from error


class Connections:
    """The connections to one API server."""

    def __init__(
        self,
        url: URL,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None,
        connect_seconds: float,
        limit: int,
        large_answers: asyncio.Semaphore,
    ) -> None:
        """Connect nothing yet; with more than `limit` requests, the others wait."""
        self._host, self._port = url.raw_host or "", url.port or 443
        self._context = context if url.scheme == "https" else None
        self._server_hostname = (server_hostname or self._host) if self._context else None
        self._name = url.host_port_subcomponent or ""
        self._connect_seconds = connect_seconds
        self._slots = asyncio.Semaphore(limit)
        self._large_answers = large_answers
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        read: Callable[[HttpAnswer], _T],
    ) -> _T:
        """Send a request and return what `read` makes of the answer.

        Raises:
            Unavailable: no connection could be made.
            OSError: the connection was lost, or the answer is not HTTP.
            ValueError: a header contains a line break.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._name}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ValueError("a header contains a line break")
        request = f"{head}\r\n\r\n".encode() + body
        async with self._slots:
            connection = self._take() or await self._connect()
            try:
                return await connection.exchange(request, read, self._large_answers)
            finally:
                self._keep(connection)

    def close(self) -> None:
        """Close every connection; requests that wait for an answer fail."""
        for connection in list(self._all):
            connection.abort()

    def _take(self) -> _Connection | None:
        """Take the connection that was used last, if it is not too old."""
        oldest = asyncio.get_running_loop().time() - KEPT_SECONDS
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().abort()
        while self._idle:
            if (connection := self._idle.pop()).reusable:
                return connection
        return None

    def _keep(self, connection: _Connection) -> None:
        if connection.reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def _forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._forget),
                    self._host,
                    self._port,
                    ssl=self._context,
                    server_hostname=self._server_hostname,
                    happy_eyeballs_delay=0.25,
                )
        except TimeoutError as error:
            raise never_sent(
                f"{self._name} did not accept a connection within {self._connect_seconds:g} s"
            ) from error
        except OSError as error:
            raise never_sent(f"{self._name} cannot be reached: {describe(error)}") from error
        self._all.add(connection)
        return connection

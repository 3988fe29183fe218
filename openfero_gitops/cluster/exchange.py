"""Limits the time of requests to an API server, and translates errors of the connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from openfero_gitops.cluster.failures import never_sent
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.request_errors import describe

if TYPE_CHECKING:
    from types import TracebackType

    from openfero_gitops.domain.errors import ApiError


@dataclass(slots=True)
class Peer:
    """The API server as messages name it, and whether the connection to it has been closed.

    `connect_seconds` is the time that the client allows for TCP and TLS.
    """

    name: str
    connect_seconds: float
    closed: bool = False


class Exchange:
    """A block of requests and answers; it must end in time, and raises only `ApiError`.

    (A class, because it costs a third of a generator with `asynccontextmanager`.)
    """

    __slots__ = ("_limit", "_on_timeout", "_peer", "_seconds")

    def __init__(self, peer: Peer, seconds: float, on_timeout: str = "") -> None:
        """Limit the time; `on_timeout` is the error after it, if there is a better text."""
        self._peer = peer
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        """Begin; raises Unavailable if the connection has been closed."""
        if self._peer.closed:
            raise _closed()
        await self._limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Translate what ended the block."""
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            error = late
        if error is not None and (translated := self._translate(error)) is not None:
            try:
                raise translated from error
            finally:
                # The traceback refers to this frame: without references back, both are freed at
                # once, with the bodies that the callers' frames hold.
                del translated, error, traceback

    def _translate(self, error: BaseException) -> ApiError | None:
        """Return the error that is raised instead; None if it is passed on."""
        peer = self._peer
        match error:
            case aiohttp.ConnectionTimeoutError():
                seconds = peer.connect_seconds
                return never_sent(f"{peer.name} did not accept a connection within {seconds:g} s")
            case aiohttp.ClientConnectorError():
                return never_sent(f"{peer.name} cannot be reached: {describe(error)}")
            case TimeoutError():
                reason = self._on_timeout or f"no response within {self._seconds:g} s"
                return Unavailable(f"{peer.name}: {reason}")
            case aiohttp.ClientError() | OSError() | ValueError():
                return Unavailable(f"{peer.name}: {describe(error)}")
            case RuntimeError() if peer.closed:
                return _closed()
        return None


def _closed() -> Unavailable:
    return never_sent("the connection to the cluster has been closed")

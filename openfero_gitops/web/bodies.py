"""Reads the bodies of requests: counted, within limits, and within one budget of memory.

Nothing else in this package reads a body. Bytes are counted as they arrive, whatever
`Content-Length` says, and each request reserves the memory that it needs in the budget, which all
listeners share. A request holds its memory until it is answered. What exceeds the budget is
answered with 503.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web

from openfero_gitops.domain.errors import Overloaded, TooLarge
from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

#: Requests that need at most this much may use the whole budget: a delivery of 300 alerts does.
SMALL_BYTES: Final = 2 * 1024 * 1024
#: Larger ones may use this part of it, so that they cannot keep out ordinary deliveries.
_LARGE_SHARE: Final = 0.75
_MAX_SHOWN: Final = 40


class BodyBudget:
    """How many bytes of memory all requests in progress may use for their bodies."""

    def __init__(self, size: int) -> None:
        """Take the size of the budget in bytes."""
        self._size = size
        self._max_large = int(size * _LARGE_SHARE)
        self._used = 0
        self._large = 0  # the part of it that requests over SMALL_BYTES use
        self._lock = threading.Lock()  # payloads are parsed in a thread

    @property
    def used(self) -> int:
        """How many bytes are reserved now."""
        return self._used

    def reserve(self, reservation: Reservation, size: int) -> None:
        """Reserve so many more bytes for a request; raises Overloaded if that is too much."""
        with self._lock:
            if reservation.closed:
                # The request was answered while its alerts were parsed in a thread.
                raise Overloaded("the request was answered")
            before, after = reservation.size, reservation.size + size
            used = self._used + size
            large = self._large + _large(after) - _large(before)
            if used > self._size or (after > SMALL_BYTES and large > self._max_large):
                raise Overloaded(
                    "too many large requests are being processed; repeat the request later"
                )
            self._used, self._large, reservation.size = used, large, after

    def release(self, reservation: Reservation) -> None:
        """Release what a request has reserved."""
        with self._lock:
            self._used -= reservation.size
            self._large -= _large(reservation.size)
            reservation.size = 0
            reservation.closed = True


def _large(size: int) -> int:
    return size if size > SMALL_BYTES else 0


class Reservation:
    """What one request has reserved in the budget; a context manager that releases it.

    `size` and `closed` are changed by the budget.
    """

    def __init__(self, budget: BodyBudget) -> None:
        """Reserve nothing yet."""
        self._budget = budget
        self.size = 0
        self.closed = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release everything; no more can be reserved."""
        self._budget.release(self)

    def add(self, size: int) -> None:
        """Reserve so many more bytes; raises Overloaded if the budget does not have them."""
        self._budget.reserve(self, size)


async def receive(
    request: web.Request, limit: int, take: Callable[[bytes], None], advice: str = ""
) -> None:
    """Pass the body of a request to `take` as it arrives; at most `limit` bytes.

    `advice` is what the sender of a larger body should do.

    Raises:
        TooLarge: the body is larger.
        web.HTTPUnsupportedMediaType: the body is compressed.
    """
    _refuse_compressed(request)
    if (request.content_length or 0) > limit:
        raise _too_large(limit, advice)
    size = 0
    while not request.content.at_eof():
        piece = await request.content.readany()
        size += len(piece)
        if size > limit:
            raise _too_large(limit, advice)
        take(piece)
        # A slow sender would keep it: it can have hundreds of KiB.
        del piece


async def read_body(
    request: web.Request, limit: int, reservation: Reservation, advice: str = ""
) -> bytearray:
    """Read the body of a request; see `receive`.

    Raises:
        TooLarge: the body is larger than `limit` bytes.
        Overloaded: the budget does not have the memory for it.
        web.HTTPUnsupportedMediaType: the body is compressed.
    """
    body = bytearray()

    def take(piece: bytes) -> None:
        reservation.add(len(piece))
        body.extend(piece)

    await receive(request, limit, take, advice)
    return body


def _too_large(limit: int, advice: str) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes{advice and '; ' + advice}")


def _refuse_compressed(request: web.Request) -> None:
    """Refuse a compressed body: it may be huge when decompressed, and nobody sends one.

    Raises:
        web.HTTPUnsupportedMediaType: the body is compressed.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise web.HTTPUnsupportedMediaType(
            text=f"the body is compressed (Content-Encoding: {printable(encoding, _MAX_SHOWN)}); "
            "send it uncompressed",
            headers={"Accept-Encoding": "identity"},
        )

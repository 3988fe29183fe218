"""Lets the events of a watch gather, to read them together.

To wake up costs the event loop more than to read an event. So while events gather, the socket is
not read at all: the kernel holds what arrives.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp


async def await_batch(response: aiohttp.ClientResponse, processed: int, seconds: float) -> None:
    """Let more of a response arrive for so long.

    Return at once if more than the `processed` bytes has been read already.
    """
    # In the first iteration the loop finds out that the socket is readable, and then reads it.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if response.content.total_bytes != processed or response.content.is_eof():
        return
    _pause_reading(response)
    try:
        await asyncio.sleep(seconds)
    finally:
        _resume_reading(response)


def _pause_reading(response: aiohttp.ClientResponse) -> None:
    transport = _transport(response)
    if transport is None:
        return
    if _is_tls(transport):
        # (Its `pause_reading` only stops decrypting: each record still wakes the event loop.)
        transport.set_read_buffer_limits(high=0)  # type: ignore[attr-defined]
    else:
        transport.pause_reading()


def _resume_reading(response: aiohttp.ClientResponse) -> None:
    transport = _transport(response)
    if transport is None:
        return
    if _is_tls(transport):
        transport.set_read_buffer_limits()  # type: ignore[attr-defined]
    else:
        transport.resume_reading()


def _transport(response: aiohttp.ClientResponse) -> asyncio.Transport | None:
    """Return the transport; None once the connection is lost, which aiohttp may not know yet."""
    transport = response.connection.transport if response.connection is not None else None
    return None if transport is None or transport.is_closing() else transport


def _is_tls(transport: asyncio.Transport) -> bool:
    return hasattr(transport, "set_read_buffer_limits")

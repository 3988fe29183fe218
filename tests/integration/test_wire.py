"""The relay with which tests interrupt connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.cluster.controlplane import LOOPBACK, free_port
from tests.support.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def echo(received: list[bytes]) -> AsyncIterator[Wire]:
    """Start a wire to a server that records what it receives and echoes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            received.append(data)
            writer.write(data)
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, LOOPBACK, port)
    async with server, Wire(port) as wire:
        yield wire


async def test_a_wire_carries_both_ways() -> None:
    """Data is echoed, and so is the end of the stream."""
    async with echo([]) as wire:
        reader, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_a_cut_wire_delivers_held_data_when_it_is_restored() -> None:
    """A held request is delivered later, even if its sender closed the connection."""
    received: list[bytes] = []
    async with echo(received) as wire:
        _, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        wire.cut()
        writer.write(b"late")
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.1)
        assert received == []
        wire.restore()
        async with asyncio.timeout(10):
            while received != [b"late"]:  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.01)


async def test_a_wire_can_be_cut_one_way() -> None:
    """The request is delivered, its response is held; both ends stay connected."""
    received: list[bytes] = []
    async with echo(received) as wire:
        reader, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        wire.cut(requests=False)
        writer.write(b"ask")
        answer = asyncio.create_task(reader.readexactly(3))
        async with asyncio.timeout(10):
            while received != [b"ask"]:  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.01)
        assert not answer.done()
        wire.restore()
        assert await answer == b"ask"
        writer.close()


async def test_dropped_connections_are_reset() -> None:
    """Both ends notice at once, and the next connection works."""
    async with echo([]) as wire:
        reader, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        writer.write(b"x")
        await reader.readexactly(1)
        assert wire.drop() == 1
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()

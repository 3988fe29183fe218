"""The relay that tests cut: what it holds back, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.cluster.controlplane import LOOPBACK, free_port
from tests.support.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def echo(heard: list[bytes]) -> AsyncIterator[Wire]:
    """Give a wire to a server that notes what it hears and says it again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            heard.append(data)
            writer.write(data)
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, LOOPBACK, port)
    async with server, Wire(port) as wire:
        yield wire


async def test_a_wire_carries_both_ways() -> None:
    """What is sent comes back, and so does the end."""
    async with echo([]) as wire:
        reader, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_what_a_cut_wire_holds_arrives_when_it_is_mended() -> None:
    """A request is held, also when its sender gave up meanwhile."""
    heard: list[bytes] = []
    async with echo(heard) as wire:
        _, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        wire.cut()
        writer.write(b"late")
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.1)
        assert heard == []
        wire.mend()
        async with asyncio.timeout(10):
            while heard != [b"late"]:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)


async def test_a_wire_can_be_cut_one_way() -> None:
    """The request is heard, its answer is not; both ends go on to believe in the connection."""
    heard: list[bytes] = []
    async with echo(heard) as wire:
        reader, writer = await asyncio.open_connection(LOOPBACK, wire.port)
        wire.cut(requests=False)
        writer.write(b"ask")
        answer = asyncio.create_task(reader.readexactly(3))
        async with asyncio.timeout(10):
            while heard != [b"ask"]:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert not answer.done()
        wire.mend()
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

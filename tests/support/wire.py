"""A TCP relay on loopback between a replica and the API server, which a test can interrupt.

What is not forwarded is held, not lost, as by TCP over a network that fails: it arrives when the
network is back, however late, also when its sender has given up since.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Self

import yaml

from tests.cluster.controlplane import LOOPBACK, free_port

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 2**16


class Wire:
    """Forwards to one port; as an async context manager it listens for as long as the block lasts.

    Args:
        target: the loopback port behind it.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self.restore()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self, *, requests: bool = True, answers: bool = True) -> None:
        """Stop forwarding; connections stay open without an error."""
        if requests:
            self._requests.clear()
        if answers:
            self._answers.clear()

    def restore(self) -> None:
        """Forward again, starting with the held bytes."""
        self._requests.set()
        self._answers.set()

    def drop(self) -> int:
        """Reset every connection; return how many there were."""
        for writer in self._connections.values():
            writer.transport.abort()
        return len(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            await self._requests.wait()
            onward, away = await asyncio.open_connection(LOOPBACK, self._target)
            try:
                await _first_to_end(
                    _pump(reader, away, self._requests), _pump(onward, writer, self._answers)
                )
            finally:
                away.transport.abort()
        except (OSError, asyncio.CancelledError):
            return
        finally:
            writer.transport.abort()
            del self._connections[task]


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forwards: asyncio.Event
) -> None:
    """Forward bytes in one direction, and then its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            await forwards.wait()
            writer.write(data)
            await writer.drain()
        await forwards.wait()
        if writer.can_write_eof():
            writer.write_eof()


async def _first_to_end(requests: object, answers: object) -> None:
    """Run both ways until the answering one has ended; the other may have ended before."""
    tasks = [asyncio.ensure_future(requests), asyncio.ensure_future(answers)]  # type: ignore[call-overload]
    try:
        await tasks[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def kubeconfig_through(kubeconfig: Path, port: int, written: Path) -> Path:
    """Write a kubeconfig that reaches the same API server through another loopback port."""
    config = yaml.safe_load(kubeconfig.read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = f"https://{LOOPBACK}:{port}"
    written.write_text(json.dumps(config))
    written.chmod(0o600)
    return written

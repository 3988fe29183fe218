"""Clients of the event stream in a process of their own: readers, slow readers, trickling bodies.

They stay until standard input is closed, and then print what they received as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.support.attacks import Attacker, slow_body
from tests.support.events import listening
from tests.support.workers import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Connections from one address; the controller bounds them.
_PER_SOURCE = 100


async def _read(port: int, source: str, counts: Counter[str]) -> None:
    """Listen, and count the events."""
    async with listening(port, source=source) as client:
        counts["open"] += client.status == 200
        while await client.next() is not None:
            counts["events"] += 1
    counts["ended"] += 1


async def _ignore(port: int, source: str, counts: Counter[str]) -> None:
    """Open a stream and never read from it."""
    async with listening(port, buffer=4096, source=source) as client:
        counts["open"] += client.status == 200
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(3600)


async def _trickle(url: str, token: str, source: str) -> None:
    await slow_body(Attacker(url, token, source))


async def hold(url: str, token: str, readers: int, slow: int, bodies: int) -> Counter[str]:
    """Keep clients of three kinds until standard input is closed; return what they received."""
    port = urlsplit(url).port or 80
    counts: Counter[str] = Counter()

    async def keep(client: Callable[[], Awaitable[None]]) -> None:
        """Connect again when the server has ended the connection, as a browser does."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await client()
            counts["again"] += 1
            await asyncio.sleep(3)

    clients: list[Callable[[], Awaitable[None]]] = [
        *(partial(_read, port, _source(n), counts) for n in range(readers)),
        *(partial(_ignore, port, _source(readers + n), counts) for n in range(slow)),
        *(partial(_trickle, url, token, _source(1000 + n)) for n in range(bodies)),
    ]
    tasks = []
    for client in clients:
        tasks.append(asyncio.create_task(keep(client)))
        await asyncio.sleep(0.002)  # the controller's backlog is short
    await until(lambda: counts["open"] >= readers + slow)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    result = Counter(counts)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return result


def _source(number: int) -> str:
    return f"127.0.1.{10 + number // _PER_SOURCE}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("token")
    for name in ("readers", "slow", "bodies"):
        parser.add_argument(name, type=int)
    print(json.dumps(asyncio.run(hold(**vars(parser.parse_args())))))

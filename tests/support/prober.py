"""Asks a server's /livez a hundred times a second, from a process of its own.

The longest time until an answer is how long its event loop was blocked.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTERVAL_SECONDS = 0.01
_PATIENCE_SECONDS = 300


@dataclass
class Silence:
    """What was measured: the longest time until an answer in seconds, and how many were missing."""

    seconds: float = 0.0
    answers: int = 0
    failures: int = 0


@contextlib.contextmanager
def probing(url: str) -> Iterator[Silence]:
    """Probe a server for as long as the block lasts; the figures are complete at its end."""
    silence = Silence()
    argv = [sys.executable, "-S", __file__, url]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield silence
    finally:
        answer = child.communicate()[0]  # (closes its stdin, which ends it)
        silence.seconds, silence.answers, silence.failures = json.loads(answer)


def _probe(url: str) -> tuple[float, int, int]:
    """Probe until stdin is closed."""
    address = urlsplit(url)
    request = f"GET /livez HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    longest, answers, failures = 0.0, 0, 0
    connection: socket.socket | None = None
    while not _closed():
        began = time.monotonic()
        try:
            if connection is None:
                connection = socket.create_connection(
                    (address.hostname or "", address.port or 0), timeout=_PATIENCE_SECONDS
                )
            connection.sendall(request)
            if not connection.recv(65536):
                raise ConnectionError
            answers += 1
        except OSError:
            failures += 1
            connection = None
        longest = max(longest, time.monotonic() - began)
        time.sleep(_INTERVAL_SECONDS)
    return longest, answers, failures


def _closed() -> bool:
    import select  # noqa: PLC0415 - of the child alone

    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    print(json.dumps(_probe(sys.argv[1])))

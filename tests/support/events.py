"""A client of the event stream that sees every byte, over a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.stream.models import RemediationChanged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def body(job: str = "job", namespace: str = "shop", reason: str = "") -> RemediationChanged:
    """Make the data of an event."""
    return RemediationChanged(
        namespace=namespace,
        job=job,
        phase=Phase.RUNNING,
        reason=reason,
        effect=None,
        alert="HostDown",
        status=Status.FIRING,
        operario="heal",
    )


@dataclass(frozen=True)
class Received:
    """An event as a client reads it."""

    id: str
    type: str
    data: dict[str, Any]


@dataclass
class EventClient:
    """An open event stream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    last_id: str = ""
    comments: int = 0
    _lines: list[str] = field(default_factory=list)

    async def read_head(self) -> None:
        """Read the status and the headers."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {
            name.lower(): value
            for name, value in (line.split(": ", 1) for line in head[1:] if line)
        }

    async def next(self) -> Received | None:
        """Return the next event; None if the server has ended the stream."""
        while True:
            while "" in self._lines:
                end = self._lines.index("")
                block, self._lines = self._lines[:end], self._lines[end + 1 :]
                if (event := self._read(block)) is not None:
                    return event
            size = await self.reader.readline()
            if not size or not int(size, 16):
                return None
            chunk = (await self.reader.readexactly(int(size, 16) + 2))[:-2].decode()
            # (Each chunk consists of whole lines.)
            self._lines += chunk.replace("\r\n", "\n").removesuffix("\n").split("\n")
            if chunk.endswith(("\n\n", "\r\n\r\n")) and self._lines[-1]:
                self._lines.append("")

    def _read(self, block: list[str]) -> Received | None:
        fields: dict[str, str] = {}
        for line in block:
            name, _, value = line.partition(": ")
            self.comments += not name
            fields[name] = value
        self.last_id = fields.get("id", self.last_id)
        if "data" not in fields:
            return None
        return Received(self.last_id, fields["event"], json.loads(fields["data"]))

    async def take(self, count: int) -> list[Received]:
        """Return the next events, or fewer if the stream ends."""
        received = []
        while len(received) < count and (event := await self.next()) is not None:
            received.append(event)
        return received


@contextlib.asynccontextmanager
async def listening(
    port: int, query: str = "", last_id: str = "", *, buffer: int = 0, source: str = "127.0.0.1"
) -> AsyncIterator[EventClient]:
    """Open an event stream and read its head; `buffer` limits what the kernel takes for us."""
    sock = socket.socket()
    sock.setblocking(False)  # noqa: FBT003 - signature of the library
    sock.bind((source, 0))
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=buffer or 65_536)
    head = f"GET /api/events{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if last_id:
        head += f"Last-Event-ID: {last_id}\r\n"
    writer.write(f"{head}\r\n".encode())
    client = EventClient(reader, writer)
    try:
        await client.read_head()
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

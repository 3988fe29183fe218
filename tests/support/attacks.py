"""What an attacker sends: hostile bodies, slow connections, and forged objects.

Bodies are produced piece by piece, so that sending a hundred of them costs the test no memory.
Connections may come from any address of 127.0.0.0/8, so that a bound per source is met by the
attacker and not by the ordinary clients of a test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import yaml

from openfero_gitops.domain import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

#: The attacker's address; the tests' other clients are 127.0.0.1.
ATTACKER: Final = "127.0.0.2"
MIB: Final = 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024
_HEAD: Final = b'{"version":"4","groupKey":"{}","status":"firing","receiver":"x","alerts":['
_ALERT: Final = '{"status":"firing","labels":{"alertname":"Hostile","n":"%d"},"startsAt":"2026-01-01T00:00:00Z"}'  # noqa: E501


@dataclass(frozen=True)
class Body:
    """A body of `head`, then `unit` repeated until it has about `size` bytes, then `tail`."""

    name: str
    size: int
    unit: bytes
    head: bytes = _HEAD
    tail: bytes = b"{}]}"

    @property
    def length(self) -> int:
        """Its exact number of bytes."""
        return len(self.head) + self._units * len(self.unit) + len(self.tail)

    def __iter__(self) -> Iterator[bytes]:
        """Yield its pieces."""
        yield self.head
        at_once = max(1, _PIECE_BYTES // len(self.unit))
        piece = self.unit * at_once
        for _ in range(self._units // at_once):
            yield piece
        yield self.unit * (self._units % at_once) + self.tail

    @property
    def _units(self) -> int:
        return max(0, self.size - len(self.head) - len(self.tail)) // len(self.unit)


_LABELS: Final = _HEAD + b'{"status":"firing","labels":{"alertname":"Hostile","x":"'


def ones(size: int) -> Body:
    """Numbers where alerts should be."""
    return Body("[1,1,1,...]", size, b"1,")


def empty_objects(size: int) -> Body:
    """Objects without labels where alerts should be."""
    return Body("[{},{},...]", size, b"{},")


def unknown_members(size: int) -> Body:
    """A delivery without alerts, and with a member that nobody reads."""
    return Body("unknown members", size, b'{"a":[1,2]},', b'{"alerts":[],"x":[', b"{}]}")


def one_label(size: int) -> Body:
    """An alert with one long label."""
    return Body("one label", size, b"x", _LABELS, b'"}}]}')


def many_labels(count: int) -> Iterator[bytes]:
    """Yield an alert with so many labels."""
    yield _LABELS + b'"'
    for first in range(0, count, 1000):
        numbers = range(first, min(first + 1000, count))
        yield "".join(f',"l{number}":"v"' for number in numbers).encode()
    yield b"}}]}"


def nested(size: int) -> Body:
    """Arrays in arrays."""
    return Body("[[[[", size, b"[", _HEAD, b"")


def many_alerts(count: int, name: str = "Hostile", first: int = 0) -> Iterator[bytes]:
    """Yield a delivery of so many well-formed alerts, all different."""
    yield _HEAD
    for number in range(count):
        alert = {
            "status": "firing",
            "labels": {"alertname": name, "n": str(first + number)},
            "startsAt": "2026-01-01T00:00:00Z",
        }
        yield (("," if number else "") + json.dumps(alert)).encode()
    yield b"]}"


def endless(unit: bytes = b'{"labels":{"alertname":"x"}},') -> Iterator[bytes]:
    """Yield a delivery that never ends."""
    yield _HEAD
    yield from itertools.repeat(unit * (_PIECE_BYTES // len(unit)))


@dataclass
class Attacker:
    """A client of one listener, without manners."""

    url: str
    token: str = ""
    source: str = ATTACKER
    answers: Counter[str] = field(default_factory=Counter)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from the attacker's address, with a small buffer for what is read."""
        address = urlsplit(self.url)
        connection = socket.socket()
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(0)
            connection.bind((self.source, 0))
            await asyncio.get_running_loop().sock_connect(
                connection, (address.hostname, address.port)
            )
            return await asyncio.open_connection(sock=connection, limit=4096)
        except BaseException:
            connection.close()
            raise

    def head(self, method: str, path: str, **headers: str) -> bytes:
        """Return the head of a request, with the token if there is one."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(self.url).netloc}"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def post(
        self,
        body: Iterable[bytes] | Body,
        path: str = "/alerts",
        *,
        pause: float = 0.0,
        patience: float = 300.0,
        **headers: str,
    ) -> str:
        """POST a body and return the status of the answer, or what happened instead.

        A body of unknown length is sent in chunks. Sending ends when the answer comes first. With
        a `pause`, so many seconds pass between two pieces.
        """
        try:
            async with asyncio.timeout(patience):
                answer = await self._post(body, path, pause, headers)
        except TimeoutError:
            answer = "no answer"
        except OSError as error:
            answer = type(error).__name__
        self.answers[answer] += 1
        return answer

    async def _post(
        self, body: Iterable[bytes] | Body, path: str, pause: float, headers: dict[str, str]
    ) -> str:
        chunked = not isinstance(body, Body)
        size = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(body.length)}
        reader, writer = await self.connect()
        status = asyncio.create_task(reader.readline())
        try:
            writer.write(
                self.head("POST", path, Content_Type="application/json", **size, **headers)
            )
            with contextlib.suppress(OSError):
                for piece in filter(None, body):  # an empty chunk would be the last
                    if status.done():
                        break
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await writer.drain()
                    if pause:
                        await asyncio.wait([status], timeout=pause)
                if chunked and not status.done():
                    writer.write(b"0\r\n\r\n")
            words = (await status).split()
            return words[1].decode() if len(words) > 1 else "closed"
        finally:
            status.cancel()
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def hold(self, kind: Callable[[Self], Any], count: int) -> AsyncIterator[Counter[str]]:
        """Keep so many slow connections open for as long as the block lasts.

        What is closed by the server is opened again after a moment.
        """
        counts: Counter[str] = Counter()

        async def keep() -> None:
            while True:
                try:
                    await kind(self)
                    counts["closed"] += 1
                except OSError as error:
                    counts[type(error).__name__] += 1
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(keep()) for _ in range(count)]
        try:
            yield counts
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def slow_head(attacker: Attacker) -> None:
    """Send the head of a request at one header in two seconds, without end."""
    reader, writer = await attacker.connect()
    try:
        writer.write(b"POST /alerts HTTP/1.1\r\nHost: x\r\n")
        await _drip(reader, writer, b"X-A: b\r\n")
    finally:
        writer.transport.abort()


async def slow_body(attacker: Attacker) -> None:
    """Send a body at one byte in two seconds."""
    reader, writer = await attacker.connect()
    try:
        writer.write(attacker.head("POST", "/alerts", Content_Length="100000"))
        await _drip(reader, writer, b" ")
    finally:
        writer.transport.abort()


async def slow_reader(attacker: Attacker, path: str = "/") -> None:
    """Ask for a page a thousand times on one connection, and never read an answer."""
    _, writer = await attacker.connect()
    try:
        writer.write(attacker.head("GET", path) * 1000)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not writer.transport.is_closing():
            await asyncio.sleep(1)
            writer.write(attacker.head("GET", path))
            if writer.transport.get_write_buffer_size() > MIB:
                await asyncio.sleep(600)
    finally:
        writer.transport.abort()


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: bytes) -> None:
    """Write a drop every two seconds until the server closes the connection."""
    closed = asyncio.create_task(reader.read(1))
    try:
        while not closed.done():
            writer.write(drop)
            await writer.drain()
            await asyncio.wait([closed], timeout=2)
        closed.result()
    finally:
        closed.cancel()


class Admin:
    """Requests to an API server with the rights of a kubeconfig's first user.

    At most `connections` of them are sent at once.
    """

    def __init__(self, kubeconfig: Path, connections: int = 8) -> None:
        """Read the kubeconfig."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url: str = cluster["server"]
        self.headers = {"Authorization": f"Bearer {user['token']}"}
        self.authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._connections = connections
        self._tls = ssl.create_default_context(cadata=self.authority)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connections."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=self._connections)
        self._http = aiohttp.ClientSession(connector=connector, headers=self.headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        assert self._http is not None
        await self._http.close()

    async def request(
        self, method: str, path: str, body: Any = None, *, token: str = "", **parameters: str
    ) -> tuple[int, Any]:
        """Send a request, with another token if one is given; the status, and the answer."""
        assert self._http is not None
        content = "application/json-patch+json" if method == "PATCH" else "application/json"
        async with self._http.request(
            method,
            self.url + path,
            data=None if body is None else json.dumps(body),
            params=parameters,
            headers={"Content-Type": content}
            | ({"Authorization": f"Bearer {token}"} if token else {}),
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    def stream(self, path: str) -> Any:
        """Return a response to be read piece by piece, as a context manager."""
        assert self._http is not None
        return self._http.get(self.url + path, timeout=aiohttp.ClientTimeout())

    async def create_all(self, path: str, objects: Iterable[Any]) -> Counter[int]:
        """Create objects, eight at a time, and count the statuses."""
        statuses: Counter[int] = Counter()
        waiting = iter(objects)

        async def create() -> None:
            for body in waiting:
                statuses[(await self.request("POST", path, body))[0]] += 1

        await asyncio.gather(*(create() for _ in range(8)))
        return statuses


def jobs_path(namespace: str) -> str:
    """Return the path of the Jobs of a namespace."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def config_maps_path(namespace: str) -> str:
    """Return the path of the ConfigMaps of a namespace."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def lease_path(namespace: str) -> str:
    """Return the path of the controller's Lease."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/openfero-gitops"


def forged_job(number: int, size: int = 900_000, **annotations: str) -> dict[str, Any]:
    """Return a Job that claims to be the controller's, with `size` bytes in its arguments."""
    occurrence = f"{number:0>52}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"forged-{number}",
            "labels": {
                keys.MANAGED_BY: keys.MANAGER,
                keys.OCCURRENCE: occurrence,
                keys.INCIDENT: occurrence,
                keys.STATUS: "firing",
            },
            "annotations": {
                keys.ALERT: json.dumps({"labels": {"alertname": "Real", "n": str(number)}}),
                keys.OPERARIUS: "openfero-real-firing",
                keys.RECEIVED_AT: "2099-01-01T00:00:00.000000Z",
                **annotations,
            },
        },
        "spec": {
            "suspend": True,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {"name": "x", "image": "x", "args": ["x" * 100_000] * (size // 100_000)}
                    ],
                }
            },
        },
    }


def forged_config_map(number: int, size: int = 1_000_000) -> dict[str, Any]:
    """Return a ConfigMap that claims to be a part of the mirror."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"openfero-catalog-{number:032x}",
            "labels": {keys.MIRROR: "true", keys.MANAGED_BY: keys.MANAGER},
        },
        "data": {"index.json": "[]", "x": "x" * size},
    }

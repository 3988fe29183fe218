"""Connections that neither send nor read, with real sockets and short limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from openfero_gitops.metrics import Metrics
from openfero_gitops.web.auth import Guard
from openfero_gitops.web.connections.table import ConnectionLimits, DropCause
from openfero_gitops.web.server import Server, fit_to_open_files
from openfero_gitops.web.tls import load_tls
from tests.support import pages
from tests.support.certificates import Authority
from tests.support.copying import replace
from tests.support.replica import alert, group
from tests.support.serving import Inbox, local_server, nothing_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

from datetime import UTC, datetime

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
BODY = json.dumps(group(alert("HostDown"))).encode()
POST = b"POST /alerts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
DELIVERY = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
#: Seconds that an ordinary request may take while others misbehave.
PATIENCE = 60.0
ATTACKER = "127.0.0.2"
OTHER_ATTACKER = "127.0.0.3"


@dataclass
class Counts(Metrics):
    """Metrics, and the causes of dropped connections."""

    dropped: list[str] = field(default_factory=list)
    now_open: int = 0

    def __post_init__(self) -> None:
        """Register the metrics."""
        super().__init__("1.2.3")

    def connections(self, count: int) -> None:
        """Remember the number of open connections."""
        super().connections(count)
        self.now_open = count

    def connection_dropped(self, cause: str) -> None:
        """Remember the cause."""
        super().connection_dropped(cause)
        self.dropped.append(cause)


@dataclass
class Stage:
    """A running server, and what it counted."""

    server: Server
    counts: Counts
    inbox: Inbox

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.server.bound[0].port

    async def attack(self, source: str, sent: bytes = b"", **options: Any) -> Peer:
        """Open a connection from an address of the loopback network, and send something."""
        sock = socket.socket()
        # (Small, so that what is not read is not taken by the client's kernel either.)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        sock.setblocking(False)  # noqa: FBT003 - signature of the library
        sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, **options)
        if sent:
            writer.write(sent)
            await writer.drain()
        return Peer(reader, writer)

    async def ordinary(self) -> None:
        """An ordinary client from its own address is answered: a delivery and a probe."""
        async with asyncio.timeout(PATIENCE):
            for sent in (DELIVERY, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                peer = await self.attack("127.0.0.1", sent)
                assert (await peer.reader.readline()) == b"HTTP/1.1 200 OK\r\n"
                await peer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the server has done something."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.01)


@dataclass
class Peer:
    """The client's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ended(self) -> bytes:
        """Read until the server ends the connection."""
        received = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while more := await self.reader.read(2**16):
                    received += more
        return received

    async def close(self) -> None:
        """End it."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


SHORT = ConnectionLimits(
    connections=20,
    connections_per_source=10,
    handshake_seconds=0.4,
    head_seconds=0.4,
    unread_seconds=0.6,
)
LONG = replace(SHORT, handshake_seconds=60, head_seconds=60, unread_seconds=60)


@contextlib.asynccontextmanager
async def serving(limits: ConnectionLimits, **changes: Any) -> AsyncIterator[Stage]:
    """Run a server with these limits; no task and no connection is left."""
    before = asyncio.all_tasks()
    inbox = changes.get("deliveries") or Inbox()
    counts = Counts()
    server = local_server(
        **{"deliveries": inbox, "exposition": counts, "limits": limits, **changes}
    )
    await server.start()
    try:
        yield Stage(server, counts, inbox)
    finally:
        await server.stop()
    await nothing_left(before)
    assert counts.now_open == 0


# Slow senders


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_head_that_does_not_arrive(sent: bytes) -> None:
    """A connection without a complete head is closed after the deadline, and counted."""
    async with serving(SHORT) as stage:
        peer = await stage.attack(ATTACKER, sent)
        assert await peer.ended() == b""
        assert stage.counts.dropped == ["head-timeout"]
        await peer.close()


async def test_a_head_that_trickles() -> None:
    """Bytes that keep coming do not extend the deadline of a head."""
    async with serving(SHORT) as stage:
        peer = await stage.attack(ATTACKER, b"GET /livez HTTP/1.1\r\n")

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    peer.writer.write(b"X-A: b\r\n")
                    await peer.writer.drain()
                    await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        await peer.ended()
        assert stage.counts.dropped == ["head-timeout"]
        trickling.cancel()
        await peer.close()


async def test_the_head_of_a_later_request() -> None:
    """The deadline of a later request counts from its first byte; an idle connection stays."""
    async with serving(SHORT) as stage:
        peer = await stage.attack(ATTACKER)
        for _ in range(2):
            peer.writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in await peer.reader.readuntil(b"\r\n\r\n")
            await peer.reader.readuntil(b"}")
            await asyncio.sleep(SHORT.head_seconds * 2)
        assert stage.counts.dropped == []
        peer.writer.write(b"GET /livez")
        assert await peer.ended() == b""
        assert stage.counts.dropped == ["head-timeout"]
        await peer.close()


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    """A connection without a further request is closed; that is no misbehavior."""
    async with serving(replace(LONG, idle_seconds=0.3)) as stage:
        peer = await stage.attack(ATTACKER, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await peer.ended()
        assert stage.counts.dropped == []
        await peer.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nX: y", POST + b"Content-Length: 900\r\n\r\n{", b"HEAD"],
    ids=["nothing", "head", "body", "word"],
)
async def test_a_flood_of_slow_senders(sent: bytes) -> None:
    """Slow senders of several addresses take all connections: others are served nevertheless."""
    async with serving(LONG) as stage:
        peers = [
            await stage.attack(source, sent)
            for _ in range(3 * LONG.connections_per_source)
            for source in (ATTACKER, OTHER_ATTACKER)
        ]
        for _ in range(5):
            await stage.ordinary()
        assert stage.counts.now_open <= LONG.connections
        assert {DropCause.SOURCE_LIMIT, DropCause.CONNECTION_LIMIT} == set(stage.counts.dropped)
        for peer in peers:
            await peer.close()


async def test_one_source_does_not_displace_others() -> None:
    """A source at its limit loses its own connections."""
    async with serving(LONG) as stage:
        other = await stage.attack("127.0.0.1", b"GET /li")
        peers = [await stage.attack(ATTACKER) for _ in range(3 * LONG.connections_per_source)]
        other.writer.write(b"vez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await other.reader.readline()
        await stage.until(lambda: len(stage.counts.dropped) == 2 * LONG.connections_per_source)
        assert set(stage.counts.dropped) == {"source-limit"}
        for peer in (other, *peers):
            await peer.close()


async def test_a_complete_request_is_not_dropped_for_a_newcomer() -> None:
    """Where every connection has a complete request, the newcomer is refused instead."""
    inbox = Inbox(pause=1.5)
    async with serving(LONG, deliveries=inbox) as stage:
        limit = LONG.connections_per_source
        peers = [await stage.attack(ATTACKER, DELIVERY) for _ in range(limit)]
        await stage.until(lambda: len(inbox.groups) == limit)
        refused = await stage.attack(ATTACKER)
        assert await refused.ended() == b""
        assert stage.counts.dropped == ["refused"]
        for peer in peers:
            assert b"200 OK" in await peer.reader.readline()
            await peer.close()
        await refused.close()
        assert inbox.cut_off == 0


async def test_an_idle_connection_makes_room_first() -> None:
    """An idle connection is closed before one whose request is arriving, however old that is."""
    async with serving(LONG) as stage:
        slow = await stage.attack(ATTACKER, b"GET /li")
        idle = await stage.attack(ATTACKER, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await idle.reader.readuntil(b"}")
        peers = [await stage.attack(ATTACKER) for _ in range(LONG.connections_per_source - 1)]
        assert await idle.ended() == b""
        slow.writer.write(b"vez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await slow.reader.readline()
        for peer in (slow, idle, *peers):
            await peer.close()


# Large heads


@pytest.mark.parametrize("lines", [100, 10])
async def test_a_head_of_many_long_lines(lines: int) -> None:
    """A head of more than 32 KiB is refused before it is complete, however short its lines."""
    line = b"X-A: " + b"a" * (60_000 // lines) + b"\r\n"
    async with serving(LONG) as stage:
        peer = await stage.attack(ATTACKER, b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(lines):
                peer.writer.write(line)
                await peer.writer.drain()
        answer = await peer.ended()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
        assert stage.counts.dropped == ["head-too-large"]
        await peer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    """A client that sends many requests at once gets all answers."""
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving(LONG) as stage:
        peer = await stage.attack(ATTACKER, request * 500 + b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await peer.ended()).count(b"200 OK") == 501
        assert stage.counts.dropped == []
        await peer.close()


async def test_large_pipelined_heads() -> None:
    """Requests with large heads behind one that takes long are not kept."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 8000 + b"\r\n\r\n"
    async with serving(LONG, deliveries=Inbox(pause=1.0)) as stage:
        peer = await stage.attack(ATTACKER, DELIVERY)
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                peer.writer.write(head)
                await peer.writer.drain()
        await peer.ended()
        assert stage.counts.dropped == ["head-too-large"]
        await peer.close()


# Slow readers


def large() -> pages.Showcase:
    """Make a replica whose list of remediations takes some MiB."""
    state = pages.busy(NOW)
    state.jobs = [
        replace(job, key=replace(job.key, name=f"{job.key.name}-{n}"), message="x" * 4000)
        for n in range(100)
        for job in state.jobs
    ]
    return state


READ_ALL = b"GET /api/remediations?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("https", [False, True])
async def test_a_reader_that_stops(https: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    """An answer that nobody reads is dropped after a while, over http and https."""
    authority = Authority(tmp_path, "ours") if https else None
    tls = load_tls(*authority.issue("server"), None) if authority else None
    options = {"ssl": authority.client(), "server_hostname": "localhost"} if authority else {}
    async with serving(SHORT, state=large(), tls=tls) as stage:
        peer = await stage.attack(ATTACKER, READ_ALL, limit=1000, **options)
        await stage.until(lambda: stage.counts.dropped == ["slow-reader"])
        await stage.until(lambda: stage.counts.now_open == 0)
        await peer.close()


async def test_a_reader_that_is_merely_slow() -> None:
    """An answer that is read slowly but steadily arrives completely."""
    async with serving(replace(SHORT, unread_seconds=1.5), state=large()) as stage:
        peer = await stage.attack(ATTACKER, READ_ALL.replace(b"1.1", b"1.0"), limit=2**16)
        received = 0
        async with asyncio.timeout(60):
            while more := await peer.reader.read(2**16):
                received += len(more)
                await asyncio.sleep(0.045)
        assert received > 3_000_000
        assert stage.counts.dropped == []
        await peer.close()


async def test_unread_answers_have_a_budget() -> None:
    """Where the answers of all readers take too much memory, the slowest are dropped."""
    async with serving(replace(LONG, unsent_bytes=15_000_000), state=large()) as stage:
        peers = [await stage.attack(ATTACKER, READ_ALL, limit=1000) for _ in range(8)]
        await stage.until(lambda: len(stage.counts.dropped) >= 3)
        assert set(stage.counts.dropped) == {"unsent-limit"}
        await stage.ordinary()
        for peer in peers:
            await peer.close()


async def test_many_readers_take_turns() -> None:
    """Many requests for long lists do not keep the event loop from other clients meanwhile."""
    async with serving(LONG, state=large()) as stage:
        peers = [await stage.attack(ATTACKER, limit=1000) for _ in range(10)]
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.process_time()
                await asyncio.sleep(0)
                longest = max(longest, time.process_time() - before)

        began = time.process_time()
        watching = asyncio.create_task(watch())
        for peer in peers:
            peer.writer.write(READ_ALL)
        for peer in peers:
            assert await peer.reader.readline() == b"HTTP/1.1 200 OK\r\n"
        watching.cancel()
        assert longest < (time.process_time() - began) / 3
        for peer in peers:
            await peer.close()


async def test_a_list_is_made_only_for_readers_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is not made for a client that has left, and the number of waiting ones is limited."""
    state = large()
    made: list[int] = []
    monkeypatch.setattr(state, "remediations", lambda: made.append(1) or [])
    async with serving(replace(LONG, connections=4), state=state) as stage:
        async with stage.server._turns._turn:  # as a request that takes long
            peers = [await stage.attack(ATTACKER, READ_ALL) for _ in range(4)]
            await stage.until(lambda: stage.server._turns._waiting == 4)
            for peer in peers:
                await peer.close()
            await stage.until(lambda: stage.counts.now_open == 0)
            late = await stage.attack(ATTACKER, READ_ALL)
            assert b" 503 " in await late.reader.readline()
            await late.close()
        await stage.ordinary()
    assert made == []


async def test_slow_readers_do_not_hold_up_the_end() -> None:
    """A server stops in time although an answer is not read."""
    async with serving(LONG, state=large()) as stage:
        peer = await stage.attack(ATTACKER, READ_ALL, limit=1000)
        await peer.reader.readline()
        async with asyncio.timeout(PATIENCE):
            await stage.server.stop()
        await peer.close()


# TLS


async def test_a_handshake_that_stalls(tmp_path: Path) -> None:
    """Handshakes that are not finished are dropped, and others served meanwhile."""
    authority = Authority(tmp_path, "ours")
    tls = load_tls(*authority.issue("server"), None)
    async with serving(SHORT, tls=tls) as stage:
        peers = [await stage.attack(ATTACKER, b"\x16\x03\x01") for _ in range(30)]
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(f"https://localhost:{stage.port}/livez", ssl=authority.client()) as answer,
        ):
            assert answer.status == 200
        await stage.until(lambda: "handshake-timeout" in stage.counts.dropped)
        assert await peers[-1].ended() == b""
        assert set(stage.counts.dropped) == {"source-limit", "handshake-timeout"}
        for peer in peers:
            await peer.close()


# Open files


async def test_no_open_file_is_left() -> None:
    """Where the process has no file left, a waiting connection makes room; the loop stays idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(replace(LONG, connections=2000, connections_per_source=2000)) as stage:
        peers = [await stage.attack(ATTACKER) for _ in range(20)]
        await stage.until(lambda: stage.counts.now_open == 20)
        waiting = [socket.socket() for _ in range(3)]
        free = [socket.socket()]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[0].fileno() + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:  # the files below the limit that are free
                    free.append(socket.socket())
            for client in waiting:
                client.setblocking(False)  # noqa: FBT003 - signature of the library
                with contextlib.suppress(BlockingIOError):
                    client.connect(("127.0.0.1", stage.port))
            await stage.until(lambda: "open-files-limit" in stage.counts.dropped)
            for client in free:
                client.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await stage.ordinary()
        for client in waiting:
            client.close()
        for peer in peers:
            await peer.close()


def test_connections_fit_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of open files is raised where possible; else fewer connections are accepted."""
    limit = [256, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limit))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limit.__setitem__(0, new[0]))
    defaults = ConnectionLimits()
    with capture_logs() as log:
        assert fit_to_open_files(defaults) is defaults
        assert limit[0] == 768
        limit[:] = 300, 400
        assert fit_to_open_files(defaults).connections == 200
        limit[:] = 1024, 1024
        assert fit_to_open_files(defaults) is defaults
    assert [line["open_files"] for line in log] == [400]
    assert "--max-connections" in log[0]["advice"]


async def test_a_flood_is_logged_once() -> None:
    """Dropped connections are one log entry, with their number and the busiest source."""
    with capture_logs() as log:
        async with serving(SHORT) as stage:
            peers = [await stage.attack(ATTACKER) for _ in range(50)]
            await stage.until(lambda: len(stage.counts.dropped) == 50)
            await asyncio.sleep(SHORT.head_seconds)
            for peer in peers:
                await peer.close()
    lines = [line for line in log if line["event"] == "connections dropped"]
    assert len(lines) == 1
    assert lines[0]["most_from"] == ATTACKER


# Certificates of clients


async def test_a_certificate_ends_with_its_ca(tmp_path: Path) -> None:
    """A connection that is open is closed after its request when the CA of the clients changes."""
    ours, other = Authority(tmp_path / "a", "ours"), Authority(tmp_path / "b", "other")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(ours.certificate.read_bytes())
    inbox = Inbox(pause=1.5)
    guard = Guard(None, certificate=True)
    tls = load_tls(*ours.issue("server"), ca)
    async with serving(SHORT, tls=tls, webhook_guard=guard, deliveries=inbox) as stage:
        options = {"ssl": ours.client(*ours.issue("client")), "server_hostname": "localhost"}
        idle = await stage.attack("127.0.0.1", **options)
        idle.writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await idle.reader.readuntil(b"}")
        anonymous = {"ssl": ours.client(), "server_hostname": "localhost"}
        probe = await stage.attack("127.0.0.1", **anonymous)
        probe.writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await probe.reader.readuntil(b"}")
        busy = await stage.attack("127.0.0.1", DELIVERY, **options)
        await stage.until(lambda: len(inbox.groups) == 1)
        ca.write_bytes(other.certificate.read_bytes())
        assert await idle.ended() == b""
        assert b"200 OK" in await busy.ended()
        assert stage.counts.dropped == ["client-ca-changed"] * 2
        probe.writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await probe.reader.readline()
        for peer in (idle, busy, probe):
            await peer.close()

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.connections.table import ConnectionLimits
from openfero_gitops.web.stream.history import EventHistory
from openfero_gitops.web.stream.models import LeadershipChanged
from openfero_gitops.web.stream.slices import MAX_CACHED_BYTES
from openfero_gitops.web.stream.streams import EventStreams, max_streams
from tests.support.events import EventClient, body, listening
from tests.support.serving import local_server, nothing_left
from tests.support.workers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from openfero_gitops.web.server import Server


#: What may wait for a client that does not read: a slice, and what was written before it.
MAX_BYTES_PER_CLIENT = 32 * 1024


@contextlib.asynccontextmanager
async def serving(streams: EventStreams, **changes: Any) -> AsyncIterator[tuple[int, Server]]:
    """Serve event streams; give the port and the server. Nothing is left behind."""
    before = asyncio.all_tasks()
    server = local_server(streams=streams, **changes)
    await server.start()
    try:
        async with asyncio.timeout(120):
            yield server.bound[0].port, server
    finally:
        await server.stop()
        await nothing_left(before)
        assert len(streams) == 0


def make(start: str = "s1", **options: Any) -> EventStreams:
    """Make streams with a history of their own."""
    return EventStreams(EventHistory(start), **options)


async def jobs(client: EventClient, count: int) -> list[str]:
    """Return the Jobs of the next events."""
    return [event.data["job"] for event in await client.take(count)]


async def test_events_arrive_in_order_with_headers_for_proxies() -> None:
    """A client receives what is published from then on, in order; proxies must not keep it."""
    streams = make()
    streams.publish([body("before")])
    async with serving(streams) as (port, _), listening(port) as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["cache-control"] == "no-store"
        assert client.headers["x-accel-buffering"] == "no"
        assert client.headers["x-content-type-options"] == "nosniff"
        assert "content-encoding" not in client.headers
        for number in range(5):
            streams.publish([body(f"a{number}"), body(f"b{number}")])
        assert await jobs(client, 10) == [f"{c}{n}" for n in range(5) for c in "ab"]
        assert client.last_id == "s1-11"


async def test_a_client_that_reconnects_gets_what_it_missed() -> None:
    """With the id of the last event, a client receives exactly the events after it."""
    streams = make()
    async with serving(streams) as (port, _):
        async with listening(port) as client:
            streams.publish([body("first")])
            assert await jobs(client, 1) == ["first"]
        streams.publish([body("second"), body("third")])
        async with listening(port, last_id=client.last_id) as client:
            assert await jobs(client, 2) == ["second", "third"]


async def test_a_client_that_reconnects_before_any_event_misses_none() -> None:
    """The id to continue after is sent at the start, so that nothing is lost in between."""
    streams = make()
    streams.publish([body("before")])
    async with serving(streams) as (port, _):
        async with listening(port) as client:
            while not client.last_id:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await client.next()
        streams.publish([body("missed")])
        async with listening(port, last_id=client.last_id) as client:
            assert await jobs(client, 1) == ["missed"]


async def test_events_begin_again_when_nobody_followed_them_for_long() -> None:
    """With the first client recording starts; a client that comes back too late gets `reset`."""
    starts = 0

    def start() -> None:
        nonlocal starts
        starts += 1

    streams = EventStreams(EventHistory("s1"), start=start, resumable_seconds=0.0)
    assert not streams.followed
    async with serving(streams) as (port, _):
        async with listening(port) as client, listening(port):
            assert streams.followed
            streams.publish([body("first")])
            assert await jobs(client, 1) == ["first"]
        await until(lambda: not streams.followed)
        assert starts == 1
        async with listening(port, last_id=client.last_id) as client:
            (reset,) = await client.take(1)
            assert reset.type == "reset"
            streams.publish([body("second")])
            assert await jobs(client, 1) == ["second"]
    assert starts == 2


async def test_events_are_recorded_for_clients_that_may_reconnect() -> None:
    """For some minutes after the last client has left, events still count as followed."""
    streams = make()
    async with serving(streams) as (port, _):
        async with listening(port) as client:
            streams.publish([body("first")])
            await jobs(client, 1)
        await until(lambda: not len(streams))
        assert streams.followed


@pytest.mark.parametrize("last_id", ["another-3", "s1-0", "s1-77", "x"])
async def test_an_unknown_id_is_answered_with_reset(last_id: str) -> None:
    """A client whose last event is of another replica, or too old, gets `reset`."""
    streams = EventStreams(EventHistory("s1", max_events=2))
    streams.publish(body() for _ in range(4))
    async with serving(streams) as (port, _), listening(port, last_id=last_id) as client:
        streams.publish([body("next")])
        reset, event = await client.take(2)
        assert (reset.type, reset.id) == ("reset", "s1-4")
        assert (event.type, event.id) == ("remediation", "s1-5")


async def test_filters() -> None:
    """The parameters `type` and `namespace` select events."""
    streams = make()
    async with (
        serving(streams) as (port, _),
        listening(port, "?type=remediation&namespace=shop") as shop,
        listening(port, "?type=leadership&type=sync") as leadership,
    ):
        streams.publish(
            [body("a", "bank"), body("b"), LeadershipChanged(holder="x", leader=True), body("c")]
        )
        assert await jobs(shop, 2) == ["b", "c"]
        (event,) = await leadership.take(1)
        assert event.data == {"holder": "x", "leader": True}


@pytest.mark.parametrize("query", ["?type=job", "?types=sync"])
async def test_a_wrong_parameter_is_refused(query: str) -> None:
    """A parameter or a type that does not exist is answered with 400."""
    async with serving(make()) as (port, _), listening(port, query) as client:
        assert client.status == 400


async def test_credentials_are_required(tmp_path: Path) -> None:
    """Without credentials there is no stream."""
    file = tmp_path / "token"
    file.write_text("a-secret-token")
    guard = Guard(Credentials("bearer", file), certificate=False)
    async with serving(make(), web_guard=guard) as (port, _), listening(port) as client:
        assert client.status == 401


async def test_an_old_client() -> None:
    """A client of HTTP/1.0 receives events, too, without chunks."""
    streams = make()
    async with serving(streams) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /api/events HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        await until(lambda: len(streams))
        streams.publish([body("x")])
        await reader.readuntil(b"\nid: s1-1\nevent: remediation\n")
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_disconnects_is_forgotten() -> None:
    """The place of a client that disconnects is free at once, not only when something happens."""
    streams = make()
    async with serving(streams) as (port, _):
        async with listening(port):
            assert len(streams) == 1
        await until(lambda: not len(streams))


async def test_streams_are_limited() -> None:
    """Above the limit a client is answered with 503, and may try again later."""
    streams = make(limit=2)
    async with (
        serving(streams) as (port, _),
        listening(port),
        listening(port),
        listening(port) as third,
    ):
        assert (third.status, third.headers["retry-after"]) == (503, "30")
    assert max_streams(512) == 384
    assert max_streams(65_536) == 1000


async def test_a_client_that_does_not_read_is_dropped() -> None:
    """A client that falls behind the history is disconnected; others get every event.

    Meanwhile no more than a few ten kilobytes wait for it.
    """
    streams = EventStreams(EventHistory("s1", max_events=100))
    async with (
        serving(streams) as (port, _),
        listening(port, buffer=4096) as slow,
        listening(port) as quick,
    ):
        published = 0
        ids: list[str] = []
        while not streams.dropped:
            streams.publish(body(f"job-{n}", reason="x" * 1000) for n in range(50))
            published += 50
            ids += [event.id for event in await quick.take(50)]
            assert published < 2000
        assert ids == [f"s1-{n}" for n in range(1, published + 1)]
        received = await _rest(slow)
        assert received < 200
        async with listening(port, last_id=f"s1-{received}") as again:
            (event,) = await again.take(1)
            assert event.type == "reset"


async def test_clients_with_filters_of_their_own_need_no_memory() -> None:
    """What is encoded for clients that reconnect with different filters is not kept for all."""
    streams = make()
    streams.publish(body(f"job-{n}", namespace="", reason="x" * 900) for n in range(60))
    async with serving(streams) as (port, _):
        for number in range(40):
            query = f"?namespace=n{number}"
            async with listening(port, query, last_id="s1-0") as client:
                assert len(await client.take(60)) == 60
    assert streams._slices.size <= MAX_CACHED_BYTES < 40 * 60 * 900


async def _rest(client: EventClient) -> int:
    """Count the events that arrive until the connection ends."""
    count = 0
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while await client.next() is not None:
            count += 1
    return count


async def test_five_hundred_clients() -> None:
    """450 clients receive every event in order; for 50 that do not read, little is kept.

    Those are disconnected, and nobody else is.
    """
    streams = EventStreams(EventHistory("s1", max_events=60))
    limits = ConnectionLimits(connections=1024, connections_per_source=600)
    async with (
        serving(streams, limits=limits) as (port, server),
        contextlib.AsyncExitStack() as stack,
    ):
        slow = [await _enter(stack, port, buffer=4096) for _ in range(50)]
        quick = [await _enter(stack, port) for _ in range(450)]
        assert len(streams) == 500
        assert server._acceptor is not None
        table = server._acceptor.table
        for start in range(0, 200, 20):
            streams.publish(body(f"job-{start + n}", reason="x" * 1000) for n in range(20))
            for client in quick:
                assert await jobs(client, 20) == [f"job-{start + n}" for n in range(20)]
            assert table._unsent < len(slow) * MAX_BYTES_PER_CLIENT
        assert 0 < streams.dropped <= len(slow)
        await until(lambda: len(streams) + streams.dropped == 500)
        assert [await _rest(client) < 200 for client in slow] == [True] * 50


async def _enter(stack: contextlib.AsyncExitStack, port: int, buffer: int = 0) -> EventClient:
    """Open a stream that ends with the stack."""
    return await stack.enter_async_context(listening(port, buffer=buffer))


async def test_stopping_ends_streams_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the replica is about to stop, streams end, also of clients that do not read."""
    monkeypatch.setattr("openfero_gitops.web.server._SHUTDOWN_SECONDS", 600)
    streams = make()
    async with (
        serving(streams) as (port, server),
        listening(port) as quick,
        listening(port, buffer=4096),
    ):
        streams.publish(body(reason="x" * 1000) for _ in range(500))
        await quick.take(500)
        server.close_after_answers()
        assert await quick.next() is None
        async with listening(port) as late:
            assert late.status == 503
        async with asyncio.timeout(60):
            await server.stop()


async def test_streams_hold_no_turn_and_make_room() -> None:
    """Lists are served beside streams; where connections are full, the oldest stream ends."""
    streams = make()
    limits = ConnectionLimits(connections=3, connections_per_source=3)
    async with (
        serving(streams, limits=limits) as (port, _),
        listening(port) as first,
        listening(port) as second,
        listening(port) as third,
    ):
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}/api/about") as answer,
        ):
            assert answer.status == 200
        assert await _rest(first) == 0
        streams.publish([body("x")])
        assert await jobs(second, 1) == await jobs(third, 1) == ["x"]


async def test_a_stream_that_sends_more_is_ended() -> None:
    """A client cannot send another request behind the one for a stream."""
    async with serving(make()) as (port, _), listening(port) as client:
        client.writer.write(b"GET / HTTP/1.1\r\n")
        assert await _rest(client) == 0

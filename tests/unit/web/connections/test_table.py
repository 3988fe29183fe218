from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.web.connections.table import (
    ConnectionLimits,
    ConnectionTable,
    DropCause,
    Stage,
    TrackedConnection,
    source_of,
)

LIMITS = ConnectionLimits(connections=4, connections_per_source=3, unsent_bytes=100)


def opened(
    table: ConnectionTable, source: str, now: float, *stages: Stage, unsent: int = 0
) -> TrackedConnection:
    """Add a connection that goes through some stages, a second each."""
    connection = TrackedConnection(source)
    table.add(connection, Stage.HEAD, now)
    for number, stage in enumerate(stages, start=1):
        table.move(connection, stage, now + number)
    if unsent:
        table.sent(connection, unsent, now + len(stages), progress=True)
    return connection


def test_there_is_room() -> None:
    """Below the limits nothing is dropped."""
    table = ConnectionTable(LIMITS)
    for source in ("a", "a", "b"):
        assert table.room_for(source, 30) == (None, None)
        opened(table, source, 0)
    assert table.room_for("b", 30) == (None, None)


def test_the_source_at_its_limit_loses_a_connection() -> None:
    """A source at its limit loses its own oldest connection, though another is older."""
    table = ConnectionTable(LIMITS)
    opened(table, "b", 0)
    oldest = opened(table, "a", 1)
    opened(table, "a", 2)
    opened(table, "a", 3)
    assert table.room_for("a", 30) == (oldest, DropCause.SOURCE_LIMIT)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ([Stage.BUSY, Stage.IDLE], [Stage.BUSY, Stage.IDLE]),
        ([], []),
        ([Stage.BODY], []),
        ([Stage.BODY], [Stage.BODY]),
        ([], [Stage.BODY]),
    ],
)
def test_the_one_that_waits_longest_goes(older: list[Stage], newer: list[Stage]) -> None:
    """Among idle connections, and among those that send a request, the oldest is dropped."""
    table = ConnectionTable(replace(LIMITS, connections=2))
    first = opened(table, "a", 0, *older)
    opened(table, "b", 10, *newer)
    assert table.room_for("c", 30) == (first, DropCause.CONNECTION_LIMIT)


def test_event_streams_make_room() -> None:
    """An event stream is dropped for a newcomer, though other connections are older and slow."""
    table = ConnectionTable(LIMITS)
    opened(table, "a", 0)
    opened(table, "b", 1, Stage.BUSY)
    stream = opened(table, "b", 2, Stage.BUSY, Stage.STREAMING)
    opened(table, "a", 3, Stage.BUSY, Stage.STREAMING)
    assert table.room_for("c", 30) == (stream, DropCause.CONNECTION_LIMIT)
    table.remove(stream)
    assert table.longest_waiting() is not stream


def test_idle_connections_go_first() -> None:
    """An idle connection is dropped before an older one that sends or does not read."""
    table = ConnectionTable(LIMITS)
    opened(table, "a", 0)
    opened(table, "a", 1, Stage.BUSY, unsent=10)
    opened(table, "b", 2, Stage.BUSY)
    idle = opened(table, "b", 3, Stage.BUSY, Stage.IDLE)
    assert table.room_for("c", 30) == (idle, DropCause.CONNECTION_LIMIT)


def test_slow_readers_and_slow_senders_share_an_order() -> None:
    """A reader that has paused longer than a sender has taken goes first, and the reverse."""
    table = ConnectionTable(replace(LIMITS, connections=2))
    reader = opened(table, "a", 0, Stage.BUSY, unsent=10)
    sender = opened(table, "b", 5)
    assert table.longest_waiting() is reader
    table.sent(reader, 9, 8, progress=True)
    assert table.longest_waiting() is sender


def test_a_flood_displaces_itself() -> None:
    """Where all connections are new, the source with most of them loses one, not the others."""
    table = ConnectionTable(LIMITS)
    opened(table, "b", 0.0)
    first = opened(table, "a", 0.1)
    opened(table, "a", 0.2)
    opened(table, "c", 0.3)
    assert table.room_for("d", 1) == (first, DropCause.CONNECTION_LIMIT)


def test_complete_requests_stay() -> None:
    """Where every connection has a complete request, the newcomer is refused."""
    table = ConnectionTable(LIMITS)
    for source in ("a", "a", "b", "b"):
        opened(table, source, 0, Stage.BUSY)
    assert table.room_for("c", 30) == (None, DropCause.REFUSED)
    assert table.longest_waiting() is None


def test_deadlines() -> None:
    """Handshake and head have deadlines; a body, an idle time and a complete request have none."""
    table = ConnectionTable(replace(LIMITS, connections=9, connections_per_source=9))
    handshake = TrackedConnection("a")
    table.add(handshake, Stage.HANDSHAKE, 0)
    late = TrackedConnection("a")
    table.add(late, Stage.HANDSHAKE, 0)
    table.move(late, Stage.HEAD, 9)
    for stages in ([Stage.BODY], [Stage.BUSY], [Stage.BUSY, Stage.IDLE]):
        opened(table, "a", 0, *stages)
    assert list(table.expired(9.9)) == []
    assert list(table.expired(10)) == [(handshake, DropCause.HANDSHAKE_TIMEOUT)]
    table.remove(handshake)
    assert list(table.expired(19)) == [(late, DropCause.HEAD_TIMEOUT)]
    table.remove(late)
    assert list(table.expired(10_000)) == []


def test_readers_must_make_progress() -> None:
    """A reader is dropped once nothing was sent for the limit; each progress starts it anew."""
    table = ConnectionTable(LIMITS)
    reader = opened(table, "a", 0, Stage.BUSY, unsent=50)
    start = 1.0
    for step in range(1, 5):
        table.sent(reader, 50 - step, start + 29 * step, progress=True)
        assert list(table.expired(start + 29 * step + 29)) == []
    table.sent(reader, 46, start + 140, progress=False)
    assert list(table.expired(start + 29 * 4 + 30)) == [(reader, DropCause.SLOW_READER)]
    table.sent(reader, 0, start + 141, progress=True)
    assert list(table.expired(10_000)) == []


def test_the_budget_of_unread_bytes() -> None:
    """Over the budget the reader that has paused longest goes, until the rest fits."""
    table = ConnectionTable(LIMITS)
    slowest = opened(table, "a", 0, Stage.BUSY, unsent=60)
    second = opened(table, "b", 1, Stage.BUSY, unsent=40)
    assert table.over_budget() is None
    table.sent(second, 41, 5, progress=False)
    assert table.over_budget() is slowest
    table.remove(slowest)
    assert table.over_budget() is None


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_sources(address: str, source: str) -> None:
    """A source is an IPv4 address or an IPv6 network."""
    assert source_of(address) == source


#: What may happen: a connection arrives, moves, sends or ends.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from("abc")),
        st.tuples(st.just("move"), st.integers(0, 9), st.sampled_from(list(Stage)[:-1])),
        st.tuples(st.just("send"), st.integers(0, 9), st.integers(0, 80), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 9)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_the_limits_hold(events: list[tuple[Any, ...]]) -> None:
    """However connections behave, limits hold, and no complete request is dropped to make room."""
    table = ConnectionTable(LIMITS)
    connections: list[TrackedConnection] = []
    for now, (kind, *details) in enumerate(events):
        if kind == "arrive":
            victim, cause = table.room_for(details[0], now)
            if victim is not None:
                assert victim.stage is not Stage.BUSY or victim.unsent
                table.remove(victim)
                connections.remove(victim)
            if cause is not DropCause.REFUSED:
                connections.append(opened(table, details[0], now))
        elif connections:
            connection = connections[details[0] % len(connections)]
            if kind == "move":
                table.move(connection, details[1], now)
            elif kind == "send":
                table.sent(connection, details[1], now, progress=details[2])
            else:
                connections.remove(connection)
                table.remove(connection)
                table.remove(connection)
        while (slowest := table.over_budget()) is not None:
            table.remove(slowest)
            connections.remove(slowest)
        assert len(table) == len(connections) <= LIMITS.connections
        for source in "abc":
            count = sum(connection.source == source for connection in connections)
            assert count <= LIMITS.connections_per_source
        assert sum(connection.unsent for connection in connections) <= LIMITS.unsent_bytes

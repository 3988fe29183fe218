"""Keeps count of connections, and decides which one is dropped and why.

Clients that connect and then neither send nor read cost memory and open files. So there are
deadlines for the TLS handshake, for the head of a request and for reading an answer, and bounds on
connections, in all and per source. When a bound is reached, a new connection replaces the one that
has kept the server waiting longest; a request that has arrived completely is not dropped for that.

Nothing here does I/O; times are seconds of one monotonic clock.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: An IPv6 client usually has all addresses of such a network.
_IPV6_SOURCE_PREFIX_BITS: Final = 64
#: An ordinary client has sent its request by then.
_FLOOD_SECONDS: Final = 2.0


class Stage(Enum):
    """What a connection does."""

    #: An answer was sent, and nothing of the next request has arrived.
    IDLE = auto()
    HANDSHAKE = auto()
    HEAD = auto()
    BODY = auto()
    #: A complete request is handled and answered.
    BUSY = auto()
    #: The answer is a stream of events without end.
    STREAMING = auto()
    CLOSED = auto()


#: Its client loses nothing if it is dropped: it connects again, and receives what it missed.
_IDLE: Final = (Stage.IDLE, Stage.STREAMING)
#: The server waits for the client.
_RECEIVING: Final = (Stage.HANDSHAKE, Stage.HEAD, Stage.BODY)


class DropCause(StrEnum):
    """Why the server dropped a connection."""

    HANDSHAKE_TIMEOUT = "handshake-timeout"
    HEAD_TIMEOUT = "head-timeout"
    HEAD_TOO_LARGE = "head-too-large"
    SLOW_READER = "slow-reader"
    #: Too many bytes of answers wait for readers.
    UNSENT_LIMIT = "unsent-limit"
    CONNECTION_LIMIT = "connection-limit"
    SOURCE_LIMIT = "source-limit"
    OPEN_FILES_LIMIT = "open-files-limit"
    #: A bound is reached and every connection has a complete request.
    REFUSED = "refused"
    CLIENT_CA_CHANGED = "client-ca-changed"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds on connections; the defaults are for a container with 512 MiB of memory.

    A TLS connection takes about 120 KiB. Alertmanager, Prometheus, probes and readers behind one
    address (a node, a proxy) keep some tens of connections.
    """

    connections: int = 512
    connections_per_source: int = 256
    handshake_seconds: float = 10.0
    #: From the connection, or from the first byte of a later request.
    head_seconds: float = 10.0
    #: Between two requests; longer than clients and proxies keep an idle connection.
    idle_seconds: float = 75.0
    #: Without any progress in sending.
    unread_seconds: float = 30.0
    #: Larger heads are refused, also if each of their lines is short.
    head_bytes: int = 32 * 1024
    #: Answers that wait for their readers, over all connections.
    unsent_bytes: int = 64 * 1024 * 1024


class TrackedConnection:
    """A connection as the table knows it."""

    __slots__ = ("since", "source", "stage", "stalled_since", "unsent")

    def __init__(self, source: str) -> None:
        """Track a new connection from `source`."""
        self.source = source
        self.stage = Stage.CLOSED
        #: When the handshake, the request or the idle time began.
        self.since = 0.0
        #: Bytes that the client has not read yet, and when it last read some.
        self.unsent = 0
        self.stalled_since = 0.0


class _Group:
    """Some connections; each order begins with the one that has waited longest."""

    __slots__ = ("count", "idle", "receiving", "unread")

    def __init__(self) -> None:
        self.count = 0
        self.idle: dict[TrackedConnection, None] = {}
        self.receiving: dict[TrackedConnection, None] = {}
        self.unread: dict[TrackedConnection, None] = {}

    def longest_waiting(self) -> TrackedConnection | None:
        """Return the connection to drop where room is needed; None if all are busy.

        An idle one or a stream goes first: its client loses nothing. Slow senders and slow readers
        share one order, so that neither of them outlasts clients that are just sending their
        request.
        """
        for connection in self.idle:
            return connection
        sender = next(iter(self.receiving), None)
        reader = next(iter(self.unread), None)
        if sender is None or reader is None:
            return sender or reader
        return sender if sender.since <= reader.stalled_since else reader


class ConnectionTable:
    """The open connections of all listeners."""

    def __init__(self, limits: ConnectionLimits) -> None:
        """Start without connections."""
        self.limits = limits
        self._all: set[TrackedConnection] = set()
        self._total = _Group()
        self._sources: dict[str, _Group] = {}
        self._unsent = 0

    def __len__(self) -> int:
        """Return the number of open connections, including TLS handshakes."""
        return len(self._all)

    def room_for(
        self, source: str, now: float
    ) -> tuple[TrackedConnection | None, DropCause | None]:
        """Decide whether a newcomer fits in: the connection to drop for it, and the cause.

        No cause: there is room. A cause without a connection: the newcomer is refused.
        """
        limits, group = self.limits, self._sources.get(source)
        if group is not None and group.count >= limits.connections_per_source:
            victim, cause = group.longest_waiting(), DropCause.SOURCE_LIMIT
        elif self._total.count >= limits.connections:
            victim, cause = self._least_needed(now), DropCause.CONNECTION_LIMIT
        else:
            return None, None
        return victim, cause if victim is not None else DropCause.REFUSED

    def _least_needed(self, now: float) -> TrackedConnection | None:
        """Return the connection that has waited longest; None if all are busy.

        In a flood that replaces all connections within a moment, the order of arrival would not
        tell its connections from others: the source with most of them loses one.
        """
        oldest = self._total.longest_waiting()
        if oldest is None or oldest.stage in _IDLE:
            return oldest
        if now - (oldest.stalled_since if oldest.unsent else oldest.since) >= _FLOOD_SECONDS:
            return oldest
        for group in sorted(self._sources.values(), key=lambda group: -group.count):
            if group.count == 1:
                break
            if (victim := group.longest_waiting()) is not None:
                return victim
        return oldest

    def longest_waiting(self) -> TrackedConnection | None:
        """Return the connection that has waited longest; None if all are busy."""
        return self._total.longest_waiting()

    def add(self, connection: TrackedConnection, stage: Stage, now: float) -> None:
        """Count a new connection."""
        self._all.add(connection)
        group = self._sources.setdefault(connection.source, _Group())
        group.count += 1
        self._total.count += 1
        self.move(connection, stage, now, new=True)

    def move(
        self, connection: TrackedConnection, stage: Stage, now: float, *, new: bool = False
    ) -> None:
        """Record what a connection does now; a connection that was removed stays so."""
        before = connection.stage
        if stage is before or (before is Stage.CLOSED and not new):
            return
        connection.stage = stage
        # (The time for a request includes its body: it keeps its place in the order.)
        if before is Stage.HEAD and stage is Stage.BODY:
            return
        connection.since = now
        for group in (self._total, self._sources[connection.source]):
            if before in _IDLE:
                del group.idle[connection]
            elif before in _RECEIVING:
                del group.receiving[connection]
            if stage in _IDLE:
                group.idle[connection] = None
            elif stage in _RECEIVING:
                group.receiving[connection] = None

    def sent(
        self, connection: TrackedConnection, unsent: int, now: float, *, progress: bool
    ) -> None:
        """Record how many bytes of answers remain to be sent, and whether some were sent."""
        if connection.stage is Stage.CLOSED or (not unsent and not connection.unsent):
            return
        self._unsent += unsent - connection.unsent
        begins = not connection.unsent
        connection.unsent = unsent
        if begins or progress:
            connection.stalled_since = now
            for group in (self._total, self._sources[connection.source]):
                group.unread.pop(connection, None)
                if unsent:
                    group.unread[connection] = None

    def remove(self, connection: TrackedConnection) -> None:
        """Forget a connection; can be called more than once."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        self._unsent -= connection.unsent
        connection.unsent = 0
        connection.stage = Stage.CLOSED
        group = self._sources[connection.source]
        for each in (self._total, group):
            each.count -= 1
            for order in (each.idle, each.receiving, each.unread):
                order.pop(connection, None)
        if not group.count:
            del self._sources[connection.source]

    def over_budget(self) -> TrackedConnection | None:
        """Return the slowest reader if too many bytes wait to be read."""
        if self._unsent <= self.limits.unsent_bytes:
            return None
        return next(iter(self._total.unread), None)

    def expired(self, now: float) -> Iterator[tuple[TrackedConnection, DropCause]]:
        """List the connections whose time is over."""
        limits = self.limits
        for connection in list(self._total.receiving):
            age = now - connection.since
            if connection.stage is Stage.HANDSHAKE and age >= limits.handshake_seconds:
                yield connection, DropCause.HANDSHAKE_TIMEOUT
            elif connection.stage is Stage.HEAD and age >= limits.head_seconds:
                yield connection, DropCause.HEAD_TIMEOUT
        for connection in list(self._total.unread):
            if now - connection.stalled_since < limits.unread_seconds:
                break
            yield connection, DropCause.SLOW_READER


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the network of an IPv6 address."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_SOURCE_PREFIX_BITS), strict=False))

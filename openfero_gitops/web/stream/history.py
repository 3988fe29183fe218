"""The last events, numbered and encoded once for all clients.

An id is `START-NUMBER`. START is different for each start of a replica, so that the id of an event
of another replica, or of the time before a restart, is recognized.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.web.api.shape import encode
from openfero_gitops.web.stream.models import EVENT_TYPES, EventType, RemediationChanged, Reset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openfero_gitops.web.stream.models import EventBody

_MAX_EVENTS: Final = 1000
_MAX_BYTES: Final = 1024 * 1024
_MAX_NUMBER_DIGITS: Final = 15
_MISSED: Final = "the events after the last one that was received are not known any more"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a client wants; empty means all. A reset is always sent.

    A namespace selects remediations; events of other types do not belong to a namespace.
    """

    types: frozenset[EventType] = frozenset()
    namespaces: frozenset[str] = frozenset()

    def accept(self, event: StoredEvent) -> bool:
        """Whether the client wants an event."""
        if event.type is EventType.RESET:
            return True
        if self.types and event.type not in self.types:
            return False
        return not (self.namespaces and event.namespace and event.namespace not in self.namespaces)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is sent; `namespace` is empty if it belongs to none."""

    number: int
    type: EventType
    namespace: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive events for a client, and the number of the event to continue after."""

    encoded: bytes
    last: int


class EventHistory:
    """A bounded history of events."""

    def __init__(
        self, start: str, *, max_events: int = _MAX_EVENTS, max_bytes: int = _MAX_BYTES
    ) -> None:
        """Start empty; `start` identifies this start of the replica: letters and digits."""
        self._start = start
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        #: The number of the newest event.
        self.newest = 0

    def __len__(self) -> int:
        """The number of events that are kept."""
        return len(self._events)

    @property
    def size(self) -> int:
        """The bytes of the events that are kept."""
        return self._bytes

    def append(self, bodies: Iterable[EventBody]) -> None:
        """Add events, and drop the oldest ones if there are too many."""
        for body in bodies:
            self.newest += 1
            namespace = body.namespace if isinstance(body, RemediationChanged) else ""
            event_type = EVENT_TYPES[type(body)]
            encoded = _encode(self._id(self.newest), event_type, body)
            self._events.append(StoredEvent(self.newest, event_type, namespace, encoded))
            self._bytes += len(encoded)
        while self._events and (
            len(self._events) > self._max_events or self._bytes > self._max_bytes
        ):
            self._bytes -= len(self._events.popleft().encoded)

    def forget(self) -> None:
        """Begin again: what has happened since the last event was not recorded."""
        self._events.clear()
        self._bytes = 0
        self.newest += 1  # so that nobody can continue after an earlier event

    def position(self, last_event_id: str) -> int | None:
        """Return the number in an id; None if the events after it are not known."""
        start, _, digits = last_event_id.rpartition("-")
        if start != self._start or not (digits.isascii() and digits.isdecimal()):
            return None
        if len(digits) > _MAX_NUMBER_DIGITS:
            return None
        number = int(digits)
        return number if self.covers(number) else None

    def covers(self, number: int) -> bool:
        """Whether all events after this number are kept."""
        return self.newest - len(self._events) <= number <= self.newest

    def slice_after(self, number: int, wanted: EventFilter, max_bytes: int) -> Slice:
        """Return the events after `number` that a client wants: about `max_bytes` at most.

        The history must cover the number.
        """
        parts: list[bytes] = []
        size = 0
        last = number
        first = self.newest - len(self._events) + 1
        for index in range(number + 1 - first, len(self._events)):
            event = self._events[index]
            if wanted.accept(event):
                if parts and size + len(event.encoded) > max_bytes:
                    break
                parts.append(event.encoded)
                size += len(event.encoded)
            last = event.number
        return Slice(b"".join(parts), last)

    def greeting(self, retry_milliseconds: int) -> bytes:
        """Encode what a new client needs to reconnect: an id, and how long to wait.

        Without data, this is no event for the client.
        """
        return f"retry: {retry_milliseconds}\nid: {self._id(self.newest)}\n\n".encode()

    def reset(self) -> bytes:
        """Encode the event for a client that missed events."""
        return _encode(self._id(self.newest), EventType.RESET, Reset(reason=_MISSED))

    def _id(self, number: int) -> str:
        return f"{self._start}-{number}"


def _encode(event_id: str, event_type: EventType, body: EventBody) -> bytes:
    """Encode an event; its JSON has no line breaks."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event_id.encode(),
        event_type.value.encode(),
        encode(body),
    )

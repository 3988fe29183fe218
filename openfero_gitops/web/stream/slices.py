"""Remembers encoded events for the clients that are at the same position.

Position and filter are chosen by the clients, so only a bounded part is kept: what was used last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openfero_gitops.web.stream.history import EventFilter, EventHistory, Slice

#: Of events, at once.
MAX_SLICE_BYTES: Final = 16 * 1024
#: Enough for a few dozen filters at the newest position, or one at all positions.
MAX_CACHED_BYTES: Final = 1024 * 1024
#: Of memory for an entry, besides its events and the namespaces of its filter.
_ENTRY_BYTES: Final = 1024


class SliceCache:
    """The slices of a history that were used last."""

    def __init__(self, history: EventHistory, *, max_bytes: int = MAX_CACHED_BYTES) -> None:
        """Keep slices of a history, of about `max_bytes` in all."""
        self._history = history
        self._max_bytes = max_bytes
        #: By position and filter; the one used last is last.
        self._slices: dict[tuple[int, EventFilter], Slice] = {}
        #: About the memory that the slices need.
        self.size = 0

    def slice_after(self, position: int, wanted: EventFilter) -> Slice:
        """Return the next events for a client; see `EventHistory.slice_after`."""
        key = (position, wanted)
        cached = self._slices.pop(key, None)
        if cached is None:
            cached = self._history.slice_after(position, wanted, MAX_SLICE_BYTES)
            self.size += _size(wanted, cached)
        self._slices[key] = cached
        while self.size > self._max_bytes:
            oldest = next(iter(self._slices))
            self.size -= _size(oldest[1], self._slices.pop(oldest))
        return cached

    def clear(self) -> None:
        """Forget all slices: new events belong to them."""
        self._slices.clear()
        self.size = 0


def _size(wanted: EventFilter, events: Slice) -> int:
    return _ENTRY_BYTES + sum(map(len, wanted.namespaces)) + len(events.encoded)

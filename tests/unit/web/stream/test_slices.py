from __future__ import annotations

from openfero_gitops.web.stream.history import EventFilter, EventHistory
from openfero_gitops.web.stream.slices import SliceCache
from tests.support.events import body

EVERYTHING = EventFilter()


def history(events: int = 100) -> EventHistory:
    """Make a history of events of about 1 KiB."""
    history = EventHistory("s1")
    history.append(body(f"job-{number}", reason="x" * 900) for number in range(events))
    return history


def namespace(name: str) -> EventFilter:
    """Make a filter for one namespace."""
    return EventFilter(namespaces=frozenset({name}))


def test_clients_at_the_same_position_share_a_slice() -> None:
    """A slice is encoded once, until there are new events."""
    events = history()
    slices = SliceCache(events)
    first = slices.slice_after(0, EVERYTHING)
    assert slices.slice_after(0, EventFilter()) is first
    assert slices.slice_after(first.last, EVERYTHING).encoded != first.encoded
    events.append([body("new")])
    slices.clear()
    assert slices.size == 0
    assert slices.slice_after(100, EVERYTHING).last == 101


def test_what_clients_choose_does_not_add_up() -> None:
    """Many filters and positions need no more memory than few; what is used often is kept."""
    slices = SliceCache(history(), max_bytes=100_000)
    newest = slices.slice_after(99, EVERYTHING)
    for number in range(500):
        wanted = namespace(f"namespace-{number}" * 20)
        position = number % 100
        assert slices.slice_after(position, wanted).last > position
        assert slices.slice_after(number % 90, EVERYTHING).last > number % 90
        assert slices.size <= 100_000
        assert slices.slice_after(99, EVERYTHING) is newest


def test_a_slice_larger_than_the_cache() -> None:
    """Events are returned also if nothing can be kept."""
    slices = SliceCache(history(), max_bytes=0)
    assert slices.slice_after(0, EVERYTHING).last > 0
    assert slices.size == 0

from __future__ import annotations

import json
from typing import Any

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.stream.history import EventFilter, EventHistory
from openfero_gitops.web.stream.models import (
    EventType,
    LeadershipChanged,
    PauseChanged,
    RemediationChanged,
    Reset,
)

ALL = EventFilter()
LARGE = 1_000_000


def remediation(namespace: str = "shop", job: str = "job", **members: Any) -> RemediationChanged:
    """Make the data of an event."""
    default = RemediationChanged(
        namespace=namespace,
        job=job,
        phase=Phase.RUNNING,
        reason="",
        effect=None,
        alert="HostDown",
        status=Status.FIRING,
        operario="heal",
    )
    return default.model_copy(update=members)


def read(encoded: bytes) -> list[dict[str, str]]:
    """Decode events as a client does."""
    return [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in encoded.decode().split("\n\n")
        if block
    ]


def after(history: EventHistory, number: int, wanted: EventFilter = ALL) -> list[dict[str, str]]:
    """Return the events after a number."""
    return read(history.slice_after(number, wanted, LARGE).encoded)


def test_no_event_is_continued_after_a_gap() -> None:
    """After what was not recorded, no earlier id is known any more, but the new one is."""
    history = EventHistory("s1")
    history.append([remediation(), remediation()])
    history.forget()
    assert [history.position(f"s1-{number}") for number in range(4)] == [None, None, None, 3]
    assert (len(history), history.size) == (0, 0)
    history.append([remediation(job="next")])
    assert [event["id"] for event in after(history, 3)] == ["s1-4"]


def test_an_event_has_an_id_a_type_and_json() -> None:
    """An event is encoded with its id, its type and its data on one line."""
    history = EventHistory("s1")
    history.append([remediation(alert="a\nb\u2028"), PauseChanged(paused=False)])
    first, second = after(history, 0)
    assert (first["id"], first["event"]) == ("s1-1", "remediation")
    assert json.loads(first["data"])["alert"] == "a\nb\u2028"
    assert (second["id"], second["event"]) == ("s1-2", "pause")


def test_the_events_after_an_id() -> None:
    """The id of an event leads to the events after it, and the newest id to none."""
    history = EventHistory("s1")
    history.append(remediation(job=f"job-{number}") for number in range(1, 4))
    position = history.position("s1-1")
    assert position is not None
    assert [event["id"] for event in after(history, position)] == ["s1-2", "s1-3"]
    newest = history.position("s1-3")
    assert newest is not None
    assert after(history, newest) == []


@pytest.mark.parametrize(
    "event_id",
    ["s2-3", "s1-4", "s1-", "s1", "", "3", "s1--1", "s1-1x", "s1-٣", "s1-" + "9" * 5000, "x-s1-3"],
)
def test_unknown_ids(event_id: str) -> None:
    """The id of another replica, of the future, or no id at all has no position."""
    history = EventHistory("s1")
    history.append(remediation() for _ in range(3))
    assert history.position(event_id) is None


def test_old_events_are_forgotten() -> None:
    """The history keeps a number of events; an id that is too old has no position."""
    history = EventHistory("s1", max_events=3)
    history.append(remediation() for _ in range(10))
    assert len(history) == 3
    assert history.position("s1-6") is None
    assert history.position("s1-7") == 7
    assert [event["id"] for event in after(history, 7)] == ["s1-8", "s1-9", "s1-10"]


def test_the_history_is_bounded_in_bytes() -> None:
    """The history keeps a number of bytes, even if that is less than one event."""
    history = EventHistory("s1", max_bytes=1000)
    history.append(remediation(job="x" * 100) for _ in range(100))
    assert 0 < history.size <= 1000
    history.append([remediation(job="x" * 2000)])
    assert (len(history), history.size) == (0, 0)
    assert history.position("s1-101") == 101


def test_slices() -> None:
    """Many events come in slices of a bounded size, each with where to continue."""
    history = EventHistory("s1")
    history.append(remediation() for _ in range(10))
    size = len(history.slice_after(9, ALL, LARGE).encoded)
    ids, position, slices = [], 0, 0
    while position < history.newest:
        part = history.slice_after(position, ALL, 3 * size)
        assert len(part.encoded) <= 3 * size
        ids += [event["id"] for event in read(part.encoded)]
        position = part.last
        slices += 1
    assert ids == [f"s1-{number}" for number in range(1, 11)]
    assert slices >= 4


def test_a_slice_has_at_least_one_event() -> None:
    """An event that is larger than a slice is sent alone."""
    history = EventHistory("s1")
    history.append([remediation(), remediation()])
    part = history.slice_after(0, ALL, 1)
    assert [event["id"] for event in read(part.encoded)] == ["s1-1"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (EventFilter(), [1, 2, 3, 4]),
        (EventFilter(types=frozenset({EventType.REMEDIATION})), [1, 2, 4]),
        (EventFilter(types=frozenset({EventType.LEADERSHIP})), [3, 4]),
        (EventFilter(namespaces=frozenset({"shop"})), [1, 3, 4]),
        (EventFilter(frozenset({EventType.REMEDIATION}), frozenset({"bank"})), [2, 4]),
    ],
)
def test_filters(wanted: EventFilter, expected: list[int]) -> None:
    """A filter selects types and namespaces; a reset is always sent, and nothing is read twice."""
    history = EventHistory("s1")
    history.append(
        [
            remediation("shop"),
            remediation("bank"),
            LeadershipChanged(holder="b", leader=False),
            Reset(reason="too many"),
        ]
    )
    assert [event["id"] for event in after(history, 0, wanted)] == [f"s1-{n}" for n in expected]
    assert history.slice_after(0, wanted, LARGE).last == 4


def test_a_greeting_is_no_event() -> None:
    """A new client gets an id to continue after and how long to wait, but no data."""
    history = EventHistory("s1")
    history.append([remediation()])
    assert read(history.greeting(3000)) == [{"retry": "3000", "id": "s1-1"}]


def test_a_reset_continues_after_the_newest_event() -> None:
    """The event for a client that missed events has the newest id, and says what to do."""
    history = EventHistory("s1")
    history.append([remediation()])
    (event,) = read(history.reset())
    assert (event["id"], event["event"]) == ("s1-1", "reset")
    assert json.loads(event["data"]).keys() == {"reason"}

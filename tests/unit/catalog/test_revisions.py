"""When which revision was active."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.revisions import Activation, RevisionHistory
from tests.support.build import NOW, minutes

TOLERANCE = minutes(2)
LATER = NOW + minutes(10_000)


def history(*entries: tuple[str, float]) -> RevisionHistory:
    """Return a record of commits, each active since a number of minutes after `NOW`."""
    record = RevisionHistory()
    for commit, begins in entries:
        record = record.activate(commit, NOW + minutes(begins), TOLERANCE)
    return record


@pytest.mark.parametrize(
    ("commit", "at", "active"),
    [
        ("a", -1, True),  # another replica was ahead of the leader
        ("a", 0, True),
        ("a", 12, True),  # and one was behind
        ("a", 13, False),
        ("b", 7, False),
        ("b", 8, True),
        ("b", 500, True),
        ("c", 500, False),
        ("c", 502, None),  # the leader may not have it yet
        ("c", 8, False),
        ("c", 1, None),  # what came before is not recorded, and a replica may still have had it
        ("a", -3, None),
        ("b", -3, None),
        ("c", 3, False),
    ],
)
def test_a_commit_was_active_from_its_activation_to_the_next(
    commit: str,
    at: float,
    active: bool | None,  # noqa: FBT001
) -> None:
    """Two minutes earlier and later count, and before the record nothing is known."""
    record = history(("a", 0), ("b", 10))
    assert record.was_active(commit, NOW + minutes(at), NOW + minutes(503)) is active


def test_without_a_record_nothing_is_known() -> None:
    """Neither that a commit was active nor that it was not."""
    assert RevisionHistory().was_active("a", NOW, LATER) is None
    assert RevisionHistory().at(NOW) == ""


def test_a_commit_may_become_active_again() -> None:
    """As after a revert of the branch: each of its times counts."""
    record = history(("a", 0), ("b", 10), ("a", 20))
    assert [record.was_active("a", NOW + minutes(at), LATER) for at in (5, 15, 30)] == [
        True,
        False,
        True,
    ]
    assert [record.at(NOW + minutes(at)) for at in (-1, 5, 15, 30)] == ["", "a", "b", "a"]


def test_the_active_commit_is_recorded_once() -> None:
    """Also by a new leader, which activated it at another time, or an older one before."""
    record = history(("a", 0), ("b", 10))
    assert record.activate("b", NOW + minutes(30), TOLERANCE) is record
    lagging = record.activate("a", NOW, TOLERANCE)
    assert lagging.activations[-1] == Activation("a", NOW + minutes(10))
    wider = record.activate("b", NOW, minutes(9))
    assert (wider.activations, wider.tolerance) == (record.activations, minutes(9))


def test_the_record_is_bounded() -> None:
    """The newest five hundred activations are kept."""
    record = history(*((f"{n}", float(n)) for n in range(700)))
    assert [entry.commit for entry in record.activations] == [f"{n}" for n in range(200, 700)]
    assert record.was_active("150", NOW + minutes(150), LATER) is None
    assert record.was_active("150", NOW + minutes(400), LATER) is False


@given(st.lists(st.tuples(st.text(), st.floats(0, 1e6)), max_size=5))
def test_it_is_read_as_it_was_written(entries: Any) -> None:
    """A record survives JSON."""
    record = history(*entries)
    assert RevisionHistory.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        {"activations": [], "toleranceSeconds": -1},
        {"activations": [], "toleranceSeconds": 1.5},
        {"activations": [], "toleranceSeconds": 1 << 70},
        {"activations": [["a"]], "toleranceSeconds": 1},
        {"activations": [[1, "2026-11-21T03:04:05Z"]], "toleranceSeconds": 1},
        {"activations": [["a", "soon"]], "toleranceSeconds": 1},
        {"activations": {"a": 1}, "toleranceSeconds": 1},
        {"activations": 5, "toleranceSeconds": 1},
    ],
)
def test_a_damaged_record_is_an_error(value: Any) -> None:
    """Whatever somebody wrote there."""
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        RevisionHistory.from_json(value)


def test_a_tolerance_is_stored_in_seconds() -> None:
    """Fractions of a second do not count."""
    record = RevisionHistory().activate("a", NOW, timedelta(seconds=90.7))
    assert record.to_json()["toleranceSeconds"] == 90


def test_who_made_a_revision_is_recorded_with_it() -> None:
    """Author and signer survive being written, and are cut if they are long."""
    record = RevisionHistory().activate("a", NOW, TOLERANCE, "Ada", "key " + "k" * 500)

    read = RevisionHistory.from_json(record.to_json())

    assert read == record
    [entry] = read.activations
    assert entry.author == "Ada"
    assert entry.signer.endswith("k…")


@pytest.mark.parametrize("people", [None, [], {"b": ["Eve", ""]}])
def test_a_record_of_an_earlier_version_names_nobody(people: Any) -> None:
    """The commits and times are still read."""
    value = history(("a", 0)).to_json()
    value["people"] = people

    [entry] = RevisionHistory.from_json(value).activations

    assert (entry.commit, entry.author, entry.signer) == ("a", "", "")


def test_a_damaged_name_is_an_error() -> None:
    """A name that is no text is not shown."""
    value = history(("a", 0)).to_json()
    value["people"] = {"a": [5, ""]}

    with pytest.raises(TypeError):
        RevisionHistory.from_json(value)

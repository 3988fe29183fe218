"""Differences between two Jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.jobs.compare import FieldDifference, compare

if TYPE_CHECKING:
    from openfero_gitops.domain.rule import Pointer


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [(("a",), 1, 2)]),
        ({"a": 1}, {}, [(("a",), 1, None)]),
        ({}, {"a": {"b": 1}}, [(("a",), None, {"b": 1})]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [(("a", "c"), 2, 3)]),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, [(("a", 1, "b"), 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [(("a",), [1], [1, 2])]),
        ({"a": 1}, {"a": True}, [(("a",), 1, True)]),
        ({"a": None}, {}, []),
    ],
)
def test_fields_that_differ(
    before: Any, after: Any, expected: list[tuple[Pointer, Any, Any]]
) -> None:
    """Mappings are compared by key, and lists of the same length by index."""
    differences = compare(before, after)
    assert [
        (difference.pointer, difference.before, difference.after) for difference in differences
    ] == expected


def test_a_limited_depth() -> None:
    """From the given depth on, values are compared as a whole."""
    before, after = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "d": 3}
    assert list(compare(before, after, max_depth=1)) == [
        FieldDifference(("a",), before["a"], after["a"])
    ]


def test_an_equality_of_ones_own() -> None:
    """The caller decides which values are equal, and sees where they are."""
    places = []

    def is_equal(pointer: Pointer, before: Any, after: Any) -> bool:
        places.append(pointer)
        return str(before) == str(after)

    assert not list(compare({"a": 1, "b": [2]}, {"a": "1", "b": ["2"]}, is_equal=is_equal))
    assert places == [("a",), ("b", 0)]

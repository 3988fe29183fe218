"""Short texts are read once, long ones each time."""

from __future__ import annotations

import pytest

from openfero_gitops.domain.memo import remembered


@pytest.mark.parametrize(("text", "times"), [("", 1), ("12345678", 1), ("123456789", 2)])
def test_only_what_is_short_is_remembered(text: str, times: int) -> None:
    """The longest counts as short."""
    asked: list[tuple[str, int]] = []

    @remembered(most=2, longest=8)
    def read(text: str, number: int) -> str:
        asked.append((text, number))
        return text * number

    assert [read(text, 2), read(text, 2)] == [text * 2] * 2
    assert len(asked) == times
    assert read(text, 3) == text * 3


def test_no_more_than_the_last_are_remembered() -> None:
    """What was not asked for longest is read anew."""
    asked: list[str] = []

    @remembered(most=2, longest=8)
    def read(text: str) -> str:
        asked.append(text)
        return text

    for text in "abcab":
        read(text)
    read("b")
    assert asked == ["a", "b", "c", "a", "b"]


def test_what_cannot_be_read_is_an_error_each_time() -> None:
    """Nothing is remembered of it."""

    @remembered(most=2, longest=8)
    def read(text: str) -> int:
        return int(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            read("x")

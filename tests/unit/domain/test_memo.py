"""Results for short texts are cached, those for long texts are not."""

from __future__ import annotations

import pytest

from openfero_gitops.domain.memo import cache_short_texts


@pytest.mark.parametrize(("text", "count"), [("", 1), ("12345678", 1), ("123456789", 2)])
def test_only_short_texts_are_cached(text: str, count: int) -> None:
    """A text of exactly the maximum length is cached."""
    calls: list[tuple[str, int]] = []

    @cache_short_texts(max_entries=2, max_characters=8)
    def repeat(text: str, number: int) -> str:
        calls.append((text, number))
        return text * number

    assert [repeat(text, 2), repeat(text, 2)] == [text * 2] * 2
    assert len(calls) == count
    assert repeat(text, 3) == text * 3


def test_the_number_of_cached_texts_is_bounded() -> None:
    """The least recently used text is computed again."""
    calls: list[str] = []

    @cache_short_texts(max_entries=2, max_characters=8)
    def read(text: str) -> str:
        calls.append(text)
        return text

    for text in "abcab":
        read(text)
    read("b")
    assert calls == ["a", "b", "c", "a", "b"]


def test_errors_are_not_cached() -> None:
    """An invalid text raises each time."""

    @cache_short_texts(max_entries=2, max_characters=8)
    def read(text: str) -> int:
        return int(text)

    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            read("x")

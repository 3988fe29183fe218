from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.bench import fuzz

if TYPE_CHECKING:
    import pytest


def test_files_and_payloads_that_nobody_wrote_with_care() -> None:
    """2,000 generated files and payloads are judged without an accident, and in bounded memory."""
    assert fuzz.run(seed=1, first=0, count=2000) == []
    assert fuzz.peak() < fuzz.MEMORY


def test_the_same_seed_makes_the_same_cases() -> None:
    """A failure that was found can be looked at again."""
    some = [fuzz.content(7, number) for number in range(100)]
    assert some == [fuzz.content(7, number) for number in range(100)]
    assert some != [fuzz.content(8, number) for number in range(100)]


def test_an_accident_and_a_hang_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that raises, and one that does not end, are failures with their numbers."""
    given = [fuzz.content(7, number)[1] for number in range(3)]

    def judge(_: str, content: bytes) -> None:
        if content == given[1]:
            raise ZeroDivisionError
        if content == given[2]:
            time.sleep(600)

    monkeypatch.setattr(fuzz, "judge", judge)
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    raised, hung = fuzz.run(seed=7, first=0, count=3)
    assert (raised.number, hung.number) == (1, 2)
    assert "ZeroDivisionError" in raised.trace
    assert "more than 1 s" in hung.trace

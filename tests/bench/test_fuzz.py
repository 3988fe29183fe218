from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import fuzz
from tests.support.depth import scaled

if TYPE_CHECKING:
    import pytest


def test_generated_files_and_payloads() -> None:
    """Generated files and payloads are judged without a failure, in bounded memory."""
    with fuzz.workers(1) as pool:
        failures, memory = pool.submit(fuzz.measured, seed=1, first=0, count=scaled(200)).result()
    assert failures == []
    assert memory < fuzz.MEMORY


def test_memory_of_a_case_is_measured() -> None:
    """The peak memory of a worker includes its own memory and that of no other process."""
    ours = bytearray(fuzz.MEMORY)
    with fuzz.workers(1) as pool:
        before = pool.submit(fuzz.peak).result()
        assert pool.submit(len, ours).result() == fuzz.MEMORY
        after = pool.submit(fuzz.peak).result()
    assert before < fuzz.MEMORY < after


def test_the_same_seed_makes_the_same_cases() -> None:
    """A failing case can be reproduced from its seed."""
    cases = [fuzz.content(7, number) for number in range(100)]
    assert cases == [fuzz.content(7, number) for number in range(100)]
    assert cases != [fuzz.content(8, number) for number in range(100)]


def test_an_exception_and_a_hang_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that raises and a case that does not end are failures with their numbers."""
    cases = [fuzz.content(7, number)[1] for number in range(3)]

    def judge(_: str, content: bytes) -> None:
        if content == cases[1]:
            raise ZeroDivisionError
        if content == cases[2]:
            while True:
                pass

    monkeypatch.setattr(fuzz, "judge", judge)
    monkeypatch.setattr(fuzz, "MAX_CASE_SECONDS", 0.2)
    raised, hung = fuzz.run(seed=7, first=0, count=3)
    assert (raised.number, hung.number) == (1, 2)
    assert "ZeroDivisionError" in raised.trace
    assert "more than 0.2 s" in hung.trace

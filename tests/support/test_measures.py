"""What processes use, and how values are summarized."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import measures
from tests.support.measures import (
    mib,
    peak_mib,
    process_status,
    processor_seconds,
    quantile,
    resident_mib,
    until_idle,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.75, 4.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_a_quantile_is_one_of_the_values(share: float, value: float) -> None:
    """It is the value that this share of the values is at most."""
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == value


def test_memory_is_read_from_the_kernel() -> None:
    """The peak is at least what is resident, and sizes are converted to MiB."""
    assert 1 < resident_mib(os.getpid()) <= peak_mib(os.getpid())
    assert mib("2048 kB") == 2.0
    assert process_status(os.getpid())["Pid"] == str(os.getpid())


def test_children_count_only_where_they_are_wanted() -> None:
    """The processor time of ended children is added, or not."""
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert processor_seconds(os.getpid(), children=False) < processor_seconds(os.getpid())


async def test_it_waits_until_all_processes_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that uses its processor is waited for; one that is gone uses none."""
    used: Iterator[float] = iter((0.0, 1.0, 1.0, 1.5, 1.5, 1.5))
    seen = []

    def seconds(_: int) -> float:
        seen.append(next(used))
        return seen[-1]

    monkeypatch.setattr(measures, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(measures, "processor_seconds", seconds)
    await until_idle([1])
    assert seen == [0.0, 1.0, 1.0, 1.5, 1.5, 1.5]

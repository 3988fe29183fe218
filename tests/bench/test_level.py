"""The soak's verdict detects growth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.level import Held, verdict
from tests.bench.soak import Sample, judged

WARM = Sample(minute=5, memory=100.0, files=17, threads=4, children=0)


@pytest.mark.parametrize(
    ("end", "grown"),
    [
        (replace(WARM, minute=30), set()),
        (replace(WARM, memory=104.9, files=27), set()),
        (replace(WARM, memory=105.2), {"memory, MiB"}),
        (replace(WARM, files=28), {"file descriptors"}),
        (replace(WARM, threads=7, children=2), {"threads", "child processes"}),
    ],
)
def test_growth_is_reported(end: Sample, grown: set[str]) -> None:
    """Exactly the figures above their margins are reported as grown."""
    assert {figure.name for figure in judged(WARM, end) if not figure.is_level} == grown


def test_a_verdict_shows_both_moments_their_ratio_and_the_limit() -> None:
    """The verdict shows both moments, their ratio and the limit."""
    text = verdict(
        [Held("threads", 4, 8, 6, "+ 2"), Held("children", 0, 0, 0, "no more")], "a", "b"
    )
    header, _, threads, children, _, conclusion = text.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:4]] == ["held", "a", "b"]
    cells = [cell.strip() for cell in threads.split("|")[1:-1]]
    assert cells == ["threads", "4", "8", "2.000", "6 (+ 2)", "NO"]
    assert children.split("|")[4].strip() == ""
    assert conclusion == "Grown: threads."

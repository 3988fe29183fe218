"""Many seeds at once, each in its own process, and what they amount to."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.simulation.simulate import Report, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_AT_ONCE = 10  # seeds that a process takes with it


def play(seeds: Sequence[int], processes: int) -> Iterator[Report]:
    """Play seeds on so many processes; reports come in order."""
    if processes == 1:
        yield from map(simulate, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        yield from pool.map(simulate, seeds, chunksize=_AT_ONCE)


def table(reports: Iterable[Report]) -> str:
    """What was injected and what came of it, in sum."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    width = max(map(len, counts), default=0)
    return "\n".join(f"{name:{width}} {count:9,}" for name, count in sorted(counts.items()))

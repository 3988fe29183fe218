"""Run the controller under a profiler, and write the profile when it ends.

`python -m tests.bench.profiled KIND FILE ARGUMENTS…` with KIND `calls` (cProfile; read FILE with
`python -m pstats` or snakeviz) or `memory` (tracemalloc: what is allocated at the end, by line).
Both slow the controller down: the shares count, not the figures. py-spy needs no such wrapper.
"""

from __future__ import annotations

import cProfile
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from openfero_gitops.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LINES = 100


def _calls(file: Path, arguments: Sequence[str]) -> int:
    profile = cProfile.Profile()
    try:
        return profile.runcall(main, [*arguments])
    finally:
        profile.dump_stats(file)


def _memory(file: Path, arguments: Sequence[str]) -> int:
    tracemalloc.start(5)
    try:
        return main([*arguments])
    finally:
        snapshot = tracemalloc.take_snapshot()
        lines = snapshot.statistics("lineno")[:_LINES]
        file.write_text("".join(f"{line}\n" for line in lines))


KINDS: dict[str, Callable[[Path, Sequence[str]], int]] = {"calls": _calls, "memory": _memory}

if __name__ == "__main__":
    _kind, _file, *_arguments = sys.argv[1:]
    sys.exit(KINDS[_kind](Path(_file), _arguments))

"""`validate` as users run it, compared with reading and parsing the same files.

Every figure is of a complete process, from the shell to its exit; the plain work runs
in turn with it, so that a slow machine slows both.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from openfero_gitops.author.report import FORMATS
from tests.bench.git import bare_first
from tests.support.fleet import Fleet, operarios

SMALL, LARGE = 50, 10_000
ROUNDS = {SMALL: 9, LARGE: 3}
# The minimum for any tool: start Python, load a parser, read and parse every file.
BARE = """\
import pathlib, sys, yaml
for file in pathlib.Path(sys.argv[1]).rglob("*.yaml"):
    list(yaml.load_all(file.read_bytes(), yaml.CSafeLoader))
"""


def main() -> None:
    """Run the benchmark and print its table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        files = operarios(SMALL)
        for path, content in files.items():
            (folder / "small" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "small" / path).write_bytes(content)
        fleet = Fleet(folder / "origin.git")
        fleet.commit(operarios(LARGE))
        fleet.publish(fleet.write()[0])
        print("validate: whole processes; medians, s")
        print(f"{'':>24} {'ours':>7} {'bare':>7} {'ratio':>6} {'goal':>5}")
        for form in FORMATS:
            ours, bare = [], []
            for _ in range(ROUNDS[SMALL]):
                ours.append(_validate(folder / "small", "--format", form))
                bare.append(_run("-c", BARE, folder / "small"))
            _row(f"{SMALL} files, {form}", ours, bare, "python, CSafeLoader", None)
        ours, bare = [], []
        for number in range(ROUNDS[LARGE]):
            ours.append(_validate(fleet.url))
            clone = folder / f"clone-{number}"
            bare.append(bare_first(fleet.url, clone))
            shutil.rmtree(clone)
        _row(f"{LARGE} files by URL", ours, bare, "git clone, CSafeLoader", 4)


def _validate(source: Path | str, *options: str) -> float:
    return _run("-m", "openfero_gitops", "validate", source, *options)


def _run(*arguments: str | Path) -> float:
    """Run Python to its end; return the seconds that it took."""
    argv = [sys.executable, *map(str, arguments)]
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _row(name: str, ours: list[float], bare: list[float], note: str, goal: int | None) -> None:
    ours_s, bare_s = statistics.median(ours), statistics.median(bare)
    shown = f"{goal}" if goal else "-"
    print(f"{name:>24} {ours_s:>7.2f} {bare_s:>7.2f} {ours_s / bare_s:>6.2f} {shown:>5}  {note}")

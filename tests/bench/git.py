"""From Git to the active catalog, compared with plain git for the same bytes.

Each of our figures is of a complete sync, from querying the server to activating the catalog;
the plain command runs in turn with it, so that a slow machine slows both.
The last ratio is that of CPU time, children included: other load hardly affects it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.fleet import Fleet, operarios
from tests.support.measures import peak_mib

if TYPE_CHECKING:
    from collections.abc import Callable

OPERARIOS = 10_000
FIRST = 3  # rounds of first syncs
ROUNDS = 15
MAX_PEAK_MIB = 250
SCOPE = Scope("openfero-jobs", ())


class Uncounted:
    """Metrics of syncs that are ignored."""

    def synced(self, status: object) -> None:
        """Ignore a sync."""


def syncer_of(source: GitSource) -> Syncer:
    """Return the syncer that keeps the catalog, built like `serve` builds it."""
    return Syncer(
        source=source,
        scope=SCOPE,
        counts=Uncounted(),
        now=lambda: datetime.now(UTC),
        clock=time.monotonic,
    )


async def first_sync(url: str, cache: Path) -> None:
    """Sync once in a separate process with all modules of `serve`, and print the result."""
    import openfero_gitops.app  # noqa: F401, PLC0415 - it counts for the memory

    source = GitSource(GitSettings(url=url, cache_dir=cache))
    syncer = syncer_of(source)
    cost = await _synced(syncer)
    await source.aclose()
    assert syncer.catalog is not None
    assert len(syncer.catalog.operarios) == OPERARIOS
    print(json.dumps([cost.wall, cost.cpu, peak_mib(os.getpid())]))


def bare_clone(url: str, folder: Path) -> None:
    """Clone the followed branch only: the one beside it holds the later commits."""
    _git("clone", "--quiet", "--bare", "--single-branch", "--branch=main", url, str(folder))


def bare_first(url: str, folder: Path) -> None:
    """Clone, read every file and parse it, without openfero-gitops."""
    bare_clone(url, folder)
    listed = _git("-C", str(folder), "ls-tree", "-r", "-z", "HEAD").split(b"\0")[:-1]
    ids = b"".join(line.split()[2] + b"\n" for line in listed)
    read = _git("-C", str(folder), "cat-file", "--batch", "--buffer", stdin=ids)
    at = 0
    while at < len(read):
        end = read.index(b"\n", at)
        size = int(read[at:end].split()[2])
        for _ in yaml.load_all(read[end + 1 : end + 1 + size], yaml.CSafeLoader):
            pass
        at = end + 1 + size + 1


def _git(*arguments: str, stdin: bytes = b"") -> bytes:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *arguments], env=environment, input=stdin, stdout=subprocess.PIPE, check=True
    ).stdout


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and CPU seconds of this process and its children."""

    wall: float
    cpu: float


class Meter:
    """Measures from its construction on; children count once they have been waited for."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = self._taken()

    def read(self) -> Cost:
        """Return the cost so far."""
        return Cost(time.perf_counter() - self._wall, self._taken() - self._cpu)

    @staticmethod
    def _taken() -> float:
        targets = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, targets))


def ran(action: Callable[[], object]) -> Cost:
    """Return what an action has cost."""
    meter = Meter()
    action()
    return meter.read()


async def _synced(syncer: Syncer) -> Cost:
    meter = Meter()
    await syncer.sync()
    cost = meter.read()
    assert syncer.status.error is None, syncer.status.error
    return cost


def _row(name: str, ours: list[Cost], bare: list[Cost], note: str, goal: int) -> None:
    ours_s, bare_s = (statistics.median(cost.wall for cost in many) for many in (ours, bare))
    work, least = (statistics.median(cost.cpu for cost in many) for many in (ours, bare))
    print(
        f"{name:>16} {ours_s * 1000:>9.1f} {bare_s * 1000:>9.1f} {ours_s / bare_s:>6.2f} {goal:>5}"
        f" {work / least:>6.2f}  {note}"
    )


async def _changes(fleet: Fleet, folder: Path, commits: list[str]) -> None:
    """Measure an unchanged ref, and then commits of one file each."""
    clone = folder / "clone.git"
    bare_clone(fleet.url, clone)
    source = GitSource(GitSettings(url=fleet.url, cache_dir=folder / "cache", ref="main"))
    syncer = syncer_of(source)
    await syncer.sync()
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(await _synced(syncer))
        bare.append(ran(lambda: _git("ls-remote", fleet.url, "refs/heads/main")))
    _row("unchanged ref", ours, bare, "git ls-remote", 2)
    ours, bare = [], []
    for commit in commits:
        fleet.publish(commit)
        ours.append(await _synced(syncer))
        bare.append(ran(lambda: _git("-C", str(clone), "fetch", "--quiet", "origin", "main:main")))
        assert syncer.catalog is not None
        assert syncer.catalog.revision.commit == commit
    _row("one file changed", ours, bare, "git fetch", 5)
    await source.aclose()


def main() -> None:
    """Run the benchmark and print its table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        fleet = Fleet(folder / "origin.git")
        files = operarios(OPERARIOS)
        fleet.commit(files)
        path = sorted(files)[OPERARIOS // 2]
        for number in range(ROUNDS):
            fleet.commit({path: files[path] + b"# %d\n" % number})
        first, *later = fleet.write()
        fleet.publish(first)
        size = sum(map(len, files.values())) / 1e6
        print(f"git: {OPERARIOS} operarios, {size:.0f} MB of YAML, read over file://; medians, ms")
        print(f"{'':>16} {'ours':>9} {'git':>9} {'ratio':>6} {'goal':>5} {'CPU':>6}")
        ours, bare, peaks = [], [], []
        for number in range(FIRST):
            cache = folder / f"cache-{number}"
            argv = [sys.executable, "-m", "tests.bench.git", fleet.url, str(cache)]
            finished = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
            wall, cpu, peak = json.loads(finished.splitlines()[-1])
            ours.append(Cost(wall, cpu))
            peaks.append(peak)
            clone = folder / f"bare-{number}.git"
            bare.append(ran(lambda clone=clone: bare_first(fleet.url, clone)))
            shutil.rmtree(cache)
        _row("first sync", ours, bare, "git clone, cat-file --batch, CSafeLoader", 2)
        asyncio.run(_changes(fleet, folder, later))
        print(
            f"peak memory: {max(peaks):.0f} MiB with all modules of serve; goal {MAX_PEAK_MIB} MiB"
        )


if __name__ == "__main__":
    asyncio.run(first_sync(sys.argv[1], Path(sys.argv[2])))

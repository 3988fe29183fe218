"""From Git to the catalog in force, beside what git alone takes for the same bytes.

Every figure of ours is of a whole sync, from asking the server to the swap of the catalog; beside
it stands the bare command, run in turn with it, so that a machine that slows down slows both.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from openfero_gitops.adapters.git import GitSettings, GitSource
from openfero_gitops.pipeline.catalog import Scope
from openfero_gitops.workers.sync import Syncer
from tests.support.fleet import Fleet, operarios

if TYPE_CHECKING:
    from collections.abc import Callable

OPERARIOS = 10_000
FIRST = 3  # rounds of first syncs
ROUNDS = 15
MEMORY = 250  # MB
SCOPE = Scope("openfero-jobs", ())


class Uncounted:
    """Counts of syncs that nobody reads."""

    def synced(self, status: object) -> None:
        """Drop it."""


def syncer_of(source: GitSource) -> Syncer:
    """Give what keeps the catalog, as `serve` makes it."""
    return Syncer(
        source=source,
        scope=SCOPE,
        counts=Uncounted(),
        now=lambda: datetime.now(UTC),
        clock=time.monotonic,
    )


def memory() -> tuple[float, float]:
    """Return what this process holds, and the most it held, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(kilobytes["VmRSS"]) / 1024, int(kilobytes["VmHWM"]) / 1024


async def first_sync(url: str, cache: Path) -> None:
    """Sync once in a process of its own, with all that `serve` loads, and print how it went."""
    import openfero_gitops.app  # noqa: F401, PLC0415 - it counts for the memory

    source = GitSource(GitSettings(url=url, cache_dir=cache))
    syncer = syncer_of(source)
    began = time.perf_counter()
    await syncer.sync()
    seconds = time.perf_counter() - began
    await source.aclose()
    assert syncer.catalog is not None
    assert len(syncer.catalog.operarios) == OPERARIOS
    print(json.dumps([seconds, *memory()]))


def bare_first(url: str, folder: Path) -> float:
    """Clone, read every file and parse it, with nothing of ours; return the seconds."""
    began = time.perf_counter()
    _git("clone", "--quiet", "--bare", url, str(folder))
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
    return time.perf_counter() - began


def _git(*arguments: str, stdin: bytes = b"") -> bytes:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *arguments], env=environment, input=stdin, stdout=subprocess.PIPE, check=True
    ).stdout


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


async def _synced(syncer: Syncer) -> float:
    began = time.perf_counter()
    await syncer.sync()
    seconds = time.perf_counter() - began
    assert syncer.status.error is None, syncer.status.error
    return seconds


def _row(name: str, ours: list[float], bare: list[float], what: str, goal: int) -> None:
    mine, theirs = statistics.median(ours), statistics.median(bare)
    print(
        f"{name:>16} {mine * 1000:>9.1f} {theirs * 1000:>9.1f} {mine / theirs:>6.2f} {goal:>5}"
        f"  {what}"
    )


async def _changes(fleet: Fleet, folder: Path, commits: list[str]) -> None:
    """Measure an unchanged ref, and then commits of one file each."""
    clone = folder / "clone.git"
    _git("clone", "--quiet", "--bare", fleet.url, str(clone))
    source = GitSource(GitSettings(url=fleet.url, cache_dir=folder / "cache", ref="main"))
    syncer = syncer_of(source)
    await syncer.sync()
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(await _synced(syncer))
        bare.append(_timed(lambda: _git("ls-remote", fleet.url, "refs/heads/main")))
    _row("unchanged ref", ours, bare, "git ls-remote", 2)
    ours, bare = [], []
    for commit in commits:
        fleet.publish(commit)
        ours.append(await _synced(syncer))
        bare.append(
            _timed(lambda: _git("-C", str(clone), "fetch", "--quiet", "origin", "main:main"))
        )
        assert syncer.catalog is not None
        assert syncer.catalog.revision.commit == commit
    _row("one file changed", ours, bare, "git fetch", 5)
    await source.aclose()


def main() -> None:
    """Print the table."""
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
        print(f"{'':>16} {'ours':>9} {'git':>9} {'ratio':>6} {'goal':>5}")
        ours, bare, peaks = [], [], []
        for number in range(FIRST):
            cache = folder / f"cache-{number}"
            argv = [sys.executable, "-m", "tests.bench.git", fleet.url, str(cache)]
            said = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
            seconds, _, peak = json.loads(said.splitlines()[-1])
            ours.append(seconds)
            peaks.append(peak)
            bare.append(bare_first(fleet.url, folder / f"bare-{number}.git"))
            shutil.rmtree(cache)
        _row("first sync", ours, bare, "git clone, cat-file --batch, CSafeLoader", 2)
        asyncio.run(_changes(fleet, folder, later))
        print(f"memory at the most: {max(peaks):.0f} MB with all that serve loads; goal {MEMORY}")


if __name__ == "__main__":
    asyncio.run(first_sync(sys.argv[1], Path(sys.argv[2])))

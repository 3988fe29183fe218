"""Many syncs in a row against a changing repository: resource use must stay level.

The commits are written in advance by one `git fast-import`; each sync finds the next one published,
or no change. It measures what a process could exhaust within months: descriptors, children,
threads, memory, packs, and the disk, compared with the size of a fresh clone of the same commit.
Memory is reported twice: as the kernel counts it, and as blocks allocated by Python, which are
independent of the allocator.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.bench.git import syncer_of
from tests.bench.level import Held, verdict
from tests.support import record
from tests.support.descendants import descendants, open_files
from tests.support.fleet import Fleet, operarios
from tests.support.measures import resident_mib

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

SYNCS = 10_000
POINTS = 10
OPERARIOS = 200
BLOCKS = 10_000  # tolerated growth of Python's blocks: half a megabyte
PACKS = 51  # then they are consolidated
#: The main thread and asyncio's pool, which starts another when two reads overlap.
THREADS = 1 + min(32, (os.cpu_count() or 1) + 4)
BROKEN = b"apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: [\n"


@dataclass(frozen=True)
class Level:
    """What was held after a number of syncs; memory in MiB, disk in bytes."""

    syncs: int
    seconds: float
    descriptors: int
    children: int
    threads: int
    memory: float
    blocks: int
    packs: int
    loose: int
    disk: int
    clone: int


def edits(count: int, files: Mapping[str, bytes], chance: Random) -> list[dict[str, bytes | None]]:
    """Return each commit's changes: one file changed, added, removed, broken or repaired."""
    held = dict(files)
    made: list[dict[str, bytes | None]] = []
    broken: list[str] = []
    paths = [path for path in files if path != "accounts.yaml"]
    for number in range(count):
        path = chance.choice(paths)
        change: bytes | None = files[path] + b"# %d\n" % number
        kind = chance.random()
        if kind < 0.1:
            change = None if path in held else files[path]
        elif kind < 0.15:
            change = BROKEN + b"# %d\n" % number
            broken.append(path)
        elif broken:
            path = broken.pop()
            change = files[path] + b"# %d\n" % number
        if change is None:
            del held[path]
        else:
            held[path] = change
        made.append({path: change})
    return made


async def levels(folder: Path, syncs: int, points: int, files: int) -> AsyncIterator[Level]:
    """Sync `syncs` times, and yield what is held at `points` moments."""
    chance = Random(7)  # noqa: S311 - the same history each time
    fleet = Fleet(folder / "origin.git")
    first = operarios(files)
    fleet.commit(first)
    for change in edits(syncs, first, chance):
        fleet.commit(change)
    commits = fleet.write()
    cache = folder / "cache"
    source = GitSource(GitSettings(url=fleet.url, cache_dir=cache, ref="main"))
    syncer = syncer_of(source)
    began = time.perf_counter()
    for number, commit in enumerate(commits):
        if number % 8:  # otherwise unchanged
            fleet.publish(commit)
        else:
            fleet.publish(commits[max(0, number - 1)])
        await syncer.sync()
        assert syncer.status.error is None, syncer.status.error
        if number and number % (syncs // points) == 0:
            gc.collect()
            yield Level(
                number,
                time.perf_counter() - began,
                open_files(),
                len(descendants()),
                threading.active_count(),
                resident_mib(os.getpid()),
                sys.getallocatedblocks(),
                len(list(cache.glob("*/repository.git/objects/pack/*.pack"))),
                len(list(cache.glob("*/repository.git/objects/??/*"))),
                taken(cache),
                _clone(fleet, folder / "clone.git"),
            )
    await source.aclose()


def taken(folder: Path) -> int:
    """Return the bytes that the files below a folder use on disk."""
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _clone(fleet: Fleet, folder: Path) -> int:
    """Return the disk usage of a fresh clone of the published commit."""
    argv = ["git", "clone", "--quiet", "--bare", "--single-branch", fleet.url, str(folder)]
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(argv, env=environment, check=True)
    size = taken(folder / "objects")
    shutil.rmtree(folder)
    return size


def judged(seen: Sequence[Level]) -> list[Held]:
    """Compare what is held at the end with the first measurement."""
    warm, end = seen[0], seen[-1]
    same = "no more"
    blocks = warm.blocks + BLOCKS
    # A pack of one commit uses two or three disk blocks until it is consolidated.
    disk = 2 * end.clone + PACKS * 3 * 4096
    return [
        Held("file descriptors", warm.descriptors, end.descriptors, warm.descriptors, same),
        Held("child processes", warm.children, end.children, warm.children, same),
        Held("threads", warm.threads, end.threads, THREADS, "the whole pool"),
        Held("Python's blocks", warm.blocks, end.blocks, blocks, f"+ {BLOCKS:,}: half a MiB"),
        Held("packs", warm.packs, end.packs, PACKS, "then they are rolled up"),
        Held("loose objects", warm.loose, end.loose, 0, "all are packed"),
        Held("disk, bytes", warm.disk, end.disk, disk, "two fresh clones, and room for packs"),
    ]


def resident(seen: Sequence[Level]) -> Held:
    """Compare resident memory, if the kernel counts this process alone."""
    warm, end = round(seen[0].memory, 1), round(seen[-1].memory, 1)
    return Held("memory, MiB", warm, end, round(warm * 1.05, 1), "x 1.05")


async def _table(folder: Path) -> list[Level]:
    print(f"syncs: {SYNCS} in a row, {OPERARIOS} operarios, one file a commit")
    print(
        f"{'syncs':>7} {'ms each':>8} {'files':>6} {'children':>9} {'threads':>8} {'MiB':>6}"
        f" {'blocks':>8} {'packs':>6} {'loose':>6} {'disk MB':>8} {'/ clone':>8}"
    )
    before = (0, 0.0)
    seen = []
    async for level in levels(folder, SYNCS, POINTS, OPERARIOS):
        seen.append(level)
        each = (level.seconds - before[1]) / (level.syncs - before[0])
        before = (level.syncs, level.seconds)
        print(
            f"{level.syncs:>7} {each * 1000:>8.1f} {level.descriptors:>6} {level.children:>9}"
            f" {level.threads:>8} {level.memory:>6.1f} {level.blocks:>8} {level.packs:>6}"
            f" {level.loose:>6} {level.disk / 1e6:>8.2f} {level.disk / level.clone:>8.2f}",
            flush=True,
        )
    return seen


def main() -> str:
    """Print the levels and the verdict; return the verdict.

    Raises:
        SystemExit: something grew.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        seen = asyncio.run(_table(Path(name)))
    held = [resident(seen), *judged(seen)]
    each = seen[-1].seconds / seen[-1].syncs * 1000
    text = (
        f"{record.today()}, {record.machine()}; {SYNCS:,} syncs of {OPERARIOS} operarios,"
        f" {each:.0f} ms each.\n\n"
        + verdict(held, f"after {seen[0].syncs:,}", f"after {seen[-1].syncs:,}")
    )
    print(f"\n{text}")
    if not all(figure.is_level for figure in held):
        raise SystemExit(1)
    return text

"""Many syncs in a row against a repository that changes: what is held must stay level.

The commits are written ahead by one `git fast-import`; each sync finds the next one published, or
none. What is looked at is what a process of months would run out of: descriptors, children,
threads, memory, packs, and the disk, beside the size of a fresh clone of the same commit.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from openfero_gitops.adapters.git import GitSettings, GitSource
from tests.bench.git import memory, syncer_of
from tests.support.descendants import descendants, open_files
from tests.support.fleet import Fleet, operarios

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SYNCS = 10_000
POINTS = 10
OPERARIOS = 200
BROKEN = b"apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: [\n"


@dataclass(frozen=True)
class Level:
    """What was held after so many syncs; memory in MB, disk in bytes."""

    syncs: int
    seconds: float
    descriptors: int
    children: int
    threads: int
    memory: float
    packs: int
    loose: int
    disk: int
    clone: int


def edits(count: int, files: Mapping[str, bytes], chance: Random) -> list[dict[str, bytes | None]]:
    """Give each commit's changes: one file changed, added, removed, broken or mended."""
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
    """Sync so many times, and tell what is held at so many points."""
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
        if number % 8:  # else it is unchanged
            fleet.publish(commit)
        else:
            fleet.publish(commits[max(0, number - 1)])
        await syncer.sync()
        assert syncer.status.error is None, syncer.status.error
        if number and number % (syncs // points) == 0:
            yield Level(
                number,
                time.perf_counter() - began,
                open_files(),
                len(descendants()),
                threading.active_count(),
                memory()[0],
                len(list(cache.glob("*/repository.git/objects/pack/*.pack"))),
                len(list(cache.glob("*/repository.git/objects/??/*"))),
                taken(cache),
                _clone(fleet, folder / "clone.git"),
            )
    await source.aclose()


def taken(folder: Path) -> int:
    """How many bytes of the disk the files below a folder take."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _clone(fleet: Fleet, folder: Path) -> int:
    """How much a fresh clone of what is published takes."""
    argv = ["git", "clone", "--quiet", "--bare", "--single-branch", fleet.url, str(folder)]
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(argv, env=environment, check=True)
    size = taken(folder / "objects")
    shutil.rmtree(folder)
    return size


async def _table(folder: Path) -> None:
    print(f"syncs: {SYNCS} in a row, {OPERARIOS} operarios, one file a commit")
    print(
        f"{'syncs':>7} {'ms each':>8} {'files':>6} {'children':>9} {'threads':>8} {'MB':>6}"
        f" {'packs':>6} {'loose':>6} {'disk MB':>8} {'/ clone':>8}"
    )
    before = (0, 0.0)
    async for level in levels(folder, SYNCS, POINTS, OPERARIOS):
        each = (level.seconds - before[1]) / (level.syncs - before[0])
        before = (level.syncs, level.seconds)
        print(
            f"{level.syncs:>7} {each * 1000:>8.1f} {level.descriptors:>6} {level.children:>9}"
            f" {level.threads:>8} {level.memory:>6.1f} {level.packs:>6} {level.loose:>6}"
            f" {level.disk / 1e6:>8.2f} {level.disk / level.clone:>8.2f}",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        asyncio.run(_table(Path(name)))

"""What something costs: memory, processor time, and how long the event loop was blocked.

Time is that of this process's processor, not of the clock, so that other processes on the machine
do not count, and a slow machine is compared with itself (`unit_seconds`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence

_BEAT_SECONDS = 0.002
_UNIT_STEPS = 500_000
#: A process is idle if it used less than a tenth of one processor for this time.
IDLE_SECONDS = 3.0
_MAX_BUSY_SECONDS = 900.0


@dataclass
class Cost:
    """What a block of code cost; complete at its end.

    `memory` is the most that was allocated at once in bytes, beyond what was allocated before.
    `seconds` is processor time of all threads.
    """

    memory: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def memory_cost() -> Iterator[Cost]:
    """Measure memory; that makes the block several times slower."""
    cost = Cost()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    began = time.process_time()
    try:
        yield cost
    finally:
        cost.seconds = time.process_time() - began
        cost.memory = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()


@dataclass
class Blocked:
    """The longest time in processor seconds in which the event loop ran nothing else."""

    seconds: float = 0.0


@contextlib.asynccontextmanager
async def blocked_loop() -> AsyncIterator[Blocked]:
    """Measure how long the event loop is blocked, also by a thread that keeps the interpreter."""
    blocked = Blocked()

    async def beat() -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            now = time.process_time()
            blocked.seconds = max(blocked.seconds, now - last)
            last = now

    task = asyncio.create_task(beat())
    await asyncio.sleep(2 * _BEAT_SECONDS)
    blocked.seconds = 0.0
    try:
        yield blocked
        await asyncio.sleep(2 * _BEAT_SECONDS)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def unit_seconds() -> float:
    """Return the processor time of a fixed piece of Python: about 30 ms on a machine of 2026."""
    began = time.process_time()
    total = 0
    for step in range(_UNIT_STEPS):
        total += step
    return time.process_time() - began


def processor_seconds(pid: int, *, children: bool = True) -> float:
    """Return the processor time of a process, with that of its ended children, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11 : 15 if children else 13])) / os.sysconf("SC_CLK_TCK")


async def until_idle(pids: Collection[int]) -> None:
    """Return when each of these processes has nothing more to do."""
    used = dict.fromkeys(pids, IDLE_SECONDS)
    async with asyncio.timeout(_MAX_BUSY_SECONDS):
        while max(used.values()) > IDLE_SECONDS / 10:
            before = {pid: processor_seconds(pid) for pid in pids}
            await asyncio.sleep(IDLE_SECONDS)
            used = {pid: processor_seconds(pid) - before[pid] for pid in pids}


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return mib(process_status(pid)["VmRSS"])


def peak_mib(pid: int) -> float:
    """Return the most resident memory that a process has had, in MiB."""
    return mib(process_status(pid)["VmHWM"])


def process_status(pid: int) -> dict[str, str]:
    """Return what the kernel reports in the status of a process.

    Raises:
        OSError: the process is gone.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mib(value: str) -> float:
    """Convert a size of the kernel, such as `1024 kB`, which means KiB."""
    return int(value.split(maxsplit=1)[0]) / 1024


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values is at most."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

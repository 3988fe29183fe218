"""`make soak MINUTES=30`: whether the resource use of a long-running replica stays level.

Alerts arrive all the time, each of them twice, and some are resolved; every ten seconds a commit is
pushed and synced; every 20 seconds all connections to the API server break, so that every watch
restarts; every 100 seconds the network is down for longer than the lease, so that all Jobs are
listed and leadership is acquired again; pages, API and metrics are read.

Jobs are remembered for one minute, so that after two minutes their number is constant. The caches
of a replica are full, or as old as they get, after five minutes: the last 1,024 Events that it
sent, for six minutes, and the labels of 1,024 Jobs. From then on, memory, file descriptors,
threads and child processes have no reason to grow, except for the ids of 10,000 deleted Jobs: a
megabyte after an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from tests.bench.level import Held, verdict
from tests.cluster.controlplane import ControlPlane
from tests.support import record
from tests.support.descendants import descendants
from tests.support.measures import mib, process_status
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository
from tests.support.wire import Wire, kubeconfig_through

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Seconds.
TICK = 1.0
SAMPLE = 5.0
COMMIT = 10.0
CUT = 20.0
OUTAGE = 100.0
OUTAGE_LASTS = 5.0
READ_INTERVAL = 5.0
REPEAT = 10
ALERTS_A_TICK = 2
STEADY = 5  # minutes after which nothing has a reason to grow
READ = ("/", "/api/remediations", "/api/sync", "/metrics", "/readyz")
ENVELOPE = """\
remember: 1m
limits: {concurrent: 50, perMinute: 1000}
defaults: {ttlSecondsAfterFinished: 60}
"""
#: How far a figure may exceed that of minute five, and why.
MEMORY = (1.05, "x 1.05: Jobs come unevenly")
MARGINS = {
    "files": (10, "+ 10: connections are kept for the next burst"),
    "threads": (2, "+ 2: two reads of Git may meet"),
    "children": (1, "+ 1: a git at work"),
}
NAMES = {"files": "file descriptors", "threads": "threads", "children": "child processes"}


@dataclass(frozen=True)
class Sample:
    """What a process holds at one moment."""

    minute: float
    memory: float  # MiB, resident
    files: int
    threads: int
    children: int


def sample(pid: int, minute: float) -> Sample:
    """Read a process's figures from the kernel."""
    status = process_status(pid)
    return Sample(
        minute,
        mib(status["VmRSS"]),
        len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - names alone are wanted
        int(status["Threads"]),
        len(descendants(pid)),
    )


@dataclass
class Soak:
    """One run, and the counts of its actions."""

    minutes: float
    replica: Replica
    wire: Wire
    repository: Repository
    samples: list[Sample] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def minute(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.began) / 60

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Run all activities concurrently until the time is over."""

        async def send() -> None:
            number = self._count("ticks") - 1
            new = [
                alert("Soak" if i % 2 else "Fails", host=f"h{number}-{i}")
                for i in range(ALERTS_A_TICK)
            ]
            old = [
                alert("Soak" if i % 2 else "Fails", host=f"h{number - REPEAT}-{i}")
                for i in range(ALERTS_A_TICK)
            ]
            ended = alert("Soak", "resolved", host=f"h{number - 2 * REPEAT}-1")
            await self._deliver(http, group(*new, *old, ended))

        async def commit() -> None:
            text = operario("Soak") + "\n" * (1 + self._count("commits") % 50)
            await asyncio.to_thread(self.repository.write, "soak.json", text)
            await asyncio.to_thread(self.repository.commit, "Another")

        async def cut() -> None:
            self._count("restarts of the watch")
            self.wire.drop()

        async def fail() -> None:
            await asyncio.sleep(OUTAGE / 2)
            self._count("outages")
            self.wire.cut()
            await asyncio.sleep(OUTAGE_LASTS)
            self.wire.restore()

        async def read_pages() -> None:
            for path in READ:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(self.replica.url + path) as answer:
                        await answer.read()
                    self._count("pages read")

        async def measure() -> None:
            self.samples.append(sample(self.replica.process.pid, self.minute))

        plan = (
            (send, TICK),
            (commit, COMMIT),
            (cut, CUT),
            (fail, OUTAGE / 2),
            (read_pages, READ_INTERVAL),
            (measure, SAMPLE),
        )
        async with asyncio.TaskGroup() as tasks:
            for work, interval in plan:
                tasks.create_task(self._repeat(work, interval))

    async def _repeat(self, work: Callable[[], Awaitable[None]], interval: float) -> None:
        while self.minute < self.minutes:
            await work()
            await asyncio.sleep(interval)

    async def _deliver(self, http: aiohttp.ClientSession, body: object) -> None:
        """Deliver like Alertmanager: again if the delivery was not accepted."""
        while True:
            try:
                async with http.post(self.replica.url + "/alerts", json=body) as answer:
                    await answer.read()
                    if answer.status == 200:
                        break
                    self._count("responses with status 503")
            except aiohttp.ClientError:
                self._count("deliveries without a response")
            await asyncio.sleep(0.5)
        self._count("deliveries")

    def _count(self, action: str) -> int:
        self.counts[action] = self.counts.get(action, 0) + 1
        return self.counts[action]


def around(samples: list[Sample], minute: float) -> Sample:
    """Return the medians of the preceding minute: a single sample may include a running `git`."""
    near = [item for item in samples if minute - 1 <= item.minute <= minute] or samples[-1:]
    return Sample(
        minute,
        statistics.median(item.memory for item in near),
        int(statistics.median(item.files for item in near)),
        int(statistics.median(item.threads for item in near)),
        int(statistics.median(item.children for item in near)),
    )


def judged(warm: Sample, end: Sample) -> list[Held]:
    """Compare what a replica holds at the end with what it held when warm."""
    factor, why = MEMORY
    most = round(warm.memory * factor, 1)
    held = [Held("memory, MiB", round(warm.memory, 1), round(end.memory, 1), most, why)]
    for name, (margin, why) in MARGINS.items():
        before, after = getattr(warm, name), getattr(end, name)
        held.append(Held(NAMES[name], before, after, before + margin, why))
    return held


async def soak(minutes: float, folder: Path) -> Soak:
    """Start everything, run, and stop it."""
    plane = ControlPlane(folder / "cluster")
    with contextlib.ExitStack() as stack:
        stack.enter_context(plane)
        repository = Repository(folder / "operarios")
        repository.write("openfero.yaml", ENVELOPE)
        options = {"openfero.io/cooldown": "0", "openfero.io/max-per-hour": "1000000"}
        options |= {"openfero.io/max-concurrent": "100"}
        repository.write("soak.json", operario("Soak", annotations=options))
        repository.write("fails.json", operario("Fails", annotations=options, fail="true"))
        repository.write("undo.json", operario("Soak", status="resolved", annotations=options))
        repository.commit("Operarios")
        async with Wire(int(plane.url.rpartition(":")[2])) as wire:
            replica = Replica(
                folder,
                name="soak",
                kubeconfig=kubeconfig_through(plane.kubeconfig, wire.port, folder / "through"),
                roles=False,
                namespace="default",
                repository=repository.url,
                development=False,
            )
            await asyncio.to_thread(replica.process.start)
            stack.callback(replica.process.end)
            run = Soak(minutes, replica, wire, repository)
            async with aiohttp.ClientSession() as http:
                printer = asyncio.create_task(print_progress(run))
                await run.run(http)
                printer.cancel()
            await asyncio.to_thread(replica.process.end)
    return run


async def print_progress(run: Soak) -> None:
    """Print a line per minute."""
    while True:
        await asyncio.sleep(60)
        print(" | ".join(row(around(run.samples, run.minute))), flush=True)


def row(current: Sample) -> list[str]:
    """Return a row of the table."""
    counts = map(str, (current.files, current.threads, current.children))
    return [f"{current.minute:.0f}", f"{current.memory:.1f}", *counts]


def report(run: Soak) -> tuple[str, bool]:
    """Return the table and the verdict, and whether all figures are level."""
    marks = [m for m in (1, STEADY, *range(10, int(run.minutes), 5)) if m < run.minutes]
    measured = [around(run.samples, minute) for minute in (*marks, run.minutes)]
    warm = min(measured, key=lambda item: abs(item.minute - min(STEADY, run.minutes / 2)))
    held = judged(warm, measured[-1])
    did = ", ".join(
        f"{count} {action}" for action, count in run.counts.items() if action != "ticks"
    )
    lines = [
        f"{record.today()}, {record.machine()}; {run.minutes:g} minutes: {did}.",
        "",
        record.table(
            ["minute", "memory, MiB", *NAMES.values()], [row(current) for current in measured]
        ),
        "",
        verdict(held, f"minute {warm.minute:g}", f"minute {run.minutes:g}"),
    ]
    return "\n".join(lines), all(figure.is_level for figure in held)


def main() -> int:
    """Run the soak; return 1 if something grew."""
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--keep", metavar="BLOCK", help="write it to docs/explanation/reliability.md: soak"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        run = asyncio.run(soak(arguments.minutes, Path(folder)))
    text, is_level = report(run)
    print(text)
    if arguments.keep:
        record.keep(arguments.keep, text)
    return 0 if is_level else 1


if __name__ == "__main__":
    sys.exit(main())

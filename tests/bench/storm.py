"""What a storm of alerts costs one replica in processor time, from the alert to the ended Job.

The replica leads, admits every Job, and sees it run and succeed. Then every alert is resolved. Each
pass has a replica and a namespace of its own. The API server runs without controllers: what the Job
controller writes on a Job is written here, as soon as the Job is started.

    TREE=/path/to/another/checkout make bench ARGS=storm    compares that code with this, in turn
    CONTROLLERS=yes make bench ARGS=storm                   runs the whole control plane instead

The last table is about effects that are settled: with the default of `heals-within` that happens
more than 15 minutes after the storm.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.domain.timestamp import format_time
from tests.cluster.controlplane import COMPONENTS, ControlPlane
from tests.support import record
from tests.support.attacks import Admin, jobs_path
from tests.support.measures import processor_seconds
from tests.support.paths import ROOT
from tests.support.played import running, succeeded, write_status
from tests.support.replica import Replica, alert, group, operario
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALERTS: Final = int(os.environ.get("ALERTS", "1000"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "5"))
MAX_REQUESTS: Final = 16
CONTROLLERS: Final = bool(os.environ.get("CONTROLLERS"))
#: Alerts in progress at once: few enough that a slow machine answers each in time.
IN_FLIGHT: Final = 200
SIZES: Final = [int(size) for size in os.environ.get("SIZES", "1,100").split(",")]
#: A replica is idle if it used less than a tenth of so many seconds.
CALM_SECONDS: Final = 3.0
PATIENCE_SECONDS: Final = 900.0
#: Longer than the storm takes, so that no effect is settled before the alerts are resolved.
HEALS_WITHIN: Final = "3m"
WITHOUT_LIMITS: Final = {
    "openfero.io/max-concurrent": "100000",
    "openfero.io/max-per-hour": "1000000",
}


@dataclass
class Storm:
    """One replica of one source tree, in a namespace of its own."""

    api: KubernetesApi
    admin: Admin
    replica: Replica
    namespace: str
    repeated: int = 0

    def __post_init__(self) -> None:
        """Let all alerts of the storm start now."""
        self._starts_at = format_time(datetime.now(UTC))

    async def cost(self, status: str, size: int, done: str) -> float:
        """Deliver every alert with a status, and return the processor seconds until all is done.

        `done` is the part of a Job in which it is seen.
        """
        pid = self.replica.process.pid
        before = processor_seconds(pid)
        moments = {"startsAt": self._starts_at}
        if status == "resolved":
            moments["endsAt"] = format_time(datetime.now(UTC))
        alerts = [alert("Storm", status, host=f"h{number}") | moments for number in range(ALERTS)]
        groups = [group(*alerts[i : i + size], status=status) for i in range(0, ALERTS, size)]
        await self.deliver(groups, min(MAX_REQUESTS, max(1, IN_FLIGHT // size)))
        if status == "firing" and not CONTROLLERS:
            await self.play()
        await self.until_all(done)
        await self.until_idle()
        return processor_seconds(pid) - before

    async def deliver(self, groups: list[Any], in_flight: int) -> None:
        """Deliver each group until it is answered with 200; a repetition costs once more."""
        while groups:
            statuses = await send([self.replica.url], groups, in_flight)
            groups = [g for g, code in zip(groups, statuses, strict=True) if code != http.client.OK]
            self.repeated += len(groups)

    async def play(self) -> None:
        """Write on each started Job that it runs, and then that it succeeded."""
        played: set[str] = set()
        gate = asyncio.Semaphore(MAX_REQUESTS)

        async def play(name: str) -> None:
            since = datetime.now(UTC)
            for change in (running(since), succeeded(since)):
                async with gate:
                    await write_status(self.admin, self.namespace, name, change)

        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(played) < ALERTS:
                jobs = (await self.api.list(JOBS, self.namespace)).items
                names = {job["metadata"]["name"] for job in jobs if not job["spec"]["suspend"]}
                await asyncio.gather(*map(play, names - played))
                played |= names
                await asyncio.sleep(1.0)

    async def until_idle(self) -> None:
        """Return when the replica has nothing more to do."""
        used = CALM_SECONDS
        async with asyncio.timeout(PATIENCE_SECONDS):
            while used > CALM_SECONDS / 10:
                before = processor_seconds(self.replica.process.pid)
                await asyncio.sleep(CALM_SECONDS)
                used = processor_seconds(self.replica.process.pid) - before

    async def until_all(self, done: str) -> None:
        """Return when every Job has an annotation, or a condition, of this name."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                jobs = (await self.api.list(JOBS, self.namespace)).items
                if sum(done in _marks(job) for job in jobs) == ALERTS:
                    return
                await asyncio.sleep(2.0)  # the list is long


def _marks(job: dict[str, Any]) -> set[str]:
    """Return the names of a Job's annotations and of the conditions that it meets."""
    conditions = job.get("status", {}).get("conditions") or ()
    return {*job["metadata"]["annotations"]} | {
        condition["type"] for condition in conditions if condition["status"] == "True"
    }


@dataclass
class Bench:
    """The control plane, and the passes over it."""

    folder: Path
    kubeconfig: Path
    api: KubernetesApi
    admin: Admin
    passes: int = 0

    @contextlib.asynccontextmanager
    async def storm(self, tree: Path, repository: Repository) -> AsyncIterator[Storm]:
        """Start a replica of a source tree that leads; end it, and delete its Jobs."""
        self.passes += 1
        namespace = f"storm-{self.passes}"
        folder = self.folder / namespace
        folder.mkdir()
        created = {"metadata": {"name": namespace}}
        await self.admin.request("POST", "/api/v1/namespaces", created)
        replica = Replica(
            folder,
            name="storm",
            kubeconfig=self.kubeconfig,
            namespace=namespace,
            repository=repository.url,
            development=False,
            environment={"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"},
            interval="10m",
        )
        await asyncio.to_thread(replica.process.start)
        try:
            await asyncio.to_thread(replica.wait_for, lambda: replica.leads)
            storm = Storm(self.api, self.admin, replica, namespace)
            await storm.until_idle()
            yield storm
        finally:
            await asyncio.to_thread(replica.process.end)
            path = jobs_path(namespace)
            await self.admin.request("DELETE", path, propagationPolicy="Background")
            await self._until_empty(namespace)

    async def _until_empty(self, namespace: str) -> None:
        """Wait until the Pods of the last pass are gone too: they would slow the next."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if not (await self.api.list(JOBS, namespace)).items:
                    break
                await asyncio.sleep(1.0)


Costs = "dict[tuple[str, str, Path], list[float]]"


def _repository(folder: Path, **options: str) -> Repository:
    """Return a repository with an operario for the storm."""
    repository = Repository(folder)
    repository.write("openfero.yaml", "limits: {concurrent: 100000, perMinute: 100000}\n")
    annotations = WITHOUT_LIMITS | options
    repository.write("storm.json", operario("Storm", annotations=annotations))
    repository.commit("Operarios")
    return repository


async def _compare(bench: Bench, trees: list[Path]) -> Costs:
    """Let storms come over each tree in turn; processor seconds by kind, step and tree."""
    repository = _repository(bench.folder / "operarios")
    costs: defaultdict[tuple[str, str, Path], list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        for size in SIZES:
            kind = f"in groups of {size}" if size > 1 else "one by one"
            for tree in trees if number % 2 == 0 else trees[::-1]:
                async with bench.storm(tree, repository) as storm:
                    fired = await storm.cost("firing", size, "Complete")
                    resolved = await storm.cost("resolved", size, keys.RESOLVED_AT)
                costs[kind, "firing", tree].append(fired)
                costs[kind, "resolved", tree].append(resolved)
                print(
                    f"{kind}: {tree}: {fired:.2f} s, resolved {resolved:.2f} s, "
                    f"{storm.repeated} repeated",
                    flush=True,
                )
    return costs


async def _settle(bench: Bench) -> list[list[str]]:
    """Return what the effects cost when they are settled."""
    options = {"openfero.io/heals-within": HEALS_WITHIN}
    repository = _repository(bench.folder / "effects", **options)
    async with bench.storm(ROOT, repository) as storm:
        await storm.cost("firing", 100, "Complete")
        await storm.cost("resolved", 100, keys.RESOLVED_AT)
        pid = storm.replica.process.pid
        before = processor_seconds(pid)
        await storm.until_all(keys.EFFECT)
        await storm.until_idle()
        seconds = processor_seconds(pid) - before
    return [[f"{ALERTS} effects", f"{seconds:.2f} s", f"{seconds / ALERTS * 1000:.2f} ms"]]


def _rows(costs: Costs, trees: list[Path]) -> list[list[str]]:
    """Return a row for each way of sending and each step; the first tree is the one judged."""
    rows = []
    for kind, step in dict.fromkeys((kind, step) for kind, step, _ in costs):
        medians = [statistics.median(costs[kind, step, tree]) for tree in trees]
        pairs = zip(costs[kind, step, trees[0]], costs[kind, step, trees[-1]], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        cells = [f"{median:.2f} s" for median in medians]
        rows.append([f"{ALERTS} {step}, {kind}", *cells, *([f"{ratio:.3f}"] if trees[1:] else [])])
    return rows


async def _measure(folder: Path, plane: ControlPlane) -> str:
    other = os.environ.get("TREE", "")
    trees = [ROOT, Path(other)] if other else [ROOT]
    async with contextlib.AsyncExitStack() as exits:
        api = await KubernetesApi.connect(plane.kubeconfig)
        exits.push_async_callback(api.close)
        admin = await exits.enter_async_context(Admin(plane.kubeconfig))
        bench = Bench(folder, plane.kubeconfig, api, admin)
        costs = await _compare(bench, trees)
        settled = await _settle(bench)
    header = ["alerts", "processor time", *(["of the other tree", "ratio"] if other else [])]
    return (
        f"{record.today()}, {record.machine()}; {ROUNDS} rounds.\n\n"
        f"{record.table(header, _rows(costs, trees))}\n\n"
        f"{record.table(['settled', 'processor time', 'each'], settled)}"
    )


def main() -> str:
    """Run the benchmark and return its tables."""
    with tempfile.TemporaryDirectory(prefix="storm-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        plane = ControlPlane(
            folder / "cluster", components=COMPONENTS[: None if CONTROLLERS else 2]
        )
        stack.callback(plane.remove)
        stack.callback(plane.stop)
        plane.start()
        text = asyncio.run(_measure(folder, plane))
    print(text)
    return text

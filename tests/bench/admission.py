"""From an alert to a running Job: one at a time, and a thousand at once.

In the first part, deliveries alternate with a raw create and the raw patch that unsuspends the Job,
on the same API server and seen by the same watch: the difference is the cost of the controller.
For the storm, the time from each Job's delivery to its admission is reported. Nothing limits
admission here, and the API server runs without controllers.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.domain.timestamp import parse_time
from tests.bench.figures import Figure, Measured
from tests.cluster.controlplane import ControlPlane
from tests.support import record
from tests.support.measures import quantile
from tests.support.replica import (
    UNLIMITED,
    UNLIMITED_ENVELOPE,
    Replica,
    alert,
    group,
    groups,
    operario,
)
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ONE_BY_ONE: Final = 100
STORM: Final = 1000
#: Of the time from an alert to its unsuspended Job, over a raw create and patch.
MAX_RATIO: Final = 2.5
PRIORITIES: Final = {"Low": -5, "Middle": 0, "High": 5}
_GROUP: Final = 20
_NAMESPACE: Final = "default"
_MAX_ADMISSION_SECONDS: Final = 60.0
_MAX_STORM_SECONDS: Final = 240.0
_UNSUSPEND: Final = [{"op": "replace", "path": "/spec/suspend", "value": False}]


def write_operarios(repository: Repository) -> None:
    """Commit an operario for each priority, without limits."""
    repository.write("openfero.yaml", UNLIMITED_ENVELOPE)
    for name, priority in PRIORITIES.items():
        options = UNLIMITED | {"openfero.io/priority": str(priority)}
        repository.write(f"{name.lower()}.json", operario(name, annotations=options))
    repository.commit("Operarios")


def rank(job: dict[str, Any]) -> tuple[int, str, str]:
    """Return the Job's position in the queue: by priority, then age, then name."""
    annotations = job["metadata"]["annotations"]
    priority = PRIORITIES[job["metadata"]["labels"][keys.ALERT]]
    return (-priority, annotations[keys.RECEIVED_AT], job["metadata"]["name"])


@dataclass
class Starts:
    """The times at which a separate watch saw Jobs unsuspended."""

    api: KubernetesApi
    seen: dict[str, float] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, version: str) -> None:
        """Watch until cancelled."""
        events = self.api.watch(JOBS, _NAMESPACE, resource_version=version, timeout=3600)
        async with contextlib.aclosing(events):
            async for event in events:
                job = event.object
                if job.get("spec", {}).get("suspend") is False:
                    self.seen.setdefault(job["metadata"]["name"], time.monotonic())
                    self.news.set()

    async def of(self, name: str) -> float:
        """Return the time at which this Job was unsuspended."""
        async with asyncio.timeout(_MAX_ADMISSION_SECONDS):
            while name not in self.seen:
                self.news.clear()
                await self.news.wait()
        return self.seen[name]


async def one_by_one(api: KubernetesApi, replica: Replica) -> dict[str, list[float]]:
    """Return milliseconds to the answer and to the unsuspended Job, for deliveries and raw."""
    times: dict[str, list[float]] = {}
    template = (await _delivered(replica, "template"))[0]
    manifest = await api.get(JOBS, _NAMESPACE, template)
    for key in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
        manifest["metadata"].pop(key, None)
    manifest["spec"].pop("selector", None)
    manifest["spec"]["template"]["metadata"].pop("labels", None)
    manifest["spec"]["suspend"] = True
    # (Not with the controller's client, which would count and reject it.)
    manifest["metadata"]["labels"] = {}
    manifest.pop("status", None)
    starts = Starts(api)
    watching = asyncio.create_task(starts.run((await api.list(JOBS, _NAMESPACE)).resource_version))

    async def ours(number: int) -> tuple[str, float]:
        return await _delivered(replica, f"one-{number}")

    async def raw(number: int) -> tuple[str, float]:
        name = f"raw-{number}"
        manifest["metadata"]["name"] = name
        await api.create(JOBS, _NAMESPACE, manifest)
        answered = time.monotonic()
        await api.patch(JOBS, _NAMESPACE, name, _UNSUSPEND)
        return name, answered

    ways: dict[str, Callable[[int], Awaitable[tuple[str, float]]]] = {
        "raw create and patch": raw,
        "alert to Job": ours,
    }
    for number in range(ONE_BY_ONE):
        for kind, way in ways.items():
            began = time.monotonic()
            name, answered = await way(number)
            started = await starts.of(name)
            times.setdefault(f"{kind}: answered", []).append((answered - began) * 1000)
            times.setdefault(f"{kind}: unsuspended", []).append((started - began) * 1000)
            await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return times


async def _delivered(replica: Replica, host: str) -> tuple[str, float]:
    """Deliver one alert; return its Job's name and the time of the answer."""
    body = group(alert("Middle", host=host))
    async with (
        aiohttp.ClientSession() as http,
        http.post(replica.url + "/alerts", json=body) as answer,
    ):
        payload = await answer.json()
        at = time.monotonic()
        assert answer.status == 200, payload
    return payload["items"][0]["job"], at


async def storm(api: KubernetesApi, replica: Replica, count: int) -> list[dict[str, Any]]:
    """Deliver `count` alerts at once, wait until all are admitted, and return their Jobs."""
    names = [*PRIORITIES]
    alerts = [alert(names[i % len(names)], host=f"storm-{i}") for i in range(count)]
    await send([replica.url], groups(alerts, _GROUP), in_flight=16, until_taken=True)
    async with asyncio.timeout(_MAX_STORM_SECONDS):
        while True:
            jobs = [
                job
                for job in (await api.list(JOBS, _NAMESPACE)).items
                if '"host":"storm-' in job["metadata"].get("annotations", {}).get(keys.ALERT, "")
            ]
            if sum(keys.ADMITTED_AT in job["metadata"]["annotations"] for job in jobs) == count:
                return jobs
            await asyncio.sleep(0.2)


def delays(jobs: list[dict[str, Any]]) -> tuple[list[float], float]:
    """Return seconds from each Job's delivery to its admission, and the total duration."""
    moments = []
    for job in jobs:
        annotations = job["metadata"]["annotations"]
        received = parse_time(annotations[keys.RECEIVED_AT])
        admitted = parse_time(annotations[keys.ADMITTED_AT])
        assert received is not None
        assert admitted is not None
        moments.append((received, admitted))
    duration = max(admitted for _, admitted in moments) - min(received for received, _ in moments)
    return [(a - r).total_seconds() for r, a in moments], duration.total_seconds()


async def _measure(folder: Path, plane: ControlPlane) -> Measured:
    repository = Repository(folder / "operarios")
    write_operarios(repository)
    replica = Replica(
        folder,
        name="bench",
        kubeconfig=plane.kubeconfig,
        roles=False,
        namespace=_NAMESPACE,
        repository=repository.url,
        development=False,
    )
    async with contextlib.AsyncExitStack() as exits:
        api = await KubernetesApi.connect(plane.kubeconfig)
        exits.push_async_callback(api.close)
        exits.push_async_callback(asyncio.to_thread, replica.process.end)
        await asyncio.to_thread(replica.process.start)
        await asyncio.to_thread(replica.wait_for, lambda: replica.leads)
        times = await one_by_one(api, replica)
        jobs = await storm(api, replica, STORM)
    base = statistics.median(times["raw create and patch: unsuspended"])
    one_table = record.table(
        [f"one at a time, {ONE_BY_ONE} times", "median", "p99", "/ raw"],
        [
            [
                kind,
                f"{statistics.median(ms):.0f} ms",
                f"{quantile(ms, 0.99):.0f} ms",
                _ratio(ms, base),
            ]
            for kind, ms in times.items()
        ],
    )
    waits, duration = delays(jobs)
    storm_table = record.table(
        [f"{STORM} alerts at once", ""],
        [
            ["admissions a second", f"{STORM / duration:.0f}"],
            ["from delivery to admission, median", f"{statistics.median(waits):.1f} s"],
            ["the same, p99", f"{quantile(waits, 0.99):.1f} s"],
        ],
    )
    unsuspended = statistics.median(times["alert to Job: unsuspended"])
    figures = [
        Figure(
            "alert to unsuspended Job, over raw create and patch",
            unsuspended / base,
            goal=MAX_RATIO,
        ),
        Figure("admissions in a storm", STORM / duration, "a second", more_is_better=True),
    ]
    text = f"{record.today()}, {record.machine()}."
    parameters = {"one at a time": ONE_BY_ONE, "at once": STORM}
    return Measured(figures, text, f"{one_table}\n\n{storm_table}", parameters)


def _ratio(values: list[float], base: float) -> str:
    return f"{statistics.median(values) / base:.2f}"


def main() -> Measured:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="admission-") as name:
        folder = Path(name)
        with ControlPlane(folder / "cluster", components=("etcd", "kube-apiserver")) as plane:
            return asyncio.run(_measure(folder, plane))

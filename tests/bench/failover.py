"""How long admission pauses when the leader stops, with many Jobs waiting.

The running Jobs fill `concurrent`, so that the others wait. The leader is terminated or killed,
then one running Job is deleted, which frees one slot. The time until the next admission is printed.
A new leader must list all Jobs; after a killed leader it must also write its
term on each waiting Job. So a list and as many raw patches are timed for comparison. The API server
runs without controllers, which would only make it slower for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from tests.cluster.controlplane import ControlPlane
from tests.support import record
from tests.support.replica import UNLIMITED, Replica, alert, groups, operario
from tests.support.repository import Repository
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import Sequence

WAITING: Final = 1000
ROUNDS: Final = 3
RUNNING: Final = 10
_GROUP: Final = 50
_RAW_AT_ONCE: Final = 8
_MAX_WAIT_SECONDS: Final = 120.0
_NAMESPACE: Final = "default"


@dataclass(frozen=True, slots=True)
class Lease:
    """The Lease's durations, as passed to `serve`."""

    duration: int
    deadline: str
    retry: str


SHORT: Final = Lease(3, "2s", "500ms")
DEFAULT: Final = Lease(15, "10s", "2s")


@dataclass(frozen=True, slots=True)
class Handover:
    """Seconds until the next admission, after a signal to the leader.

    `stamped` counts the Jobs that kept waiting and have the new leader's term.
    """

    sent: signal.Signals
    lease: int
    waiting: int
    seconds: float
    stamped: int


async def measure(
    folder: Path, plane: ControlPlane, signals: Sequence[signal.Signals], lease: Lease, waiting: int
) -> list[Handover]:
    """Send each signal to the current leader; a replica that ended is started again."""
    repository = Repository(folder / f"operarios-{lease.duration}")
    repository.write("openfero.yaml", f"limits: {{concurrent: {RUNNING}, perMinute: 100000}}\n")
    repository.write("storm.json", operario("Storm", annotations=UNLIMITED))
    repository.commit("Operarios")
    replicas = [
        Replica(
            folder,
            name=f"{name}-{lease.duration}",
            kubeconfig=plane.kubeconfig,
            roles=False,
            namespace=_NAMESPACE,
            repository=repository.url,
            development=False,
            lease_duration=f"{lease.duration}s",
            renew_deadline=lease.deadline,
            retry_period=lease.retry,
        )
        for name in ("a", "b")
    ]
    api = await KubernetesApi.connect(plane.kubeconfig)
    figures = []
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        for replica in replicas:
            exits.push_async_callback(asyncio.to_thread, replica.process.end)
            await asyncio.to_thread(replica.process.start)
        alerts = [alert("Storm", host=f"h{number}") for number in range(waiting + RUNNING)]
        await send([replicas[0].url], groups(alerts, _GROUP), in_flight=8, until_taken=True)
        for sent in signals:
            for replica in replicas:
                if replica.process.returncode is not None:  # it got the signal before
                    await asyncio.to_thread(replica.process.end)
                    await asyncio.to_thread(replica.process.start)
            await _until(api, admitted=RUNNING)
            leader = await _leader(replicas)
            figures.append(await _fell(api, leader, sent, lease))
    return figures


async def _fell(
    api: KubernetesApi, leader: Replica, sent: signal.Signals, lease: Lease
) -> Handover:
    """Signal the leader, free one slot, and wait until it is used."""
    jobs = await api.list(JOBS, _NAMESPACE)
    running = [job["metadata"]["name"] for job in jobs.items if _admitted(job)]
    waiting = len(jobs.items) - len(running)
    began = time.monotonic()
    leader.process.signal(sent)
    ended = asyncio.create_task(asyncio.to_thread(leader.process.wait, _MAX_WAIT_SECONDS))
    while leader.process.returncode is None and sent is signal.SIGKILL:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await api.delete(JOBS, _NAMESPACE, running[0])
    events = api.watch(JOBS, _NAMESPACE, resource_version=jobs.resource_version)
    async with contextlib.aclosing(events), asyncio.timeout(_MAX_WAIT_SECONDS):
        async for event in events:
            job = event.object
            if event.change.value == "MODIFIED" and _admitted(job):
                name = job["metadata"]["name"]
                by = job["metadata"]["annotations"][keys.ADMITTED_BY]
                if name not in running and by != leader.name:
                    break
    seconds = time.monotonic() - began
    await ended
    left = [job for job in (await api.list(JOBS, _NAMESPACE)).items if not _admitted(job)]
    stamped = sum(_term(waiting_job) == _term(job) for waiting_job in left)
    return Handover(sent, lease.duration, waiting, seconds, stamped)


async def _until(api: KubernetesApi, admitted: int) -> None:
    async with asyncio.timeout(_MAX_WAIT_SECONDS):
        while True:
            if sum(map(_admitted, (await api.list(JOBS, _NAMESPACE)).items)) >= admitted:
                return
            await asyncio.sleep(1.0)  # the list is long


def _admitted(job: dict[str, Any]) -> bool:
    return keys.ADMITTED_AT in (job["metadata"].get("annotations") or {})


def _term(job: dict[str, Any]) -> str:
    stamp: str = job["metadata"]["annotations"].get(keys.TERM, "")
    return stamp.rpartition("#")[0]


async def _leader(replicas: Sequence[Replica]) -> Replica:
    async with asyncio.timeout(_MAX_WAIT_SECONDS):
        while True:
            for replica in replicas:
                if await asyncio.to_thread(getattr, replica, "leads"):
                    return replica
            await asyncio.sleep(0.1)


async def raw(plane: ControlPlane) -> float:
    """Return seconds for a raw list of all Jobs and a raw patch of each waiting Job."""
    api = await KubernetesApi.connect(plane.kubeconfig)
    try:
        began = time.monotonic()
        jobs = (await api.list(JOBS, _NAMESPACE)).items
        gate = asyncio.Semaphore(_RAW_AT_ONCE)

        async def patch(name: str) -> None:
            mark = {"op": "add", "path": "/metadata/annotations/raw", "value": "stamp"}
            async with gate:
                await api.patch(JOBS, _NAMESPACE, name, [mark])

        waiting = [job["metadata"]["name"] for job in jobs if not _admitted(job)]
        await asyncio.gather(*map(patch, waiting))
        return time.monotonic() - began
    finally:
        await api.close()


def rows(figures: Sequence[Handover]) -> str:
    """Return a table with a row for each signal and lease."""
    kinds = dict.fromkeys((figure.sent, figure.lease) for figure in figures)
    cells = []
    for sent, lease in kinds:
        matching = [figure for figure in figures if (figure.sent, figure.lease) == (sent, lease)]
        seconds = [figure.seconds for figure in matching]
        goal = 2 if sent is signal.SIGTERM else lease + 3
        cells.append(
            [
                f"{sent.name} of the leader",
                f"{lease} s",
                str(min(figure.waiting for figure in matching)),
                str(len(matching)),
                f"{statistics.median(seconds):.2f} s",
                f"{max(seconds):.2f} s",
                f"{goal} s",
            ]
        )
    header = ["next admission after", "lease", "waiting", "times", "median", "longest", "goal"]
    return record.table(header, cells)


def main() -> str:
    """Measure with a short lease and with the default one; return the table."""
    with tempfile.TemporaryDirectory(prefix="failover-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        figures = []
        bare = []
        for lease in (SHORT, DEFAULT):
            directory = folder / f"cluster-{lease.duration}"
            plane = ControlPlane(directory, components=("etcd", "kube-apiserver"))
            stack.enter_context(plane)
            signals = [signal.SIGTERM, signal.SIGKILL] * ROUNDS
            figures += asyncio.run(measure(folder, plane, signals, lease, WAITING))
            bare.append(asyncio.run(raw(plane)))
            plane.stop()
    text = (
        f"{record.today()}, {record.machine()}. A raw list and {WAITING} raw patches, "
        f"{_RAW_AT_ONCE} at once, took {statistics.median(bare):.2f} s.\n\n{rows(figures)}"
    )
    print(text)
    return text

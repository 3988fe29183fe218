"""What a replica costs in processor time while no alert arrives.

Two replicas with the default settings and 200 operarios remember 1,000 Jobs that have ended, each
with its effect. Each is probed and scraped as the chart configures it. Beside them runs a program
that does the least that a leader must do (`idle_floor`).

    MINUTES=5 make bench ARGS=idle    measures for longer
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yaml

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.domain.timestamp import format_time
from tests.bench.figures import Figure, Measured
from tests.cluster.controlplane import ControlPlane
from tests.support import record
from tests.support.attacks import Admin
from tests.support.fleet import Fleet, operarios
from tests.support.git_servers import http_server
from tests.support.measures import processor_seconds, resident_mib
from tests.support.paths import ROOT
from tests.support.process import Process, free_port
from tests.support.replica import (
    UNLIMITED,
    UNLIMITED_ENVELOPE,
    Replica,
    alert,
    groups,
    operario,
)
from tests.support.sending import send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MINUTES: Final = float(os.environ.get("MINUTES", "2"))
OPERARIOS: Final = 200
REMEMBERED: Final = 1000
#: Processor time a minute of each replica.
MAX_SECONDS_A_MINUTE: Final = 0.3
#: Requests to each replica, and the seconds between two of them, as in the chart.
REQUESTS: Final = {"/livez": 10.0, "/readyz": 5.0, "/metrics": 30.0}
_NAMESPACE: Final = "idle"
_NAME: Final = "Idle"
_OPTIONS: Final = {**UNLIMITED, "openfero.io/heals-within": "15s"}
_GROUP: Final = 100
#: Longer than a leader needs to try every operario in the cluster.
_SETTLING_SECONDS: Final = 0.6 * OPERARIOS
_MAX_WAIT_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Used:
    """What a process has used: seconds of its own and of its ended children, and wake-ups."""

    own: float
    children: float
    wakeups: int

    @classmethod
    def by(cls, pid: int) -> Used:
        """Read from the kernel what a process has used so far."""
        folder = Path(f"/proc/{pid}")
        own = processor_seconds(pid, children=False)
        wakeups = 0
        for status in folder.glob("task/*/status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # an ended thread
                switches = status.read_text().partition("\nvoluntary_ctxt_switches:")[2]
                wakeups += int(switches.split()[0])
        return cls(own, processor_seconds(pid) - own, wakeups)

    def a_minute_since(self, before: Used) -> Used:
        """Return what was used in each minute since."""
        return Used(
            (self.own - before.own) / MINUTES,
            (self.children - before.children) / MINUTES,
            int((self.wakeups - before.wakeups) / MINUTES),
        )


async def _ask(url: str, path: str, seconds: float) -> None:
    """Request a path at an interval; Prometheus keeps its connection, the kubelet does not."""
    connector = aiohttp.TCPConnector(force_close=path != "/metrics")
    async with aiohttp.ClientSession(connector=connector) as http:
        while True:
            async with http.get(url + path) as answer:
                await answer.read()
            await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def _probed(urls: list[str]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(_ask(url, path, seconds), name=path)
            for url in urls
            for path, seconds in REQUESTS.items()
        ]
        yield
        for task in asking:
            task.cancel()


async def _remember(api: KubernetesApi, replica: Replica) -> None:
    """Let the replicas remember Jobs that have ended and helped."""
    fired = [alert(_NAME, host=f"h{number}") for number in range(REMEMBERED)]
    await _send(replica, fired)
    await _until_all(api, lambda job: bool(job["status"].get("succeeded")))
    ended = {"status": "resolved", "endsAt": format_time(record.now())}
    await _send(replica, [body | ended for body in fired])
    await _until_all(api, lambda job: keys.EFFECT in job["metadata"]["annotations"])


async def _send(replica: Replica, alerts: list[dict[str, Any]]) -> None:
    deliveries = groups(alerts, _GROUP, status=alerts[0]["status"])
    await send([replica.url], deliveries, in_flight=2, until_taken=True)


async def _until_all(api: KubernetesApi, is_done: Callable[[dict[str, Any]], bool]) -> None:
    """Return when every Job is as far as that."""
    async with asyncio.timeout(_MAX_WAIT_SECONDS):
        while True:
            with contextlib.suppress(Unavailable):  # its cache may lag in a storm
                jobs = (await api.list(JOBS, _NAMESPACE)).items
                if sum(map(is_done, jobs)) == REMEMBERED:
                    return
            await asyncio.sleep(2.0)  # the list is long


async def _prepare(folder: Path, admin: Admin) -> str:
    """Write the repository, and create what it needs; return its name in the folder."""
    files = operarios(OPERARIOS - 1) | {
        "openfero.yaml": UNLIMITED_ENVELOPE.encode(),
        "idle.json": operario(_NAME, annotations=_OPTIONS).encode(),
    }
    fleet = Fleet(folder / "operarios.git")
    fleet.commit(files)
    fleet.publish(fleet.write()[-1])
    for namespace in (_NAMESPACE, "floor"):
        await admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts"
    await admin.create_all(path, yaml.safe_load_all(files["accounts.yaml"]))
    return fleet.folder.name


async def _measure(folder: Path, plane: ControlPlane) -> Measured:
    async with contextlib.AsyncExitStack() as exits:
        server = exits.enter_context(http_server(folder))
        api = await KubernetesApi.connect(plane.kubeconfig)
        exits.push_async_callback(api.close)
        admin = await exits.enter_async_context(Admin(plane.kubeconfig))
        repository = server.url(await _prepare(folder, admin))
        replicas = [
            Replica(
                folder,
                name=name,
                kubeconfig=plane.kubeconfig,
                roles=False,
                namespace=_NAMESPACE,
                repository=repository,
                development=False,
                interval="1m",  # and the others that have shorter values in tests
                lease_duration="15s",
                renew_deadline="10s",
                retry_period="2s",
            )
            for name in ("leader", "follower")
        ]
        port = free_port()
        words = [str(plane.kubeconfig), "floor", str(port)]
        floor = Process(
            [sys.executable, "-m", "tests.bench.idle_floor", *words],
            log=folder / "floor.log",
            port=port,
            cwd=ROOT,
        )
        processes = {replica.name: replica.process for replica in replicas} | {"floor": floor}
        for process in processes.values():
            exits.push_async_callback(asyncio.to_thread, process.end)
            await asyncio.to_thread(process.start)
            await asyncio.to_thread(replicas[0].wait_for, lambda: replicas[0].leads)
        await _remember(api, replicas[0])
        await asyncio.sleep(_SETTLING_SECONDS)
        async with _probed([*(replica.url for replica in replicas), f"http://127.0.0.1:{port}"]):
            before = {name: Used.by(process.pid) for name, process in processes.items()}
            await asyncio.sleep(MINUTES * 60)
            used = {
                name: Used.by(process.pid).a_minute_since(before[name])
                for name, process in processes.items()
            }
        memory = {name: resident_mib(process.pid) for name, process in processes.items()}
    parameters = {"MINUTES": MINUTES, "operarios": OPERARIOS, "remembered Jobs": REMEMBERED}
    return Measured(_figures(used, memory), _text(), parameters=parameters)


def _figures(used: dict[str, Used], memory: dict[str, float]) -> list[Figure]:
    figures = []
    for name, each in used.items():
        goal = None if name == "floor" else MAX_SECONDS_A_MINUTE
        seconds = each.own + each.children
        figures.append(Figure(f"{name}: processor time", seconds, "s a minute", goal=goal))
        if name != "floor":
            figures.append(Figure(f"{name}: of that, git", each.children, "s a minute"))
        figures.append(Figure(f"{name}: wake-ups", each.wakeups, "a minute"))
        figures.append(Figure(f"{name}: resident memory", memory[name], "MiB"))
    return figures


def _text() -> str:
    return (
        f"{record.today()}, {record.machine()}; {OPERARIOS} operarios, {REMEMBERED} remembered "
        f"Jobs, {MINUTES:g} min without alerts, with probes and scrapes."
    )


def main() -> Measured:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="idle-") as name:
        folder = Path(name)
        with ControlPlane(folder / "cluster") as plane:
            return asyncio.run(_measure(folder, plane))

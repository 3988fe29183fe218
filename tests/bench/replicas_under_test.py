"""Replicas of a source tree that turn alerts into Jobs, and the cluster that they run in.

ALERTS=1000 ROUNDS=3 SIZES=1,100 IN_FLIGHT=16   are the defaults
PROFILE=cpu|calls|memory                        writes profiles of the leader: cpu by py-spy,
                                                which must be installed, calls by cProfile
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.domain.timestamp import format_time, parse_time
from tests.bench.load import Load, Plan, generate
from tests.support import record
from tests.support.attacks import Admin, jobs_path
from tests.support.measures import processor_seconds, until_idle
from tests.support.process import Process
from tests.support.replica import (
    UNLIMITED,
    UNLIMITED_ENVELOPE,
    Replica,
    alert,
    groups,
    operario,
)
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from datetime import datetime

    from tests.cluster.controlplane import ControlPlane

ALERTS: Final = int(os.environ.get("ALERTS", "1000"))
ROUNDS: Final = int(os.environ.get("ROUNDS", "3"))
SIZES: Final = [int(size) for size in os.environ.get("SIZES", "1,100").split(",")]
IN_FLIGHT: Final = int(os.environ.get("IN_FLIGHT", "16"))
#: What the figures depend on, in the record of a version.
PARAMETERS: Final = {"ALERTS": ALERTS, "ROUNDS": ROUNDS, "SIZES": SIZES, "IN_FLIGHT": IN_FLIGHT}
PROFILE: Final = os.environ.get("PROFILE", "")
NAME: Final = "Storm"
ROLES: Final = ("leader", "follower", "second follower")
_MAX_PASS_SECONDS: Final = 900.0


@dataclass(frozen=True)
class Delivered:
    """One pass: what was sent, and the processor seconds of each process until all was done."""

    load: Load
    seconds: dict[str, float]
    delays: list[float] = field(default_factory=list)  # from delivery to admission
    resolved: dict[str, float] = field(default_factory=dict)  # processor seconds of the resolution

    @property
    def rate(self) -> float:
        """Jobs that were created a second."""
        return ALERTS / self.load.seconds


@dataclass(frozen=True)
class BenchCluster:
    """A control plane with a repository, and clients to look at it and to clean up."""

    folder: Path
    profiles: Path
    plane: ControlPlane
    repository: Repository
    api: KubernetesApi
    admin: Admin

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, folder: Path, plane: ControlPlane, namespaces: Sequence[str]
    ) -> AsyncIterator[BenchCluster]:
        """Write the repository, and create the namespaces."""
        repository = Repository(folder / "operarios")
        repository.write("openfero.yaml", UNLIMITED_ENVELOPE)
        repository.write("storm.json", operario(NAME, annotations=UNLIMITED))
        repository.commit("Operarios")
        profiles = Path(tempfile.mkdtemp(prefix="profiles-")) if PROFILE else folder
        async with contextlib.AsyncExitStack() as exits:
            api = await KubernetesApi.connect(plane.kubeconfig)
            exits.push_async_callback(api.close)
            admin = await exits.enter_async_context(Admin(plane.kubeconfig))
            for namespace in namespaces:
                created = {"metadata": {"name": namespace}}
                await admin.request("POST", "/api/v1/namespaces", created)
            yield cls(folder, profiles, plane, repository, api, admin)

    async def jobs(self, namespace: str) -> list[dict[str, Any]]:
        """List the Jobs of a namespace, however busy the API server is."""
        while True:
            with contextlib.suppress(Unavailable):  # its cache may lag in a storm
                return (await self.api.list(JOBS, namespace)).items
            await asyncio.sleep(1.0)

    async def clear(self, namespace: str) -> None:
        """Delete the Jobs, and wait until their Pods are gone too: they would slow what follows."""
        async with asyncio.timeout(_MAX_PASS_SECONDS):
            await self.admin.request("DELETE", jobs_path(namespace), propagationPolicy="Background")
            while True:
                if not await self.jobs(namespace) and not await self._has_pods(namespace):
                    return
                await asyncio.sleep(1.0)

    async def _has_pods(self, namespace: str) -> bool:
        path = f"/api/v1/namespaces/{namespace}/pods"
        _, listed = await self.admin.request("GET", path, limit="1")
        return bool(listed.get("items", True))


class Side:
    """Replicas of one source tree, in a namespace of their own.

    The leader gets the deliveries or, if they are `shared`, all replicas in turn.
    """

    def __init__(
        self, name: str, tree: Path, cluster: BenchCluster, *, count: int = 2, shared: bool = False
    ) -> None:
        """Take the name, which is also the namespace."""
        self.name = name
        self._shared = shared
        self._cluster = cluster
        self._passes = 0
        self.replicas = [
            Replica(
                cluster.folder,
                name=f"{name}-{number}",
                kubeconfig=cluster.plane.kubeconfig,
                roles=False,
                namespace=name,
                repository=cluster.repository.url,
                development=False,
                environment={"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"},
                program=self._program(f"{name}-{number}"),
                interval="10m",
            )
            for number in range(count)
        ]

    def _program(self, name: str) -> Sequence[str]:
        if PROFILE not in ("calls", "memory"):
            return ("-m", "openfero_gitops")
        file = self._cluster.profiles / f"{name}.{PROFILE}"
        return ("-m", "tests.bench.profiled", PROFILE, str(file))

    async def start(self) -> None:
        """Start the replicas, the one after the other, so that the first leads."""
        for replica in self.replicas:
            await asyncio.to_thread(replica.process.start)
            await asyncio.to_thread(self.replicas[0].wait_for, lambda: self.replicas[0].leads)
        await self.until_idle()

    def end(self) -> None:
        """End the replicas."""
        for replica in self.replicas:
            replica.process.end()

    @property
    def _pids(self) -> list[int]:
        return [replica.process.pid for replica in self.replicas]

    def used(self) -> dict[str, float]:
        """Return the processor seconds of each replica so far."""
        return {name: processor_seconds(pid) for name, pid in zip(ROLES, self._pids, strict=False)}

    async def until_idle(self) -> None:
        """Return when the replicas have nothing more to do."""
        await until_idle(self._pids)

    async def deliver(self, deliveries: list[Any]) -> Delivered:
        """Deliver groups, and their resolution once every Job is complete."""
        self._passes += 1
        with self._profile():
            before = self.used()
            load = await self._send(deliveries)
            delays = await self._until_complete()
            await self.until_idle()
            between = self.used()
        ended = format_time(record.now())
        await self._send([_resolved(body, ended) for body in deliveries])
        await self.until_idle()
        return Delivered(
            load, _difference(before, between), delays, _difference(between, self.used())
        )

    async def _send(self, deliveries: list[Any]) -> Load:
        replicas = self.replicas if self._shared else self.replicas[:1]
        urls = [f"{replica.url}/alerts" for replica in replicas]
        return await generate(self._cluster.folder, Plan(urls, deliveries, IN_FLIGHT))

    async def _until_complete(self) -> list[float]:
        """Return when every Job is complete; the seconds from delivery to admission of each."""
        async with asyncio.timeout(_MAX_PASS_SECONDS):
            while True:
                jobs = await self._cluster.jobs(self.name)
                if sum(map(_is_complete, jobs)) == ALERTS:
                    return [_delay(job) for job in jobs]
                await asyncio.sleep(2.0)  # the list is long

    @contextlib.contextmanager
    def _profile(self) -> Iterator[None]:
        """Sample the leader's stacks within the block, if that is wanted."""
        if PROFILE != "cpu":
            yield
            return
        file = self._cluster.profiles / f"{self.name}-{self._passes}.txt"
        pid = self.replicas[0].process.pid
        argv = ["py-spy", "record", "--pid", str(pid), "--format", "raw", "--output", str(file)]
        with Process([*argv, "--rate", "200"], log=self._cluster.folder / "py-spy.log") as spy:
            yield
            spy.signal(signal.SIGINT)
            spy.wait()


def kind_of(size: int) -> str:
    """Say how alerts are delivered."""
    return f"groups of {size}" if size > 1 else "one by one"


def groups_of(mark: str, size: int) -> list[Any]:
    """Return deliveries of alerts that no other pass has."""
    alerts = [alert(NAME, host=f"{mark}-{number}") for number in range(ALERTS)]
    return groups(alerts, size)


def _resolved(body: dict[str, Any], ended: str) -> dict[str, Any]:
    """Return the delivery that resolves every alert of another."""
    alerts = [{**fired, "status": "resolved", "endsAt": ended} for fired in body["alerts"]]
    return {**body, "status": "resolved", "alerts": alerts}


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


def _is_complete(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


def _delay(job: dict[str, Any]) -> float:
    annotations = job["metadata"]["annotations"]
    received = _moment(annotations[keys.RECEIVED_AT])
    return (_moment(annotations[keys.ADMITTED_AT]) - received).total_seconds()


def _moment(text: str) -> datetime:
    moment = parse_time(text)
    assert moment is not None
    return moment

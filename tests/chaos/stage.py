"""The real parts: a control plane, three replicas behind wires of their own, a repository."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.error
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from tests.chaos.recorder import FLAGS, Recorder
from tests.chaos.stories import write_operarios
from tests.cluster.controlplane import ControlPlane
from tests.support.audit_log import check_rights
from tests.support.chart import controller_kubeconfig
from tests.support.replica import Replica
from tests.support.repository import Repository
from tests.support.wire import Wire, kubeconfig_through

if TYPE_CHECKING:
    from pathlib import Path

NAMES: Final = ("ada", "bob", "cy")


@dataclass(frozen=True, slots=True)
class Felled:
    """What befell a replica that led, at a moment of the wall clock."""

    at: float
    name: str
    how: str


@dataclass
class Stage:
    """Everything that runs; as an async context manager it is up for as long as the block lasts."""

    folder: Path
    lease: float  # seconds
    namespace: str = "default"
    plane: ControlPlane = field(init=False)
    repository: Repository = field(init=False)
    recorder: Recorder = field(init=False)
    replicas: dict[str, Replica] = field(default_factory=dict)
    wires: dict[str, Wire] = field(default_factory=dict)
    felled_leaders: list[Felled] = field(default_factory=list)
    _exits: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def __post_init__(self) -> None:
        """Choose places; nothing runs."""
        self.plane = ControlPlane(self.folder / "cluster", flags={"kube-apiserver": FLAGS})
        self.repository = Repository(self.folder / "operarios")

    async def __aenter__(self) -> Self:
        """Bring everything up."""
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take everything down."""
        await self._exits.aclose()

    async def _start(self) -> None:
        write_operarios(self.repository)
        self.repository.commit("Operarios")
        self._exits.callback(self.plane.remove)
        self._exits.callback(check_rights, self.plane.audit_log)
        self._exits.callback(self.plane.stop)
        await asyncio.to_thread(self.plane.start)
        self.recorder = Recorder(self.plane.etcd_url)
        recording = asyncio.create_task(self.recorder.run(), name="record")
        self._exits.push_async_callback(_ended, recording)
        # The attacker forges mirrors, which only a key tells from genuine ones.
        key = self.folder / "mirror-key"
        key.write_text("a key that is not in the API server\n")
        controller = await asyncio.to_thread(self._controller)
        for name in NAMES:
            wire = Wire(int(self.plane.url.rpartition(":")[2]))
            self.wires[name] = await self._exits.enter_async_context(wire)
            self.replicas[name] = Replica(
                self.folder,
                name=name,
                kubeconfig=kubeconfig_through(
                    controller, wire.port, self.folder / f"{name}.kubeconfig"
                ),
                roles=False,
                namespace=self.namespace,
                repository=self.repository.url,
                ready=False,
                development=False,
                mirror_key_file=str(key),
                lease_duration=f"{self.lease:.0f}s",
                renew_deadline=f"{self.lease * 2000 / 3:.0f}ms",
                retry_period=f"{self.lease * 1000 / 6:.0f}ms",
            )
            self._exits.push_async_callback(asyncio.to_thread, self.replicas[name].process.end)
        await asyncio.gather(*(self.start_replica(name) for name in NAMES))

    def _controller(self) -> Path:
        """Return a kubeconfig with the Roles of the chart and nothing more."""
        return controller_kubeconfig(
            self.plane.kubeconfig, self.namespace, self.folder, jobs_namespaces=[self.namespace]
        )

    async def start_replica(self, name: str) -> None:
        """Start one, after what was left of it has ended."""
        process = self.replicas[name].process
        await asyncio.to_thread(process.end)
        await asyncio.to_thread(process.start)

    async def leader(self) -> str:
        """Return the replica that leads, or the first one if none does for a long time."""
        return (await self._by_leading())[0]

    async def follower(self) -> str:
        """Somebody else."""
        return (await self._by_leading())[-1]

    async def felled(self, how: str) -> str:
        """Note what is about to befall the leader, and return its name."""
        name = await self.leader()
        self.felled_leaders.append(Felled(time.time(), name, how))
        return name

    async def _by_leading(self) -> list[str]:
        deadline = time.monotonic() + 20
        while True:
            leads = {name: await asyncio.to_thread(self._leads, name) for name in NAMES}
            if any(leads.values()) or time.monotonic() > deadline:
                return sorted(NAMES, key=lambda name: not leads[name])
            await asyncio.sleep(0.2)

    def _leads(self, name: str) -> bool:
        try:
            return self.replicas[name].leads
        except (OSError, urllib.error.URLError):
            return False


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

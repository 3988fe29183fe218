"""People with kubectl and with our command line, and Kueue: everything else that changes Jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.api import CONFIG_MAPS, JOBS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.commands.operator import APPROVE, CANCEL, REFUSE
from openfero_gitops.domain import keys
from openfero_gitops.domain.control import NAME as CONTROL
from openfero_gitops.domain.errors import ApiError, Conflict
from openfero_gitops.jobs.observe import read_remediation
from tests.simulation.forger import is_forged
from tests.support.workers import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from openfero_gitops.commands.operator import JobAction
    from openfero_gitops.demo.cluster import MemoryCluster
    from openfero_gitops.demo.cluster.store import Write
    from tests.simulation.network import Network
    from tests.support.verdict import Judge

_SUSPEND = {"op": "replace", "path": "/spec/suspend", "value": True}
_START = {"op": "replace", "path": "/spec/suspend", "value": False}


class People:
    """What they do, at random; they talk to the API server themselves."""

    def __init__(
        self, cluster: MemoryCluster, namespaces: Sequence[str], judge: Judge, rng: Random
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._namespaces = namespaces
        self._judge = judge
        self._rng = rng
        self._paused = False
        self._requests = 0

    async def act(self) -> None:
        """Do one thing to one Job, or to all."""
        rng = self._rng
        deeds: list[tuple[float, Any]] = [
            (4, lambda: self._act(APPROVE)),
            (1, lambda: self._act(REFUSE)),
            (1, lambda: self._act(CANCEL)),
            (1, self._suspend),
            (1, self._start),
            (1, self._delete),
            (2, self._switch),
        ]
        (deed,) = rng.choices([deed for _, deed in deeds], [weight for weight, _ in deeds])
        with suppress(ApiError):  # somebody else was quicker
            await deed()

    async def pause(self) -> None:
        """See that admission is to be paused."""
        if not self._paused:
            await self._switch()

    async def resume(self) -> None:
        """See that admission is not paused."""
        while self._paused:
            await self._switch()

    async def release(self) -> None:
        """Let run on what was suspended after it had been admitted."""
        for job in await self._jobs():
            remediation = read_remediation(job)
            if remediation.suspended and remediation.admitted_at and not remediation.finished:
                await self._change(job, _START)

    async def start_and_suspend(self, runs: float) -> None:
        """Start one that waits, let it run for so many seconds, and suspend it again."""
        jobs = [job for job in await self._jobs() if read_remediation(job).waiting]
        if not jobs:
            return
        job = self._rng.choice(jobs)
        self.counts["started and suspended"] += 1
        with suppress(ApiError):
            await self._change(job, _START)
            await asyncio.sleep(runs)
            await self._change(job, _SUSPEND)

    async def approve(self, uid: str) -> None:
        """Approve a Job that waits because its operario did not help."""
        for job in await self._jobs():
            remediation = read_remediation(job)
            if remediation.uid == uid and remediation.phase in APPROVE.phases:
                self.counts["approved what does not help"] += 1
                with suppress(ApiError):
                    await self._cluster.patch(
                        JOBS,
                        remediation.key.namespace,
                        remediation.key.name,
                        APPROVE.patch(remediation, "ada", ""),
                    )

    async def _jobs(self) -> list[dict[str, Any]]:
        return [
            job
            for namespace in self._namespaces
            for job in (await self._cluster.list(JOBS, namespace)).items
            if not is_forged(job)
        ]

    async def _act(self, action: JobAction) -> None:
        jobs = [
            job for job in map(read_remediation, await self._jobs()) if job.phase in action.phases
        ]
        if jobs:
            remediation = self._rng.choice(jobs)
            await asyncio.sleep(self._rng.choice((0.0, 0.0, 1.0)))  # between look and patch
            self.counts[action.done] += 1
            await self._cluster.patch(
                JOBS,
                remediation.key.namespace,
                remediation.key.name,
                action.patch(remediation, "ada", ""),
            )

    async def _suspend(self) -> None:
        jobs = [job for job in await self._jobs() if not job["spec"]["suspend"]]
        jobs = [job for job in jobs if not read_remediation(job).finished]
        if jobs:
            self.counts["suspended"] += 1
            await self._change(self._rng.choice(jobs), _SUSPEND)

    async def _start(self) -> None:
        jobs = [job for job in await self._jobs() if job["spec"]["suspend"]]
        jobs = [job for job in jobs if not read_remediation(job).finished]
        if jobs:
            self.counts["unsuspended"] += 1
            await self._change(self._rng.choice(jobs), _START)

    async def _delete(self) -> None:
        jobs = await self._jobs()
        if jobs:
            self.counts["deleted"] += 1
            metadata = self._rng.choice(jobs)["metadata"]
            self._judge.forgotten.add(metadata["uid"])
            await self._cluster.delete(
                JOBS, metadata["namespace"], metadata["name"], uid=metadata["uid"]
            )

    async def _change(self, job: dict[str, Any], operation: dict[str, Any]) -> None:
        metadata = job["metadata"]
        await self._cluster.patch(JOBS, metadata["namespace"], metadata["name"], [operation])

    async def _switch(self) -> None:
        """Pause, or resume, as the command line does."""
        self._paused = not self._paused
        self._requests += 1
        self.counts["paused" if self._paused else "resumed"] += 1
        data = {"paused": str(self._paused).lower(), "request": f"request-{self._requests}"}
        metadata = {"name": CONTROL, "namespace": NAMESPACE}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        while True:
            try:
                await ConfigMapStore(self._cluster, NAMESPACE).put(body, lambda: None)
            except Conflict:
                continue  # the leader acknowledged another in this very moment
            return


def pause_as_written(write: Write) -> bool | None:
    """What a write of the control means: an acknowledged pause, the wish to resume, or neither."""
    if write.resource != CONFIG_MAPS or write.after is None:
        return None
    if write.after["metadata"]["name"] != CONTROL:
        return None
    data = write.after["data"]
    if data["paused"] != "true":
        return False
    return True if data.get("acknowledged") == data["request"] else None


class Kueue:
    """A stand-in: starts what carries its label, and now and then stops it for a while."""

    def __init__(self, cluster: MemoryCluster, network: Network, rng: Random) -> None:
        self._cluster = cluster
        self._network = network
        self._rng = rng
        self._known: dict[str, None] = {}

    def told(self, write: Write) -> None:
        """A Job changed."""
        job = write.after
        if write.resource != JOBS or job is None:
            return
        if keys.KUEUE_QUEUE not in job["metadata"].get("labels", {}):
            return
        uid = job["metadata"]["uid"]
        if uid in self._known:
            return
        self._known[uid] = None
        admits = self._rng.uniform(0, 5)
        self._set(admits, job, suspended=False)
        if self._rng.random() < 0.3:
            evicts = admits + self._rng.uniform(0, 10)
            self._set(evicts, job, suspended=True)
            self._set(evicts + self._rng.uniform(0, 10), job, suspended=False)

    def _set(self, delay: float, job: dict[str, Any], *, suspended: bool) -> None:
        self._network.later(delay, self._begin, job, suspended)

    def _begin(self, job: dict[str, Any], suspended: bool) -> None:  # noqa: FBT001
        async def patch() -> None:
            metadata = job["metadata"]
            with suppress(ApiError):
                await self._cluster.patch(
                    JOBS,
                    metadata["namespace"],
                    metadata["name"],
                    [
                        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
                        {"op": "replace", "path": "/spec/suspend", "value": suspended},
                    ],
                )

        self._network.out_there(patch())

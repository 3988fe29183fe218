"""Large objects with the controller's labels, on a real API server: they cost no memory."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.cluster.api import CONFIG_MAP_METADATA, CONFIG_MAPS, JOB_STATES, JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain import keys
from tests.cluster.controlplane import COMPONENTS
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.cluster.api import Object, Resource
    from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

NAMESPACE = "default"
SIZE = 900_000  # of one object, in bytes
JOBS_AT_START = 60
JOBS_LATER = 20
SHARDS = 60
OURS = {keys.MANAGED_BY: keys.MANAGER}
MIB = 1024  # KiB, as the kernel counts


def forged_job(number: int) -> Object:
    """Return a Job with the controller's label, and a long variable."""
    variable = {"name": "LARGE", "value": "x" * SIZE}
    container = {"name": "main", "image": "registry.example/evil:1", "env": [variable]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"forged-{number:03}", "labels": OURS},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def forged_shard(number: int) -> Object:
    """Return a ConfigMap that looks like a part of the mirror."""
    metadata = {"name": f"{HEAD}-{number:032x}", "labels": {**OURS, keys.MIRROR: "true"}}
    data = {"index.json": "x" * SIZE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Attacker:
    """A user who may create Jobs and ConfigMaps."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def create(self, resource: Resource, objects: list[Object]) -> None:
        """Create objects."""

        async def create() -> None:
            api = await KubernetesApi.connect(self._kubeconfig)
            try:
                for body in objects:
                    await api.create(resource, NAMESPACE, body, timeout=60)
            finally:
                await api.close()

        asyncio.run(create())

    def names(self, resource: Resource, selector: str) -> list[str]:
        """List the names of objects."""

        def name(item: Object) -> str:
            return str(item["metadata"]["name"])

        async def names() -> list[str]:
            api = await KubernetesApi.connect(self._kubeconfig)
            try:
                listed = await api.list(
                    resource, NAMESPACE, label_selector=selector, read=name, timeout=120
                )
            finally:
                await api.close()
            return listed.items

        return asyncio.run(names())


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Start an API server and its etcd."""
    return private_control_plane(components=COMPONENTS[:2])


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create a repository with an operario."""
    repository = Repository(tmp_path_factory.mktemp("git") / "operarios")
    repository.write("Disk.json", operario("Disk"))
    repository.commit("Operarios")
    return repository


def started(plane: ControlPlane, repository: Repository, folder: Path, name: str) -> Replica:
    """Return a replica that is about to start."""
    return Replica(
        folder,
        name=name,
        kubeconfig=plane.kubeconfig,
        namespace=NAMESPACE,
        repository=repository.url,
        development=False,
    )


def peak(replica: Replica) -> int:
    """Return the most memory that a replica has used, in KiB."""
    status = Path(f"/proc/{replica.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def heal(replica: Replica, host: str) -> None:
    """Deliver an alert, which gets its Job."""
    code, answer = replica.deliver(alert("Disk", host=host))
    assert (code, answer["items"][0]["outcome"]) == (200, "created"), answer


def foreign(replica: Replica) -> str:
    """Return what the replica says about Jobs of others."""
    conditions: list[dict[str, Any]] = replica.get("/readyz")["conditions"]
    return next((str(item["message"]) for item in conditions if item["name"] == "foreign jobs"), "")


@pytest.fixture(scope="module")
def undisturbed(
    plane: ControlPlane, repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> int:
    """Return the most memory that a replica uses before somebody forges objects."""
    with started(plane, repository, tmp_path_factory.mktemp("a"), "a") as replica:
        replica.wait_for(lambda: replica.leads)
        heal(replica, "before")
        return peak(replica)


def test_forged_objects_cost_no_memory(
    plane: ControlPlane, repository: Repository, tmp_path: Path, undisturbed: int
) -> None:
    """A replica starts, leads and heals among 80 MB of forged Jobs and 60 MB of ConfigMaps."""
    attacker = Attacker(plane.kubeconfig)
    attacker.create(JOBS, [forged_job(number) for number in range(JOBS_AT_START)])
    attacker.create(CONFIG_MAPS, [forged_shard(number) for number in range(SHARDS)])
    later = range(JOBS_AT_START, JOBS_AT_START + JOBS_LATER)
    with started(plane, repository, tmp_path, "b") as replica:
        replica.wait_for(lambda: replica.leads)
        replica.wait_for(lambda: f"{JOBS_AT_START} Jobs" in foreign(replica))
        heal(replica, "at-start")
        attacker.create(JOBS, [forged_job(number) for number in later])
        replica.wait_for(lambda: f"{JOBS_AT_START + JOBS_LATER} Jobs" in foreign(replica))
        heal(replica, "later")
        replica.wait_for(lambda: len(attacker.names(CONFIG_MAP_METADATA, keys.MIRROR)) <= 2)
        most = peak(replica)
    jobs = attacker.names(JOB_STATES, f"{keys.MANAGED_BY}={keys.MANAGER}")
    assert sum(name.startswith("forged-") for name in jobs) == JOBS_AT_START + JOBS_LATER
    assert most - undisturbed < 64 * MIB, (most, undisturbed)

"""The two API servers of the contract: the in-memory cluster and a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

from openfero_gitops.cluster.api import CONFIG_MAPS, SERVICE_ACCOUNTS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.errors import NotFound
from tests.support.cluster import existing_kubeconfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer, Resource

SERVERS = ["memory", pytest.param("kubernetes", marks=pytest.mark.cluster)]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Return the kind of server that a test runs against."""
    name: str = request.param
    return name


@pytest.fixture
async def api(server: str, request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    """Yield a server with running controllers; it must not block the loop or leak a task."""
    before = asyncio.all_tasks()
    kubeconfig = request.getfixturevalue("kubeconfig") if server == "kubernetes" else None
    async with running(kubeconfig) as api_server:
        with blockbuster_ctx("openfero_gitops"):
            yield api_server
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


@asynccontextmanager
async def running(kubeconfig: Path | None) -> AsyncIterator[ApiServer]:
    """Run the in-memory cluster, or connect to a real one."""
    if kubeconfig is None:
        cluster = MemoryCluster()
        controllers = asyncio.create_task(cluster.run())
        yield cluster
        controllers.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await controllers
    else:
        real = await KubernetesApi.connect(kubeconfig)
        yield real
        await real.close()


@pytest.fixture
async def ns(api: ApiServer) -> AsyncIterator[str]:
    """Create a namespace for the test."""
    async with namespace_of(api) as name:
        yield name


@pytest.fixture
async def other_ns(api: ApiServer) -> AsyncIterator[str]:
    """Create a second namespace."""
    async with namespace_of(api) as name:
        yield name


@asynccontextmanager
async def namespace_of(api: ApiServer) -> AsyncIterator[str]:
    """Create a namespace, with everything that the cluster itself adds to it.

    It is created over HTTP because kubectl is slow.
    """
    name = f"contract-{secrets.token_hex(4)}"
    if not isinstance(api, KubernetesApi):
        yield name
        return
    await api._request("POST", "/api/v1/namespaces", 10, {"metadata": {"name": name}})
    async with asyncio.timeout(120):
        await until_exists(api, SERVICE_ACCOUNTS, name, "default")
        await until_exists(api, CONFIG_MAPS, name, "kube-root-ca.crt")
    yield name
    if existing_kubeconfig() is not None:
        await api._request("DELETE", f"/api/v1/namespaces/{name}", 10)


async def until_exists(api: ApiServer, resource: Resource, namespace: str, name: str) -> None:
    """Wait until an object exists."""
    while True:
        try:
            await api.get(resource, namespace, name)
        except NotFound:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.fixture
def compact(api: ApiServer, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that makes the server discard the history before a resourceVersion.

    With an external cluster it does nothing: that cluster has already discarded it.
    """
    if isinstance(api, MemoryCluster):
        return lambda _: api.compact()
    record: Path = request.getfixturevalue("kubeconfig").with_name("pids.json")
    if not record.exists():
        return lambda _: None
    port = json.loads(record.read_text())["ports"]["etcd"]

    def compact_etcd(version: str) -> None:
        compaction = urllib.request.Request(
            f"http://127.0.0.1:{port}/v3/kv/compaction",
            json.dumps({"revision": version, "physical": True}).encode(),
        )
        with urllib.request.urlopen(compaction, timeout=60) as response:
            response.read()

    return compact_etcd

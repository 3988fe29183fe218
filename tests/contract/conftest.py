"""The two servers of the contract: one in memory, and a real one."""

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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from openfero_gitops.cluster.api import ApiServer, Resource

SERVERS = ["memory", pytest.param("kubernetes", marks=pytest.mark.cluster)]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Say which of the two it is."""
    name: str = request.param
    return name


@pytest.fixture
async def api(server: str, request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    """Give a server whose controllers run; it may not block the loop, nor leave a task behind."""
    before = asyncio.all_tasks()
    kubeconfig = request.getfixturevalue("kubeconfig") if server == "kubernetes" else None
    async with running(kubeconfig) as one:
        with blockbuster_ctx("openfero_gitops"):
            yield one
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


@asynccontextmanager
async def running(kubeconfig: Path | None) -> AsyncIterator[ApiServer]:
    """Run the one in memory, or connect to a real one."""
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
    """Give a namespace of the test's own."""
    async with namespace_of(api) as name:
        yield name


@pytest.fixture
async def other_ns(api: ApiServer) -> AsyncIterator[str]:
    """Give another one."""
    async with namespace_of(api) as name:
        yield name


@asynccontextmanager
async def namespace_of(api: ApiServer) -> AsyncIterator[str]:
    """Make a namespace, with all that the cluster itself puts there.

    It is asked for over HTTP, since kubectl takes its time.
    """
    name = f"contract-{secrets.token_hex(4)}"
    if not isinstance(api, KubernetesApi):
        yield name
        return
    await api._request("POST", "/api/v1/namespaces", 10, {"metadata": {"name": name}})
    async with asyncio.timeout(30):
        await until_there(api, SERVICE_ACCOUNTS, name, "default")
        await until_there(api, CONFIG_MAPS, name, "kube-root-ca.crt")
    yield name
    await api._request("DELETE", f"/api/v1/namespaces/{name}", 10)


async def until_there(api: ApiServer, resource: Resource, namespace: str, name: str) -> None:
    """Wait until an object is there."""
    while True:
        try:
            await api.get(resource, namespace, name)
        except NotFound:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.fixture
def compact(api: ApiServer, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give a function that makes the server forget what was before a resourceVersion.

    With a cluster that somebody else runs it does nothing: that one is older than its memory.
    """
    if isinstance(api, MemoryCluster):
        return lambda _: api.compact()
    record: Path = request.getfixturevalue("kubeconfig").with_name("pids.json")
    if not record.exists():
        return lambda _: None
    port = json.loads(record.read_text())["ports"]["etcd"]

    def compact_etcd(version: str) -> None:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v3/kv/compaction",
            json.dumps({"revision": version, "physical": True}).encode(),
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            answer.read()

    return compact_etcd

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cluster.api import JOBS, PODS, ApiServer
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.errors import Invalid, NotFound
from tests.contract.objects import job

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import Object


async def test_log_of_no_pod(api: ApiServer, ns: str) -> None:
    """A Pod that does not exist has no log."""
    with pytest.raises(NotFound):
        await read(api, ns, "absent", "main")


async def test_log_of_no_container(api: ApiServer, ns: str) -> None:
    """A container that the Pod does not have is refused."""
    pod = await start(api, ns)
    with pytest.raises(Invalid, match="not valid for pod"):
        await read(api, ns, pod["metadata"]["name"], "other")


@pytest.mark.parametrize("server", ["memory"], indirect=True)
async def test_lines_and_limits(api: ApiServer, ns: str) -> None:
    """A log can begin with its last lines, and end after some bytes."""
    assert isinstance(api, MemoryCluster)  # (kwok's nodes have no logs)
    pod = (await start(api, ns, log="one\ntwo\nthrée\n"))["metadata"]["name"]
    assert await read(api, ns, pod, "main") == "one\ntwo\nthrée\n".encode()
    assert await read(api, ns, pod, "main", tail_lines=2) == "two\nthrée\n".encode()
    assert await read(api, ns, pod, "main", tail_lines=2, limit_bytes=5) == b"two\nt"
    followed = asyncio.create_task(read(api, ns, pod, "main", follow=True))
    await asyncio.sleep(0.05)
    assert not followed.done()
    await api.delete(PODS, ns, pod)
    assert await followed == "one\ntwo\nthrée\n".encode()


async def start(api: ApiServer, ns: str, **played: str) -> Object:
    """Start a Job that does not end; return its Pod, whose container runs."""
    await api.create(JOBS, ns, job("heal", {"run-for": "forever", **played}, suspend=False))
    async with asyncio.timeout(120):
        while True:
            for pod in (await api.list(PODS, ns)).items:
                if pod["status"].get("phase") == "Running":
                    return pod
            await asyncio.sleep(0.02)


async def read(api: ApiServer, ns: str, pod: str, container: str, **options: int) -> bytes:
    """Read a log."""
    return b"".join([piece async for piece in api.pod_log(ns, pod, container, **options)])  # type: ignore[arg-type]

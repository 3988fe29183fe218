from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openfero_gitops.cluster.api import JOBS, Change
from openfero_gitops.cluster.batches import await_batch
from openfero_gitops.cluster.client import KubernetesApi
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]

_KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{server}"}}}}]
users: [{{name: test, user: {{}}}}]
"""


@pytest.fixture(params=["http", "https"])
def tls(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Provide the TLS contexts of server and client, or none."""
    if request.param == "http":
        return None, None
    authority = Authority(tmp_path / "ca", "batches")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    return context, authority.client()


@asynccontextmanager
async def opened(
    respond: Respond, tls: tuple[ssl.SSLContext | None, ssl.SSLContext | None]
) -> AsyncGenerator[aiohttp.ClientResponse]:
    """Open a response of a server."""
    for_server, for_client = tls
    app = web.Application()
    app.router.add_get("/", respond)
    server = TestServer(app, scheme="https" if for_server else "http")
    await server.start_server(ssl=for_server)
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(server.make_url("/"), ssl=for_client or False) as response,
        ):
            yield response
    finally:
        await server.close()


async def test_nothing_is_read_while_events_gather(
    tls: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    """What arrives meanwhile stays in the socket, and is read together afterwards."""
    go_on, sent = asyncio.Event(), asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        for _ in range(3):
            await response.write(b" more")
            await asyncio.sleep(0.01)
        sent.set()
        await asyncio.Event().wait()
        return response

    async with opened(respond, tls) as response:
        assert await response.content.readany() == b"first"
        gathering = asyncio.create_task(await_batch(response, 1.0))
        await asyncio.sleep(0.01)
        go_on.set()
        await sent.wait()
        assert response.content.total_bytes == len("first") or gathering.done()
        await gathering
        assert await response.content.readany() == b" more more more"


async def test_a_connection_may_be_lost_meanwhile(
    tls: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    """The loss is noticed by the next read."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await asyncio.Event().wait()
        return response

    async with opened(respond, tls) as response:
        await response.content.readany()
        gathering = asyncio.create_task(await_batch(response, 0.1))
        await asyncio.sleep(0.01)
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()
        await gathering
        with pytest.raises(aiohttp.ClientError):
            await response.content.readany()


async def test_an_ended_response_is_not_waited_for() -> None:
    """After the end nothing gathers."""

    async def respond(_: web.Request) -> web.Response:
        return web.Response(body=b"all")

    async with opened(respond, (None, None)) as response, asyncio.timeout(30):
        await response.content.readany()
        await await_batch(response, 3600)


async def test_events_that_follow_closely_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first event, those that arrive within the time of a batch need few reads."""
    reads = 0
    read_chunk = KubernetesApi._chunk

    async def counted(*arguments: Any) -> bytes:
        nonlocal reads
        reads += 1
        return await read_chunk(*arguments)

    monkeypatch.setattr(KubernetesApi, "_chunk", counted)
    first_was_read = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for version in range(1, 31):
            metadata = {"name": "x", "namespace": "default", "resourceVersion": str(version)}
            event = {"type": "MODIFIED", "object": {"metadata": metadata}}
            await response.write(json.dumps(event).encode() + b"\n")
            if version == 1:
                await first_was_read.wait()
            await asyncio.sleep(0.005)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", events)
    async with TestServer(app) as server:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(_KUBECONFIG.format(server=server.make_url("/")))
        api = await KubernetesApi.connect(kubeconfig)
        versions = []
        batches = api.watch(JOBS, "default", resource_version="1", batch_seconds=lambda: 0.2)
        async with aclosing(batches) as watch:
            async for event in watch:
                versions.append(int(event.object["metadata"]["resourceVersion"]))
                if event.change is Change.MODIFIED:
                    first_was_read.set()
        await api.close()
    assert versions == [1, *range(1, 31)]
    assert reads < len(versions) / 2

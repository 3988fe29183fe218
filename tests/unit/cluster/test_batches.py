from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openfero_gitops.cluster.api import JOBS, Change
from openfero_gitops.cluster.batches import await_batch
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.domain.errors import Unavailable
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
clusters: [{{name: test, cluster: {{server: "{server}", certificate-authority: "{authority}"}}}}]
users: [{{name: test, user: {{}}}}]
"""


def _event(version: int) -> bytes:
    """Return a line of a watch."""
    metadata = {"name": "x", "namespace": "default", "resourceVersion": str(version)}
    return json.dumps({"type": "MODIFIED", "object": {"metadata": metadata}}).encode() + b"\n"


def _chunk(data: bytes) -> bytes:
    """Return data in the chunked transfer coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


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


def without_end(body: bytes) -> Respond:
    """Respond with the beginning of a body that never ends."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(body)
        await asyncio.Event().wait()
        return response

    return respond


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
        gathering = asyncio.create_task(await_batch(response, len("first"), 1.0))
        await asyncio.sleep(0.01)
        go_on.set()
        await sent.wait()
        assert response.content.total_bytes == len("first") or gathering.done()
        await gathering
        assert await response.content.readexactly(len(" more more more")) == b" more more more"


async def test_a_connection_may_be_lost_meanwhile(
    tls: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> None:
    """The loss is noticed by the next read."""
    async with opened(without_end(b"first"), tls) as response:
        await response.content.readany()
        gathering = asyncio.create_task(await_batch(response, len("first"), 0.1))
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
        await await_batch(response, len("all"), 3600)


async def test_what_was_read_already_is_not_waited_for() -> None:
    """A reader that was slow reads on at once."""
    respond = without_end(b"first, and more")
    async with opened(respond, (None, None)) as response, asyncio.timeout(30):
        await response.content.readexactly(len("first"))
        await await_batch(response, len("first"), 3600)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_server_may_close_the_connection_right_after_an_event(
    tmp_path: Path, end: str
) -> None:
    """This is Unavailable, at whatever moment the loss is noticed."""
    authority = Authority(tmp_path / "ca", "batches")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                connection, _ = listener.accept()
                with context.wrap_socket(connection, server_side=True) as tls:
                    while b"\r\n\r\n" not in tls.recv(65536):
                        pass
                    tls.sendall(
                        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunk(_event(2))
                    )
                    if end == "reset":
                        linger = struct.pack("ii", 1, 0)
                        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    kubeconfig = tmp_path / "kubeconfig"
    server = f"https://127.0.0.1:{listener.getsockname()[1]}"
    kubeconfig.write_text(_KUBECONFIG.format(server=server, authority=authority.certificate))
    api = await KubernetesApi.connect(kubeconfig)
    try:
        for _ in range(5):
            batches = api.watch(JOBS, "default", resource_version="1", batch_seconds=lambda: 0.05)
            async with aclosing(batches) as watch:
                with pytest.raises(Unavailable):
                    async for _event_of_job in watch:
                        pass
    finally:
        await api.close()
        listener.close()


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
            await response.write(_event(version))
            if version == 1:
                await first_was_read.wait()
            await asyncio.sleep(0.005)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", events)
    async with TestServer(app) as server:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(_KUBECONFIG.format(server=server.make_url("/"), authority=""))
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

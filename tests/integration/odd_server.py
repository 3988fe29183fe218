"""A loopback server that acts as a faulty API server, and a client of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from openfero_gitops.cluster.client import KubernetesApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

TOKEN = "s3cret-t0ken"


def kubeconfig(directory: Path, server: str, **user: Any) -> Path:
    """Write a kubeconfig for a server."""
    path = directory / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "odd", "cluster": {"server": server}}],
        "users": [{"name": "odd", "user": user or {"token": TOKEN}}],
        "contexts": [{"name": "odd", "context": {"cluster": "odd", "user": "odd"}}],
        "current-context": "odd",
    }
    path.write_text(json.dumps(content))
    return path


@dataclass
class Odd:
    """The configured answer of a faulty server, and the requests that it received."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
    requests: list[web.Request] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record a request and answer it."""
        self.requests.append(request)
        return await self.answer(request)


@asynccontextmanager
async def odd_api(
    directory: Path, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[tuple[KubernetesApi, Odd]]:
    """Run a server that answers every request with `answer`, and yield a client of it."""
    odd = Odd(answer)
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", odd.handle)
    async with TestServer(app) as server:
        api = await KubernetesApi.connect(kubeconfig(directory, str(server.make_url("/"))))
        try:
            yield api, odd
        finally:
            await api.close()


@asynccontextmanager
async def raw_api(
    directory: Path,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    scheme: str = "http",
) -> AsyncIterator[KubernetesApi]:
    """Run a server that handles every connection with `serve`, and yield a client of it."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    api = await KubernetesApi.connect(kubeconfig(directory, f"{scheme}://127.0.0.1:{port}"))
    try:
        yield api
    finally:
        await api.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read a request with a body; return its method and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lengths = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
    body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
    return head.split(" ", 1)[0], body

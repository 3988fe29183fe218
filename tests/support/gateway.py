"""A proxy on loopback in front of a real API server; a test can change the answer to any request.

It runs in a separate thread. Requests that no rule answers are forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml
from aiohttp import web
from aiohttp.connector import NEEDS_CLEANUP_CLOSED

from tests.cluster.controlplane import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Rule = Callable[[web.Request], Awaitable[web.StreamResponse | None]]

_PASSED_ON = ("Authorization", "Accept", "Accept-Encoding", "Content-Type")
_PATIENCE = 60.0


async def forward(_: web.Request) -> None:
    """Forward every request."""


class Gateway:
    """As a context manager it listens for as long as the block lasts.

    Args:
        kubeconfig: of the API server behind it.
        folder: where the kubeconfig for the gateway is written.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"]
        authority = b64decode(cluster.pop("certificate-authority-data")).decode()
        self._trust = ssl.create_default_context(cadata=authority)
        self.port = free_port()
        cluster["server"] = f"http://{LOOPBACK}:{self.port}"
        self.kubeconfig = folder / "through-the-gateway"
        self.kubeconfig.write_text(yaml.safe_dump(config))
        self.kubeconfig.chmod(0o600)
        self.rule: Rule = forward
        self.requests: list[tuple[str, str]] = []  # method and path, in order
        self._watches: set[web.StreamResponse] = set()
        self._silent = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway")
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self.rule = forward
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def silence(self) -> None:
        """Drop the events of all watches; their connections stay open."""
        self._silent = True

    def speak(self) -> None:
        """Forward the events of new watches again."""
        self._silent = False

    def break_watches(self) -> None:
        """Abort the connection of every watch."""

        async def cut() -> None:
            for watch in list(self._watches):
                if watch._req is not None and watch._req.transport is not None:
                    watch._req.transport.abort()

        self._do(cut())

    def count(self, method: str, part: str) -> int:
        """Count the requests of a method with this text in their path."""
        return sum(verb == method and part in path for verb, path in list(self.requests))

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE * 3)

    async def _start(self) -> None:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._trust, limit=0, enable_cleanup_closed=NEEDS_CLEANUP_CLOSED
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=["Accept-Encoding"],
        )
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._http is not None
        await self._runner.cleanup()
        await self._http.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        answer = await self.rule(request)
        return answer if answer is not None else await self._forward(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._http is not None
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        watches = request.query.get("watch") == "true"
        async with self._http.request(
            request.method,
            self._server + request.path_qs,
            data=await request.read(),
            headers=headers,
        ) as behind:
            answer = web.StreamResponse(status=behind.status)
            for name in ("Content-Type", "Content-Encoding", "Date", "Retry-After", "Warning"):
                if name in behind.headers:
                    answer.headers[name] = behind.headers[name]
            await answer.prepare(request)
            if watches:
                self._watches.add(answer)
            try:
                mute = watches and self._silent
                async for chunk in behind.content.iter_any():
                    mute = mute or (watches and self._silent)
                    if not mute:
                        await answer.write(chunk)
                with contextlib.suppress(ConnectionError):
                    await answer.write_eof()
            finally:
                self._watches.discard(answer)
                if behind.connection is not None and behind.connection.transport is not None:
                    # A TLS shutdown could outlast the loop.
                    behind.connection.transport.abort()
        return answer


def status(
    code: int,
    reason: str = "",
    message: str = "no",
    headers: Mapping[str, str] | None = None,
    **details: Any,
) -> web.Response:
    """Return the response of an API server that refuses a request."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }
    return web.json_response(body, status=code, headers=headers)

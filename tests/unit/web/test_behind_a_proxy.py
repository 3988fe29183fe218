"""The pages behind a reverse proxy that signs people in, as the page about access describes it.

The proxy here does what oauth2-proxy does: it removes the user header of its client, sets its own,
adds the client's address to X-Forwarded-For, passes the Host on, and streams.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest
from aiohttp import web

from openfero_gitops.domain.network import parse_network
from openfero_gitops.web.auth import Cause, Door, Guard
from openfero_gitops.web.proxies import TrustedProxies
from openfero_gitops.web.server import Address
from openfero_gitops.web.stream.history import EventHistory
from openfero_gitops.web.stream.streams import EventStreams
from tests.support.replica import alert, group
from tests.support.serving import Inbox, local_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openfero_gitops.web.auth import Caller
    from openfero_gitops.web.server import Server

USER: Final = "X-Forwarded-User"
#: What a proxy does not pass on.
HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
#: Sessions of the proxy, by cookie.
SESSIONS: Final = {"session=a": "anna", "session=b": "berta@example.com"}


class Watched(Guard):
    """A guard that remembers whom it let in."""

    callers: list[Caller]

    def check(self, request: web.Request) -> Caller:
        """Remember who calls."""
        caller = super().check(request)
        self.callers.append(caller)
        return caller


@asynccontextmanager
async def reverse_proxy(upstream: str) -> AsyncIterator[str]:
    """Serve what oauth2-proxy would; give its address."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            user = SESSIONS.get(request.headers.get("Cookie", ""))
            if user is None:
                return web.Response(status=302, headers={"Location": "/oauth2/start"})
            headers = request.headers.copy()
            for name in HOP_BY_HOP | {USER.lower(), "cookie"}:
                headers.popall(name, None)
            headers[USER] = user
            forwarded = [*request.headers.getall("X-Forwarded-For", ()), request.remote or ""]
            headers["X-Forwarded-For"] = ", ".join(forwarded)
            async with session.request(
                request.method, upstream + request.raw_path, headers=headers,
                data=await request.read(), allow_redirects=False,
            ) as answer:  # fmt: skip
                response = web.StreamResponse(status=answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        response.headers.add(name, value)
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
            return response

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


class Installation:
    """A replica behind a proxy."""

    def __init__(self, trusted: str) -> None:
        self.inbox = Inbox()
        self.refused: list[tuple[Door, Cause]] = []
        self.guard = Watched(
            None,
            certificate=False,
            proxies=TrustedProxies((parse_network(trusted),), USER),
            count=lambda door, cause: self.refused.append((door, cause)),
        )
        self.guard.callers = []
        self.history = EventHistory("test")
        self.server: Server = local_server(
            deliveries=self.inbox,
            streams=EventStreams(self.history),
            web_guard=self.guard,
            web_listen=Address("127.0.0.1", 0),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[str, str, aiohttp.ClientSession]]:
        """Start everything; give the addresses of the proxy and of the pages, and a client."""
        await self.server.start()
        pages = f"http://{self.server.bound[1]}"
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                reverse_proxy(pages) as proxy,
                aiohttp.ClientSession(timeout=timeout) as client,
            ):
                yield proxy, pages, client
        finally:
            await self.server.stop()


async def status(client: aiohttp.ClientSession, url: str, **headers: str) -> int:
    """Return the status of a GET."""
    async with client.get(url, headers=headers, allow_redirects=False) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("path", ["/", "/api/about", "/remediations"])
async def test_people_sign_in_at_the_proxy(path: str) -> None:
    """The proxy's session says who it is, whatever headers the browser sends."""
    installation = Installation("127.0.0.1")
    async with installation.running() as (proxy, _, client):
        assert await status(client, proxy + path) == 302
        assert await status(client, proxy + path, **{USER: "root"}) == 302
        forged = {"Cookie": "session=a", USER: "root", "X-Forwarded-For": "203.0.113.9"}
        assert await status(client, proxy + path, **forged) == 200
        assert await status(client, proxy + path, Cookie="session=b") == 200
    assert [caller.name for caller in installation.guard.callers] == ["anna", "berta@example.com"]
    assert installation.refused == []


async def test_past_the_proxy_nobody_enters() -> None:
    """From the proxy's address without a user, and from another address, requests are refused."""
    installation = Installation("127.0.0.1")
    async with installation.running() as (_, pages, client):
        assert await status(client, pages + "/") == 403
        assert await status(client, pages + "/", **{USER: "anna", "Origin": "http://x"}) == 403
        assert await status(client, pages + "/livez") == 200
        two = [(USER, "anna"), (USER, "root")]
        async with client.get(pages + "/", headers=two) as answer:
            assert answer.status == 403
            assert "more than once" in await answer.text()
    elsewhere = Installation("192.0.2.1")
    async with elsewhere.running() as (proxy, pages, client):
        for url in (proxy, pages):
            forged = {"Cookie": "session=a", USER: "anna", "X-Forwarded-For": "192.0.2.1"}
            assert await status(client, url + "/api/about", **forged) == 403
    assert elsewhere.guard.callers == []
    assert set(elsewhere.refused) == {(Door.PAGES, Cause.PROXY)}


async def test_the_proxy_reaches_no_webhook() -> None:
    """Who signed in at the proxy can send no alerts: the webhook is on another listener."""
    installation = Installation("127.0.0.1")
    async with installation.running() as (proxy, pages, client):
        body = group(alert("HostDown"))
        for url in (proxy, pages):
            headers = {USER: "anna", "Cookie": "session=a"}
            async with client.post(f"{url}/alert", json=body, headers=headers) as answer:
                assert answer.status == 404
    assert installation.inbox.groups == []


async def test_events_pass_the_proxy() -> None:
    """The event stream reaches the browser through the proxy while it is open."""
    installation = Installation("127.0.0.1")
    async with installation.running() as (proxy, _, client):
        headers = {"Cookie": "session=a", "Accept": "text/event-stream"}
        async with client.get(f"{proxy}/api/events", headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            async with asyncio.timeout(60):
                assert await answer.content.readany()


async def test_people_see_who_they_are() -> None:
    """The page about the controller shows the name and the address that the proxy gave."""
    installation = Installation("127.0.0.1")
    async with installation.running() as (proxy, _, client):
        headers = {"Cookie": "session=b", "Accept": "text/html"}
        async with client.get(f"{proxy}/about", headers=headers) as answer:
            text = await answer.text()
    assert "berta@example.com" in text
    assert "as the proxy 127.0.0.1 says" in text

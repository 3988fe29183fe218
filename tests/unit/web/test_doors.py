"""Checks every route of the server, so that none is forgotten."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from openfero_gitops.app import Controller
from openfero_gitops.cluster.api import LEASES
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.network import parse_network
from openfero_gitops.settings import load_settings
from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.proxies import TrustedProxies
from openfero_gitops.web.server import Address
from tests.support.serving import local_server
from tests.support.workers import Commits, operario_file, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from openfero_gitops.web.server import Server

#: Need no authentication: probes, metrics, and files that are the same in each installation.
OPEN = re.compile("/(livez|readyz|healthz|readiness|startupz|metrics|static/.*)")
#: The only routes that read a body. Of these, only the webhook and the push hook change anything.
WITH_BODY = {"/alerts", "/alerts/", "/alert", "/alert/", "/hooks/git", "/explain", "/api/explain"}


def routes(server: Server) -> list[tuple[int, str, str]]:
    """Return listener, method and path of each route; variable parts of paths are `x`."""
    return [
        (number, route.method, re.sub(r"{[^}]*}", "x", route.resource.canonical))
        for number, listener in enumerate(server._listeners)
        for route in listener.app.router.routes()
        if route.resource is not None
    ]


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Asking]:
    """Start a server, and give what sends requests to it."""
    await server.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield Asking(server, session)
    finally:
        await server.stop()


class Asking:
    """Sends requests, and reads the head of each answer."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def head(
        self, listener: int, method: str, path: str, **headers: str
    ) -> aiohttp.ClientResponse:
        """Return the head of an answer."""
        url = f"http://{self._server.bound[listener]}{path}"
        async with self._session.request(
            method, url, headers=headers, allow_redirects=False
        ) as answer:
            return answer


def test_every_route_only_reads() -> None:
    """Only the webhook, the push hook and what explains an alert accept other methods than GET."""
    server = local_server(web_listen=Address("127.0.0.1", 0))
    writing = {(number, path) for number, method, path in routes(server) if method == "POST"}
    assert {path for _, path in writing} == WITH_BODY
    assert {number for number, path in writing if "explain" in path} == {1}
    assert {number for number, path in writing if "explain" not in path} == {0}
    assert {method for _, method, _ in routes(server)} == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("login", ["credentials", "certificate", "proxy"])
async def test_every_route_is_guarded(tmp_path: Path, login: str) -> None:
    """Without authentication, each route but probes, metrics and files is refused."""
    (tmp_path / "token").write_text("t0ken\n")
    guard = {
        "credentials": Guard(Credentials("bearer", tmp_path / "token"), certificate=False),
        "certificate": Guard(None, certificate=True),
        "proxy": Guard(
            None,
            certificate=False,
            proxies=TrustedProxies((parse_network("192.0.2.1"),), "X-Forwarded-User"),
        ),
    }[login]
    server = local_server(web_guard=guard, webhook_guard=guard)
    refused = 0
    async with asking(server) as ask:
        for number, method, path in routes(server):
            forged = {"X-Forwarded-User": "root", "X-Forwarded-For": "192.0.2.1"}
            answer = await ask.head(number, method, path, Accept="text/html", **forged)
            if OPEN.fullmatch(path):
                assert answer.status in (200, 404), path
                continue
            expected = 403 if login == "proxy" or path == "/hooks/git" else 401
            assert answer.status == expected, (method, path)
            refused += 1
    assert refused > 20


async def test_the_headers_of_every_route() -> None:
    """Each route's answers, good or bad, forbid what browsers could be made to do with them."""
    server = local_server()
    async with asking(server) as ask:
        for number, method, path in routes(server):
            for sent, query, accept in (
                (method, "", "*/*"),
                (method, "", "text/html"),
                (method, "?no-such=parameter", "text/html"),
                ("DELETE", "", "text/html"),
            ):
                answer = await ask.head(number, sent, path + query, Accept=accept)
                told = (sent, path + query, answer.status, dict(answer.headers))
                assert answer.status not in (302, 500), told
                assert answer.headers["X-Content-Type-Options"] == "nosniff", told
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; "), told
                assert "frame-ancestors 'none'" in policy, told
                assert "script-src" not in policy or "script-src 'self'" in policy, told
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin", told
                assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", told
                assert answer.headers["Referrer-Policy"] in ("no-referrer", "same-origin"), told
                assert "camera=()" in answer.headers["Permissions-Policy"], told
                assert answer.headers["Server"] == "openfero-gitops", told
                assert "Set-Cookie" not in answer.headers, told
                assert "Access-Control-Allow-Origin" not in answer.headers, told
                stored = path.startswith(("/static/", "/swagger/"))
                caching = answer.headers["Cache-Control"]
                assert stored or "no-store" in caching or "no-cache" in caching, told


class Recorded:
    """An API server that notes which methods are called."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Note a method, and return it."""
        self.calls.append(name)
        return getattr(self._cluster, name)


async def test_reading_changes_nothing_in_the_cluster(tmp_path: Path) -> None:
    """No GET of any route makes a request to the API server that could change something."""
    settings = load_settings(
        {
            "repo": "https://git.example/ops",
            "listen": "127.0.0.1:0",
            "namespace": "controller",
            "cache_dir": tmp_path,
            "shutdown_delay": "0",
        }
    )
    source = Commits()
    source.commit({"disk.yaml": operario_file("disk")})
    cluster = MemoryCluster()
    # Another replica leads, because the leader writes of its own accord.
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lease = {"holderIdentity": "other", "leaseDurationSeconds": 3600, "renewTime": now}
    body = {"metadata": {"name": "openfero-gitops"}, "spec": lease}
    await cluster.create(LEASES, "controller", body)
    api = Recorded(cluster)
    namespaces = settings.resolve_namespaces("controller")
    controller = Controller(settings, namespaces, api, source, "in memory")
    stop = asyncio.Event()
    started = asyncio.Event()
    running = asyncio.create_task(controller.run(stop, lambda _: started.set()))
    try:
        await started.wait()
        await until(lambda: controller.syncer.catalog is not None and controller.view.complete)
        api.calls.clear()
        url = f"http://{controller.server.bound[0]}"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            for _, method, path in routes(controller.server):
                for name in ("x", "disk"):
                    if method in ("GET", "HEAD") or "explain" in path:
                        address = url + path.replace("/x", f"/{name}")
                        async with session.request(method, address, data=b"{}") as answer:
                            assert answer.status < 500, path
        assert set(api.calls) <= {"get", "list", "watch", "pod_log", "version"}
    finally:
        stop.set()
        await running

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from openfero_gitops.cluster import client as kubernetes
from openfero_gitops.cluster.api import CONFIG_MAPS, JOBS, SERVICE_ACCOUNTS, Change
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.listwatch import ListWatch, Pace
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
)
from openfero_gitops.domain.feed import Changed, Failed, Listed
from tests.cluster.controlplane import COMPONENTS
from tests.contract.objects import config_map, job
from tests.integration.odd_server import (
    TOKEN,
    kubeconfig,
    odd_api,
    raw_api,
    read_request,
)
from tests.support.gateway import status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from openfero_gitops.cluster.api import WatchEvent
    from tests.cluster.controlplane import ControlPlane
    from tests.support.cluster import Kubectl


def sockets() -> int:
    """Return the number of this process's sockets."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            count += str(each.readlink()).startswith("socket:")
    return count


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """Fail a test that leaks a task or a connection."""
    tasks, connections = asyncio.all_tasks(), sockets()
    yield
    assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}
    # (A connection whose peer was killed may be released a few iterations of the loop later.)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while sockets() > connections:  # noqa: ASYNC110 - the kernel tells no event
                await asyncio.sleep(0.05)
    assert sockets() <= connections


async def read(api: KubernetesApi, timeout: float = 30, version: str = "7") -> list[WatchEvent]:
    """Read a watch to its end."""
    watch = api.watch(JOBS, "shop", resource_version=version, timeout=timeout)
    async with aclosing(watch) as events:
        return [each async for each in events]


async def drain(events: AsyncGenerator[Any, None], into: list[Any], pause: float = 0) -> None:
    """Read a stream to its end, which may be an error."""
    async for each in events:
        into.append(each)
        await asyncio.sleep(pause)


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Yield a list to which the duration of the block in seconds is appended."""
    began = time.monotonic()
    taken: list[float] = []
    try:
        yield taken
    finally:
        taken.append(time.monotonic() - began)


# Error responses.


@pytest.mark.parametrize(
    ("code", "reason", "error", "answered"),
    [
        (302, "", Unavailable, True),
        (400, "BadRequest", Invalid, True),
        (401, "Unauthorized", Unauthorized, True),
        (403, "Forbidden", Forbidden, True),
        (404, "NotFound", NotFound, True),
        (405, "MethodNotAllowed", Unavailable, True),
        (409, "AlreadyExists", AlreadyExists, True),
        (409, "Conflict", Conflict, True),
        (410, "Expired", Expired, True),
        (413, "RequestEntityTooLarge", Invalid, True),
        (422, "Invalid", Invalid, True),
        (429, "TooManyRequests", Throttled, True),
        (500, "InternalError", Unavailable, False),
        (503, "ServiceUnavailable", Unavailable, False),
        (504, "Timeout", Unavailable, False),
    ],
)
async def test_error_responses(
    tmp_path: Path,
    code: int,
    reason: str,
    error: type[ApiError],
    answered: bool,  # noqa: FBT001, pytest gives it by name
) -> None:
    """Each status maps to the error that determines the next step, with the message on one line."""

    async def answer(_: web.Request) -> web.Response:
        return status(code, reason, "it is\n  so")

    async with odd_api(tmp_path, answer) as (api, _):
        with pytest.raises(error) as refused:
            await api.create(JOBS, "shop", job("heal"))
        with pytest.raises(error):
            await read(api)
    assert type(refused.value) is error
    assert refused.value.answered is answered
    assert error is Unauthorized or str(refused.value) == "it is so"


async def test_unauthorized_names_the_credentials(tmp_path: Path) -> None:
    """The error of a 401 names the server and the kubeconfig, and contains no token."""

    async def answer(_: web.Request) -> web.Response:
        return status(401, "Unauthorized", f"bad token {TOKEN}")

    async with odd_api(tmp_path, answer) as (api, _):
        with pytest.raises(Unauthorized) as refused:
            await api.get(JOBS, "shop", "heal")
        assert str(refused.value) == (
            f"{api.server} rejects the credentials from {tmp_path / 'kubeconfig'}"
        )


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("7", {}, 7),
        ("7", {"retryAfterSeconds": 3}, 7),
        ("", {"retryAfterSeconds": 3}, 3),
        ("", {"retryAfterSeconds": "soon"}, 1),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, 1),
        ("9" * 400, {}, 600),
        ("", {}, 1),
    ],
)
async def test_throttled(
    tmp_path: Path, header: str, details: dict[str, Any], seconds: float
) -> None:
    """The delay after a 429 is that of its header or its body, or one second."""

    async def answer(_: web.Request) -> web.Response:
        response = status(429, "TooManyRequests", **details)
        if header:
            response.headers["Retry-After"] = header
        return response

    async with odd_api(tmp_path, answer) as (api, odd):
        with pytest.raises(Throttled) as refused:
            await api.create(JOBS, "shop", job("heal"))
        assert len(odd.requests) == 1
    assert refused.value.retry_after == seconds


async def test_long_message(tmp_path: Path) -> None:
    """A message that quotes a whole object is shortened in its middle: the cause is at its end."""

    async def answer(_: web.Request) -> web.Response:
        return status(422, "Invalid", f"spec.template: {'x' * 100_000}: field is immutable")

    async with odd_api(tmp_path, answer) as (api, _):
        with pytest.raises(
            Invalid, match=r"^spec\.template: x+ … x+: field is immutable$"
        ) as error:
            await api.create(JOBS, "shop", job("heal"))
    assert len(str(error.value)) < 1100


@pytest.mark.parametrize("body", ["<html>", "[1]", "null", '{"kind": "Job"', ""])
async def test_garbage(tmp_path: Path, body: str) -> None:
    """After a 200 that is not a JSON object the outcome of a request is unknown."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    async with odd_api(tmp_path, answer) as (api, _):
        with pytest.raises(Unavailable) as refused:
            await api.create(JOBS, "shop", job("heal"))
        assert api.server in str(refused.value)
    assert not refused.value.answered


async def test_page_of_a_proxy(tmp_path: Path) -> None:
    """An error page of an intermediary is reported by its status and not quoted."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>\nBad Gateway</html>")

    async with odd_api(tmp_path, answer) as (api, _):
        with pytest.raises(Unavailable, match=r"^HTTP 502 from 127\.0\.0\.1:\d+$"):
            await api.get(JOBS, "shop", "heal")


async def test_redirect_is_not_followed(tmp_path: Path) -> None:
    """A redirect is not followed, so that no other host gets the token or the object."""

    async def answer(_: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    async with odd_api(tmp_path, answer) as (api, odd):
        with pytest.raises(Unavailable):
            await api.create(JOBS, "shop", job("heal"))
        assert [request.path for request in odd.requests] == ["/apis/batch/v1/namespaces/shop/jobs"]


async def test_warnings(tmp_path: Path) -> None:
    """Warnings of the server are returned with the created object, unescaped, also in a dry run."""

    async def answer(request: web.Request) -> web.Response:
        response = web.json_response(await request.json(), status=201)
        response.headers.add("Warning", r'299 - "would violate \"restricted\""')
        response.headers.add("Warning", '299 - "unknown field", 299 kube "two"')
        response.headers.add("Warning", '199 - "not for us"')
        return response

    async with odd_api(tmp_path, answer) as (api, odd):
        for dry_run in (False, True):
            created = await api.create(JOBS, "shop", job("heal"), dry_run=dry_run)
            assert created.warnings == ('would violate "restricted"', "unknown field", "two")
        assert [request.query.get("dryRun") for request in odd.requests] == [None, "All"]


async def test_request_headers(tmp_path: Path) -> None:
    """Each request has the token and the name of the program."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    async with odd_api(tmp_path, answer) as (api, odd):
        await api.get(JOBS, "shop", "heal")
        headers = odd.requests[0].headers
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["User-Agent"].startswith("openfero-gitops/")


# Missing responses.


async def test_connection_refused(tmp_path: Path) -> None:
    """A refused connection means that the request was not carried out; the cause is readable."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    async with odd_api(tmp_path, answer) as (closed_api, _):
        server = closed_api.server
    api = await KubernetesApi.connect(kubeconfig(tmp_path, f"http://{server}"))
    with pytest.raises(Unavailable) as refused:
        await api.create(JOBS, "shop", job("heal"))
    await api.close()
    assert refused.value.answered
    assert str(refused.value) == f"{server} cannot be reached: Connection refused"


async def test_no_response(tmp_path: Path) -> None:
    """A server that accepts a request and does not respond is given up at the deadline."""
    taken: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        taken.append(await read_request(reader))
        await reader.read()

    async with raw_api(tmp_path, serve) as api:
        with stopwatch() as watch, pytest.raises(Unavailable) as refused:
            await api.create(JOBS, "shop", job("heal"), timeout=0.5)
    assert watch[0] > 0.4
    assert not refused.value.answered
    assert "no response within 0.5 s" in str(refused.value)
    assert len(taken) == 1


async def test_endless_response(tmp_path: Path) -> None:
    """A response that never ends is given up at the deadline."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with odd_api(tmp_path, answer) as (api, _):
        with stopwatch() as watch, pytest.raises(Unavailable):
            await api.get(JOBS, "shop", "heal", timeout=0.5)
        with pytest.raises(Unavailable):
            await api.list(JOBS, "shop", timeout=0.5)
    assert watch[0] > 0.4


async def test_tls_handshake_that_never_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS handshake that never starts has its own, shorter deadline."""
    monkeypatch.setattr(kubernetes, "CONNECT_SECONDS", 0.5)

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    async with raw_api(tmp_path, serve, "https") as api:
        with stopwatch() as watch, pytest.raises(Unavailable) as refused:
            await api.create(JOBS, "shop", job("heal"), timeout=300)
    assert 0.4 < watch[0] < 200
    assert refused.value.answered
    assert "did not accept a connection within" in str(refused.value)


async def test_server_without_tls(tmp_path: Path) -> None:
    """A server that does not speak TLS is reported as such; nothing was sent."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_api(tmp_path, serve, "https") as api:
        with pytest.raises(Unavailable, match="TLS failed") as refused:
            await api.create(JOBS, "shop", job("heal"))
    assert refused.value.answered


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_write_is_sent_once(tmp_path: Path, method: str) -> None:
    """A write whose connection is closed without a response is not repeated."""
    writes: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            received, _ = await read_request(reader)
            if received != "GET":
                writes.append(received)
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()

    async with raw_api(tmp_path, serve) as api:
        await api.get(JOBS, "shop", "heal")  # from here on the connection is pooled
        write = {
            "POST": lambda: api.create(JOBS, "shop", job("heal")),
            "PUT": lambda: api.replace(JOBS, "shop", job("heal")),
            "PATCH": lambda: api.patch(JOBS, "shop", "heal", []),
            "DELETE": lambda: api.delete(JOBS, "shop", "heal"),
        }[method]
        with pytest.raises(Unavailable) as refused:
            await write()
    assert writes == [method]
    assert not refused.value.answered


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
async def test_broken_responses(tmp_path: Path, sent: bytes) -> None:
    """A truncated response, or one that is not HTTP, is Unavailable."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await writer.drain()

    async with raw_api(tmp_path, serve) as api:
        with pytest.raises(Unavailable) as refused:
            await api.create(JOBS, "shop", job("heal"), timeout=5)
        assert api.server in str(refused.value)
    assert not refused.value.answered


async def test_cancelling(tmp_path: Path) -> None:
    """Cancelling a caller takes effect at once and closes its connection."""
    requested, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        requested.set()
        await reader.read()
        closed.set()

    async with raw_api(tmp_path, serve) as api, asyncio.timeout(60):
        call = asyncio.create_task(api.create(JOBS, "shop", job("heal")))
        await requested.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await closed.wait()


async def test_closed_client(tmp_path: Path) -> None:
    """A closed client rejects requests as not sent, even if it was closed twice."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    async with odd_api(tmp_path, answer) as (api, _):
        await api.close()
        await api.close()
        with pytest.raises(Unavailable, match="has been closed") as refused:
            await api.get(JOBS, "shop", "heal")
    assert refused.value.answered


# Paged lists.


def page(names: range, following: str = "") -> web.Response:
    """Return a page of a list."""
    items = [{"metadata": {"name": f"n-{n}"}} for n in names]
    return web.json_response(
        {"metadata": {"resourceVersion": "9", "continue": following}, "items": items}
    )


async def test_pages(tmp_path: Path) -> None:
    """A list requests pages of 500 and joins them."""

    async def answer(request: web.Request) -> web.Response:
        start = int(request.query.get("continue") or 0)
        return page(range(start, start + 500), str(start + 500) if start < 1000 else "")

    async with odd_api(tmp_path, answer) as (api, odd):
        listing = await api.list(JOBS, "shop", label_selector="a in (b,c),!d")
        queries = [dict(request.query) for request in odd.requests]
    assert [item["metadata"]["name"] for item in listing.items] == [f"n-{n}" for n in range(1500)]
    assert listing.resource_version == "9"
    first = {"limit": "500", "labelSelector": "a in (b,c),!d"}
    assert queries == [first, first | {"continue": "500"}, first | {"continue": "1000"}]


async def test_page_that_expired(tmp_path: Path) -> None:
    """A list whose continue token expires restarts, and contains nothing twice."""
    expired = [True]

    async def answer(request: web.Request) -> web.Response:
        if "continue" not in request.query:
            return page(range(500), "next")
        if expired:
            expired.pop()
            return status(410, "Expired")
        return page(range(500, 600))

    async with odd_api(tmp_path, answer) as (api, odd):
        listing = await api.list(JOBS, "shop")
        assert len(odd.requests) == 4
    assert len(listing.items) == len({item["metadata"]["name"] for item in listing.items}) == 600


async def test_pages_that_always_expire(tmp_path: Path) -> None:
    """A list whose continue token always expires is given up."""

    async def answer(request: web.Request) -> web.Response:
        return status(410, "Expired") if "continue" in request.query else page(range(5), "next")

    async with odd_api(tmp_path, answer) as (api, _):
        with pytest.raises(Expired):
            await api.list(JOBS, "shop")


# Watches.


def line(kind: str, version: int, **fields: Any) -> bytes:
    """Return an event as it is sent."""
    changed = {"metadata": {"name": "heal", "resourceVersion": str(version)}, **fields}
    return json.dumps({"type": kind, "object": changed}).encode() + b"\n"


def stream(*chunks: bytes, hold: bool = False) -> Callable[[web.Request], Any]:
    """Return a handler that sends chunks, and then ends or stays silent."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)
        if hold:
            await asyncio.sleep(60)
        return response

    return answer


async def test_parameters_of_a_watch(tmp_path: Path) -> None:
    """A watch requests bookmarks, a timeout, a version and a selector."""
    async with odd_api(tmp_path, stream()) as (api, odd):
        watch = api.watch(JOBS, "shop", resource_version="7", label_selector="a=b", timeout=12.5)
        async with aclosing(watch) as events:
            assert [each.change async for each in events] == [Change.BOOKMARK]
        assert dict(odd.requests[0].query) == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "7",
            "timeoutSeconds": "13",
            "labelSelector": "a=b",
        }


async def test_events_across_chunks(tmp_path: Path) -> None:
    """Events arrive complete, however the stream is split and however long they are."""
    large = line("MODIFIED", 9, data="x" * 5_000_000)
    sent = line("ADDED", 8) + large + line("BOOKMARK", 10) + line("DELETED", 11)
    cuts = [0, 3, 50, 700_000, len(sent) - 150, len(sent) - 1, len(sent)]
    chunks = [sent[a:b] for a, b in pairwise(cuts)]
    async with odd_api(tmp_path, stream(*chunks)) as (api, _):
        events = await read(api)
    assert [(each.change, each.object["metadata"]["resourceVersion"]) for each in events] == [
        ("BOOKMARK", "7"),
        ("ADDED", "8"),
        ("MODIFIED", "9"),
        ("BOOKMARK", "10"),
        ("DELETED", "11"),
    ]
    assert len(events[2].object["data"]) == 5_000_000


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n', Expired),
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 429}}\n', Throttled),
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}\n', Unavailable),
        (b'{"type": "ERROR", "object": {}}\n', Unavailable),
        (b'{"type": "ERROR"}\n', Unavailable),
        (b'{"type": "ODD", "object": {"metadata": {"resourceVersion": "8"}}}\n', Unavailable),
        (b'{"type": "ADDED", "object": {}}\n', Unavailable),
        (b'{"type": "ADDED", "object": 7}\n', Unavailable),
        (b"null\n", Unavailable),
        (b"garbage\n", Unavailable),
        (b'{"type": "ADDED", "object": {"meta', Unavailable),
        (b"\xff\xfe\n", Unavailable),
    ],
)
async def test_errors_in_a_watch(tmp_path: Path, sent: bytes, error: type[ApiError]) -> None:
    """An error inside a watch is raised after the events before it."""
    async with odd_api(tmp_path, stream(line("ADDED", 8), sent)) as (api, _):
        seen: list[WatchEvent] = []
        async with aclosing(api.watch(JOBS, "shop", resource_version="7")) as events:
            with pytest.raises(error):
                await drain(events, seen)
    assert [each.change for each in seen] == [Change.BOOKMARK, Change.ADDED]


async def test_interrupted_watch(tmp_path: Path) -> None:
    """A watch whose connection is interrupted is Unavailable, not ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        event = line("ADDED", 8)
        size = f"{len(event):x}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(size + b"\r\n" + event + b"\r\n")
        await writer.drain()

    async with raw_api(tmp_path, serve) as api:
        with pytest.raises(Unavailable):
            await read(api)


async def test_silent_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that is silent beyond its timeout is given up soon after."""
    monkeypatch.setattr(kubernetes, "WATCH_GRACE_SECONDS", 0.3)
    async with odd_api(tmp_path, stream(line("ADDED", 8), hold=True)) as (api, _):
        with stopwatch() as watch, pytest.raises(Unavailable, match="has stalled"):
            await read(api, timeout=0.7)
    assert 0.9 < watch[0] < 50


async def test_watch_without_a_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch without a response status is given up long before its timeout."""
    monkeypatch.setattr(kubernetes, "WATCH_START_SECONDS", 0.3)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with odd_api(tmp_path, answer) as (api, _):
        with stopwatch() as watch, pytest.raises(Unavailable):
            await read(api, timeout=300)
    assert watch[0] < 50


async def test_slow_reader_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of a watch never interrupts the reader in other work."""
    monkeypatch.setattr(kubernetes, "WATCH_GRACE_SECONDS", 0.1)
    async with odd_api(tmp_path, stream(line("ADDED", 8), hold=True)) as (api, _):
        watch = api.watch(JOBS, "shop", resource_version="7", timeout=0.2)
        async with aclosing(watch) as events:
            seen: list[WatchEvent] = []
            with pytest.raises(Unavailable):
                await drain(events, seen, pause=1)
    assert len(seen) == 2


async def test_following_a_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent watch is ended and continued from its last version, without a list."""
    monkeypatch.setattr(kubernetes, "WATCH_GRACE_SECONDS", 0.1)

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return page(range(1))
        version = int(request.query["resourceVersion"]) + 1
        return await stream(line("MODIFIED", version), hold=True)(request)

    pace = Pace(backoff=Backoff(0.02, 15.0), watch_seconds=0.3)
    versions: list[str] = []
    async with odd_api(tmp_path, answer) as (api, odd), asyncio.timeout(120):
        async with aclosing(ListWatch(api, JOBS, ["shop"], dict, pace=pace).follow()) as news:
            assert isinstance(await anext(news), Listed)
            while len(versions) < 3:
                if isinstance(each := await anext(news), Changed):
                    versions.append(each.job["metadata"]["resourceVersion"])
        requested = dict.fromkeys(request.query.get("resourceVersion") for request in odd.requests)
    assert versions == ["10", "11", "12"]
    # (A watch that ended before its event came is opened again at the same version.)
    assert [*requested][:4] == [None, "9", "10", "11"]


async def test_following_empty_watches(tmp_path: Path) -> None:
    """A server whose watches are always empty is requested ever less often, and this is logged."""
    watched: list[float] = []
    seen: list[Any] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return page(range(1))
        watched.append(time.monotonic())
        return await stream()(request)

    pace = Pace(backoff=Backoff(0.05, 0.4), jitter=lambda: 1.0)
    async with (
        asyncio.timeout(120),
        odd_api(tmp_path, answer) as (api, _),
        aclosing(ListWatch(api, JOBS, ["shop"], dict, pace=pace).follow()) as news,
    ):
        while len(watched) < 6:
            seen.append(await anext(news))
    assert [type(each) for each in seen[:3]] == [Listed, Failed, Listed]
    pauses = [later - earlier for earlier, later in pairwise(watched)]
    assert sum(pauses) > 0.05 + 0.1 + 0.2 + 0.4 + 0.4


# Tests with a real API server.


@pytest.mark.cluster
async def test_wrong_token(tmp_path: Path, kubeconfig: Path) -> None:
    """A real API server rejects a wrong token."""
    api = await KubernetesApi.connect(changed(tmp_path, kubeconfig, "token", "wrong"))
    with pytest.raises(Unauthorized, match="rejects the credentials from"):
        await api.list(JOBS, "default")
    with pytest.raises(Unauthorized):
        await read(api)
    await api.close()


@pytest.mark.cluster
async def test_missing_permission(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """A missing permission is named in the error."""
    api = await KubernetesApi.connect(kubeconfig)
    await api.create(SERVICE_ACCOUNTS, namespace, {"metadata": {"name": "nobody"}})
    await api.close()
    token = await asyncio.to_thread(kubectl, "create", "token", "nobody", "-n", namespace)
    api = await KubernetesApi.connect(changed(tmp_path, kubeconfig, "token", token.strip()))
    with pytest.raises(Forbidden, match=r'cannot create resource "jobs" in API group "batch"'):
        await api.create(JOBS, namespace, job("heal"))
    with pytest.raises(Forbidden, match='cannot watch resource "jobs"'):
        await read(api)
    await api.close()


@pytest.mark.cluster
async def test_certificate_of_another_authority(tmp_path: Path, kubeconfig: Path) -> None:
    """Nothing is sent to a server whose certificate is signed by another authority."""
    api = await KubernetesApi.connect(changed(tmp_path, kubeconfig, "certificate-authority-data"))
    with pytest.raises(Unavailable, match="its certificate is not trusted") as refused:
        await api.create(JOBS, "default", job("heal"))
    await api.close()
    assert refused.value.answered


@pytest.mark.cluster
async def test_missing_namespace(kubeconfig: Path) -> None:
    """Creating in a namespace that does not exist is NotFound, and the error names it."""
    api = await KubernetesApi.connect(kubeconfig)
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await api.create(JOBS, "nowhere", job("heal"))
    await api.close()


@pytest.fixture(scope="module")
def plane(private_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """Give an API server; each test repairs what it breaks."""
    return private_control_plane(components=COMPONENTS[:2])


@pytest.mark.cluster
async def test_killed_api_server(plane: ControlPlane) -> None:
    """While the API server is down every call fails; when it is back, everything continues."""
    api = await KubernetesApi.connect(plane.kubeconfig)
    news = ListWatch(
        api, CONFIG_MAPS, ["default"], dict, pace=Pace(backoff=Backoff(0.05, 0.2))
    ).follow()
    async with asyncio.timeout(300), aclosing(news):
        assert isinstance(await anext(news), Listed)
        await api.create(CONFIG_MAPS, "default", config_map("before"))
        before = await anext(news)
        assert isinstance(before, Changed)
        since = before.job["metadata"]["resourceVersion"]
        opened = asyncio.Event()
        watch = asyncio.create_task(read_changes(api, since, opened))
        await opened.wait()
        await asyncio.to_thread(plane.stop_component, "kube-apiserver", signal.SIGKILL)
        with pytest.raises(Unavailable):
            await watch
        with pytest.raises(Unavailable, match="Connection refused") as refused:
            await api.create(CONFIG_MAPS, "default", config_map("during"))
        assert refused.value.answered
        assert isinstance(await anext(news), Failed)
        await asyncio.to_thread(plane.start_component, "kube-apiserver")
        await api.create(CONFIG_MAPS, "default", config_map("after"))
        names: set[str] = set()
        while "after" not in names:
            each = await anext(news)
            if isinstance(each, Listed):
                names = {item["metadata"]["name"] for item in each.jobs}
            elif isinstance(each, Changed):
                names.add(each.job["metadata"]["name"])
        assert names >= {"before", "after"}
    await api.close()


@pytest.mark.cluster
async def test_frozen_api_server(plane: ControlPlane) -> None:
    """A frozen API server is given up at each deadline, and works again after it resumes."""
    api = await KubernetesApi.connect(plane.kubeconfig)
    since = (await api.create(CONFIG_MAPS, "default", config_map("frozen-before"))).object[
        "metadata"
    ]
    opened = asyncio.Event()
    watch = asyncio.create_task(read_changes(api, since["resourceVersion"], opened, timeout=1))
    await opened.wait()
    await api.get(CONFIG_MAPS, "default", "frozen-before")  # leaves a pooled connection
    await asyncio.to_thread(plane.freeze, "kube-apiserver")
    with stopwatch() as pooled, pytest.raises(Unavailable) as unknown:
        await api.create(CONFIG_MAPS, "default", config_map("frozen-during"), timeout=1)
    with stopwatch() as fresh, pytest.raises(Unavailable) as unsent:
        await api.create(CONFIG_MAPS, "default", config_map("frozen-never"), timeout=120)
    with pytest.raises(Unavailable, match="has stalled"):
        await watch
    await asyncio.to_thread(plane.thaw, "kube-apiserver")
    assert (unknown.value.answered, unsent.value.answered) == (False, True)
    assert pooled[0] < fresh[0] < 100
    await api.create(CONFIG_MAPS, "default", config_map("frozen-after"))
    with pytest.raises(NotFound):
        await api.get(CONFIG_MAPS, "default", "frozen-never")
    await api.close()


@pytest.mark.cluster
async def test_stopping_a_watch_of_a_frozen_api_server(plane: ControlPlane) -> None:
    """Its connection is closed at once, without a TLS shutdown that a dead server never answers."""
    api = await KubernetesApi.connect(plane.kubeconfig)
    since = (await api.create(CONFIG_MAPS, "default", config_map("stopped"))).object["metadata"]
    before = sockets()
    watch = api.watch(CONFIG_MAPS, "default", resource_version=since["resourceVersion"])
    try:
        async with aclosing(watch):
            await anext(watch)
            await asyncio.to_thread(plane.freeze, "kube-apiserver")
        await api.close()
        assert sockets() < before  # (`before` has the connection that made the object)
    finally:
        await asyncio.to_thread(plane.thaw, "kube-apiserver")


async def read_changes(
    api: KubernetesApi, since: str, opened: asyncio.Event, timeout: float = 300
) -> None:
    """Read a watch of ConfigMaps to its end; its first event says that it is open."""
    watch = api.watch(CONFIG_MAPS, "default", resource_version=since, timeout=timeout)
    async with aclosing(watch) as events:
        async for _ in events:
            opened.set()


def changed(directory: Path, kubeconfig: Path, key: str, value: str = "") -> Path:
    """Return a copy of a kubeconfig with another value of a key, or without it."""
    lines = kubeconfig.read_text().splitlines()
    kept = [each for each in lines if f"{key}:" not in each or value]
    new = [each.split(key)[0] + f"{key}: {value}" if f"{key}:" in each else each for each in kept]
    path = directory / "kubeconfig"
    path.write_text("\n".join(new))
    return path

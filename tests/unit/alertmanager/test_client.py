"""Requests to an Alertmanager, and what is said if one fails."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openfero_gitops.alertmanager.client import Access, Alertmanager
from openfero_gitops.domain.errors import AlertmanagerError, UsageError
from tests.support.certificates import Authority
from tests.support.process import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

DATE = "Sat, 21 Nov 2026 03:04:05 GMT"
ALERTS = [{"labels": {"alertname": "OpenFeroNotHealed"}}]


@asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """Serve Alertmanager's API under a path, and give its address."""
    app = web.Application()
    app.router.add_post("/am/api/v2/alerts", answer)
    server = TestServer(app, scheme="https" if tls else "http")
    await server.start_server(ssl=tls)
    try:
        yield str(server.make_url("/am"))
    finally:
        await server.close()


def saying(status: int, text: str = "", **headers: str) -> Callable[..., Any]:
    """Answer every request in the same way."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer


async def failure(url: str, access: Access | None = None, **given: Any) -> str:
    """Send alerts, and return why that failed."""
    with pytest.raises(AlertmanagerError) as raised:
        await Alertmanager(url, access or Access(), **given).send(ALERTS)
    return str(raised.value)


async def test_alerts_are_sent_as_json() -> None:
    """The body is what Alertmanager's API v2 reads, and the sender has a name."""
    requests: list[tuple[Any, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        agent = request.headers["User-Agent"]
        requests.append((await request.json(), agent, request.headers.get("Authorization")))
        return web.Response()

    async with answering(answer) as url:
        await Alertmanager(url, Access()).send(ALERTS)
    [(body, agent, authorization)] = requests
    assert body == ALERTS
    assert agent.startswith("openfero-gitops/")
    assert authorization is None


@pytest.mark.parametrize("date", [DATE, "now", "Fri, 31 Dec 9999 23:59:59 -2300"])
async def test_the_time_of_the_server_is_returned(date: str) -> None:
    """It is unknown if the server says something else."""
    async with answering(saying(200, Date=date)) as url:
        moment = await Alertmanager(url, Access()).send(ALERTS)
    assert moment == (datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC) if date == DATE else None)


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (400, '"start time must be before end time"', "HTTP 400 Bad Request: start time must be"),
        (400, '{"code":602,"message":"x in body"}', "HTTP 400 Bad Request: x in body"),
        (401, "", "HTTP 401 Unauthorized; check --alertmanager-auth and --alertmanager-creden"),
        (404, "404 page not found", "check the path of --alertmanager-url"),
        (500, "<html><body>Oops</body></html>", "HTTP 500 Internal Server Error"),
        (503, "a\nb" + "x" * 10_000, "HTTP 503 Service Unavailable: a b"),
    ],
)
async def test_an_error_is_reported_with_what_the_server_said(
    status: int, text: str, message: str
) -> None:
    """The text is on one line and short; pages of proxies are left out."""
    async with answering(saying(status, text)) as url:
        said = await failure(url)
    assert message in said
    assert len(said) < 500
    assert "\n" not in said
    assert "<" not in said


async def test_redirects_are_not_followed() -> None:
    """Credentials must not be sent to another server."""
    other = f"http://127.0.0.1:{free_port()}/login"
    async with answering(saying(302, Location=other)) as url:
        said = await failure(url)
    assert said == (
        f"HTTP 302: it redirects to {other}; redirects are not followed; "
        "set --alertmanager-url to the final address"
    )


async def test_a_server_that_never_answers_is_given_up() -> None:
    """A request takes at most the timeout."""
    released = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    async with answering(answer) as url:
        assert await failure(url, timeout_seconds=0.05) == "no answer within 0.05 s"
        released.set()


async def test_an_absent_server_is_reported_in_words() -> None:
    """The cause is the operating system's, without addresses."""
    assert await failure(f"http://127.0.0.1:{free_port()}") == "Connection refused"


async def test_an_unknown_name_is_reported_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is the same whatever the resolver says."""

    async def resolve(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    assert await failure("http://alertmanager.invalid") == "its name cannot be resolved"


@pytest.mark.parametrize(
    ("scheme", "contents", "expected"),
    [
        ("bearer", ("first\n", "second"), ["Bearer first", "Bearer second"]),
        ("basic", ("ada:one", "ada:tw:o\n"), ["Basic YWRhOm9uZQ==", "Basic YWRhOnR3Om8="]),
    ],
)
async def test_credentials_are_read_again_when_their_file_changes(
    tmp_path: Path, scheme: str, contents: tuple[str, str], expected: list[str]
) -> None:
    """If the new content is not usable, the previous content stays valid."""
    file = tmp_path / "credentials"
    file.write_text(contents[0])
    headers: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        headers.append(request.headers.get("Authorization"))
        return web.Response()

    access = Access(scheme, file)
    async with answering(answer) as url:
        alertmanager = Alertmanager(url, access)
        await alertmanager.send([])
        file.write_text(contents[1])
        await alertmanager.send([])
        file.write_text("\n")
        await alertmanager.send([])
    assert headers == [*expected, expected[1]]


@pytest.mark.parametrize(
    ("scheme", "content", "message"),
    [
        ("bearer", "ada:secret", "contains user:password, not a token"),
        ("bearer", "", "the file is empty"),
        ("basic", "secret", "names no user"),
        ("bearer", "Bearer abc", "looks like an HTTP header"),
    ],
)
def test_a_file_of_another_form_is_refused_at_the_start(
    tmp_path: Path, scheme: str, content: str, message: str
) -> None:
    """The error names the file, and not its content."""
    file = tmp_path / "credentials"
    file.write_text(content)
    with pytest.raises(UsageError, match=message) as raised:
        Access(scheme, file)
    assert str(file) in str(raised.value)
    assert "secret" not in str(raised.value).replace(str(file), "")


async def test_https_trusts_the_given_authority_alone(tmp_path: Path) -> None:
    """Without the CA file, and with another one, the certificate is not trusted."""
    authority, stranger = (Authority(tmp_path / name, name) for name in ("ours", "other"))
    certificate, key = authority.issue("alertmanager")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with answering(saying(200), context) as url:
        await Alertmanager(url, Access(ca_file=authority.certificate)).send(ALERTS)
        for access in (Access(), Access(ca_file=stranger.certificate)):
            said = await failure(url, access)
            assert said.startswith("its certificate is not trusted: ")
            assert said.endswith("; check --alertmanager-ca-file")


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request goes to the address that the setting names."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with answering(saying(200, json.dumps({}))) as url:
        await Alertmanager(url, Access()).send(ALERTS)

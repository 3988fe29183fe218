from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import logging
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from openfero_gitops.delivery.alertmanager import PayloadLimits
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.server import Address, Server, parse_address
from openfero_gitops.web.tls import load_tls
from tests.support import pages
from tests.support.certificates import Authority
from tests.support.process import free_port
from tests.support.replica import alert, group
from tests.support.serving import Inbox, local_server, nothing_left, problem, say
from tests.support.workers import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
LOOPBACK = Address("127.0.0.1", 0)
BODY = group(alert("HostDown"))
PROBES = ("/livez", "/readyz", "/healthz", "/readiness", "/startupz", "/metrics")
READING = (
    "/",
    "/static/style.css",
    "/api/remediations",
    "/api/operarios",
    "/api/problems",
    "/api/sync",
    "/api/about",
    "/api/jobs",
    "/openapi.json",
    "/swagger/",
    "/swagger/swagger-ui.css",
)


def make(inbox: Inbox | None = None, **changes: Any) -> Server:
    """Make a server that listens on loopback once it is started."""
    return local_server(**{"state": pages.busy(NOW), "deliveries": inbox or Inbox(), **changes})


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[list[str]]:
    """Start a server, give the addresses of its listeners, stop it; nothing is left behind."""
    before = asyncio.all_tasks()
    await server.start()
    try:
        yield [f"127.0.0.1:{address.port}" for address in server.bound]
    finally:
        await server.stop()
        await nothing_left(before)


async def send(method: str, url: str, **options: Any) -> tuple[int, str]:
    """Send one request over a connection of its own."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.request(method, url, **options) as answer,
    ):
        return answer.status, await answer.text()


# Addresses


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        (":8080", None, 8080, ":8080"),
        ("127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1:80"),
        ("localhost:0", "localhost", 0, "localhost:0"),
        ("heal.example.com:65535", "heal.example.com", 65535, "heal.example.com:65535"),
        ("[::1]:8080", "::1", 8080, "[::1]:8080"),
        ("[::]:8080", "::", 8080, "[::]:8080"),
        ("[fe80::1%eth0]:443", "fe80::1%eth0", 443, "[fe80::1%eth0]:443"),
        ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, "[::ffff:127.0.0.1]:1"),
    ],
)
def test_addresses(text: str, host: str | None, port: int, shown: str) -> None:
    """HOST:PORT, :PORT and [IPv6]:PORT are read, and shown as they were typed."""
    address = parse_address(text, "--listen")
    assert (address.host, address.port) == (host, port)
    assert str(address) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8080",
        "localhost",
        "localhost:",
        ":http",
        ":-1",
        ":+1",
        ":65536",
        ":" + "9" * 5000,
        ":٣",
        ": 80",
        ":80 ",
        "::1:8080",
        ":::8080",
        "[::1]",
        "[::1]8080",
        "[::1:8080",
        "::1]:8080",
        "[]:8080",
        "[127.0.0.1]:8080",
        "[[::1]]:8080",
        "http://localhost:8080",
        "localhost:8080/",
        "a b:80",
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Anything else is refused in one line that names the flag and shows an example."""
    with pytest.raises(UsageError) as caught:
        parse_address(text, "--web-listen")
    assert str(caught.value).startswith("--web-listen: ")
    assert ":8080" in str(caught.value)
    assert "\n" not in str(caught.value)


# Listeners


async def test_one_listener_serves_everything() -> None:
    """Without --web-listen, pages and API are on the webhook's listener."""
    inbox = Inbox()
    async with running(make(inbox)) as (only,):
        for path in (*PROBES, *READING, "/alerts"):
            assert (await send("GET", f"http://{only}{path}"))[0] == 200, path
        assert (await send("POST", f"http://{only}/alerts", json=BODY))[0] == 200
    assert len(inbox.groups) == 1


async def test_the_webhook_can_be_exposed_alone() -> None:
    """With two listeners the webhook's has neither pages nor API, and theirs has no webhook."""
    inbox = Inbox()
    async with running(make(inbox, web_listen=LOOPBACK)) as (webhook, reading):
        assert webhook != reading
        for path in PROBES:
            assert (await send("GET", f"http://{webhook}{path}"))[0] == 200
            assert (await send("GET", f"http://{reading}{path}"))[0] == 200
        for path in READING:
            status, text = await send("GET", f"http://{webhook}{path}")
            assert status == 404
            problem(text, 404)
            assert (await send("GET", f"http://{reading}{path}"))[0] == 200
        for path in ("/alerts", "/alert", "/alerts/", "/alert/"):
            assert (await send("POST", f"http://{webhook}{path}", json=BODY))[0] == 200
            # Pages are read at the same address.
            expected = 405 if path.startswith("/alerts") else 404
            status, _ = await send("POST", f"http://{reading}{path}", json=BODY)
            assert status == expected
        assert (await send("GET", f"http://{reading}/alerts"))[0] == 200
        assert (await send("GET", f"http://{webhook}/alerts/"))[0] == 200
    assert len(inbox.groups) == 4


async def test_each_side_has_its_own_credentials(tmp_path: Path) -> None:
    """A reader's credentials open no webhook, the webhook's no pages; probes need none."""
    guards = {}
    for side in ("webhook", "web"):
        (tmp_path / side).write_text(f"{side}-token\n")
        guards[f"{side}_guard"] = Guard(Credentials("bearer", tmp_path / side), certificate=False)
    tokens = {s: {"Authorization": f"Bearer {s}-token"} for s in ("webhook", "web")}
    async with running(make(**guards)) as (only,):
        for side, deliver, read in (("webhook", 200, 401), ("web", 401, 200)):
            url, headers = f"http://{only}", tokens[side]
            assert (await send("POST", f"{url}/alerts", json=BODY, headers=headers))[0] == deliver
            for path in ("/", "/api/about"):
                assert (await send("GET", url + path, headers=headers))[0] == read
        for path in PROBES:
            assert (await send("GET", f"http://{only}{path}"))[0] == 200


async def test_every_interface() -> None:
    """Without a host every interface is listened on."""
    async with running(make(listen=Address(None, free_port()))) as (only,):
        assert (await send("GET", f"http://{only}/livez"))[0] == 200


async def test_ipv6() -> None:
    """An IPv6 address is listened on."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback")
    server = make(listen=parse_address("[::1]:0", "--listen"))
    await server.start()
    try:
        assert (await send("GET", f"http://{server.bound[0]}/livez"))[0] == 200
    finally:
        await server.stop()


async def test_a_port_in_use() -> None:
    """A port that is taken is named with the flag to change; nothing stays half open."""
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        for changes, flag in (
            ({"listen": address}, "--listen"),
            ({"web_listen": address}, "--web-listen"),
        ):
            server = make(**changes)
            with pytest.raises(UsageError) as caught:
                await server.start()
            assert str(caught.value).startswith(f"cannot listen on {address}: ")
            assert str(caught.value).endswith(f"set another address with {flag}")
            assert "in use" in str(caught.value)
            for bound in server.bound:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await send("GET", f"http://{bound}/livez")
    await nothing_left(before)


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "x" * 300, "192.0.2.1", "ü\ud800"])
async def test_an_address_that_is_not_ours(host: str) -> None:
    """A host that is no host of this machine is an error of usage."""
    with pytest.raises(UsageError, match="cannot listen on"):
        await make(listen=Address(host, 0)).start()


async def test_stopping_twice_is_stopping_once() -> None:
    """A server that was stopped, or never started, can be stopped again."""
    server = make()
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await send("GET", f"http://{server.bound[0]}/livez")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/alerts", "/nowhere", "/api/about"])
async def test_a_server_that_will_stop_closes_connections_but_accepts_new_ones(path: str) -> None:
    """A client that keeps its connection is told to open another, whatever the answer is."""
    server = make()
    async with running(server) as (address,), aiohttp.ClientSession() as client:
        for closes in (False, True, True):
            if closes:
                server.close_after_answers()
            async with client.get(f"http://{address}{path}") as answer:
                await answer.read()
                assert (answer.headers.get("Connection") == "close") is closes


async def test_what_is_under_way_is_finished() -> None:
    """A delivery that was being taken when the server is stopped gets its answer."""
    inbox = Inbox(pause=0.5)
    server = make(inbox)
    await server.start()
    delivery = asyncio.create_task(
        send("POST", f"http://127.0.0.1:{server.bound[0].port}/alerts", json=BODY)
    )
    await until(lambda: inbox.groups)
    await server.stop()
    assert (await delivery)[0] == 200
    assert inbox.cut_off == 0


async def test_idle_connections_do_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps its connection open is let go at once."""
    monkeypatch.setattr("openfero_gitops.web.server._SHUTDOWN_SECONDS", 600)
    server = make()
    await server.start()
    async with aiohttp.ClientSession() as client:
        async with client.get(f"http://{server.bound[0]}/livez") as answer:
            await answer.read()
        async with asyncio.timeout(60):
            await server.stop()


# Requests


async def test_the_largest_delivery() -> None:
    """A delivery of more than 8 MiB is refused with 413 and a problem that says what to do."""
    async with running(make()) as (only,):
        body = io.BytesIO(json.dumps(BODY).encode().ljust(PayloadLimits().size + 1))
        status, text = await send("POST", f"http://{only}/alerts", data=body)
        assert status == 413
        assert problem(text, 413)["detail"] == (
            "the body is larger than 8388608 bytes; set max_alerts for this receiver in "
            "Alertmanager, or raise --max-delivery-size"
        )


async def test_a_gzip_bomb_does_not_go_off() -> None:
    """A small body that would unpack to a gigabyte is refused at once, and never unpacked."""
    bomb = gzip.compress(bytes(16_000_000)) * 64
    async with running(make()) as (only,):
        headers = {"Content-Encoding": "gzip"}
        url = f"http://{only}/alerts"
        began = time.process_time()
        status, _ = await send("POST", url, data=io.BytesIO(bomb), headers=headers)
        assert status == 415
        assert (await send("POST", url, json=BODY))[0] == 200
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s3cret" + b"x" * 10_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_not_logged(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A port scan is answered with 400, makes no traceback, and no secret gets into the log."""
    caplog.set_level(logging.INFO)
    with capture_logs() as log:
        async with running(make()) as (only,):
            answer = await say(int(only.rpartition(":")[2]), sent)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert not caplog.records
    assert "s3cret" not in str(log)


async def test_no_path_leads_out_of_the_static_files() -> None:
    """Neither dots nor their codes reach a file beside the static ones."""
    async with running(make()) as (only,):
        port = int(only.rpartition(":")[2])
        for path in (b"../pages.py", b"%2e%2e/pages.py", b"..%2fpages.py", b"/etc/passwd"):
            request = b"GET /static/%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path
            answer = await say(port, request)
            assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 403 ")), path


# Headers


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1", 200),
        (b"GET /metrics HTTP/1.1", 200),
        (b"GET / HTTP/1.1", 200),
        (b"GET /remediations?phase=wrong HTTP/1.1", 400),
        (b"GET /static/page.js HTTP/1.1", 200),
        (b"GET /static/nothing.js HTTP/1.1", 404),
        (b"GET /api/sync HTTP/1.1", 200),
        (b"GET /api/remediations?limit=x HTTP/1.1", 400),
        (b"GET /alerts HTTP/1.1", 200),
        (b"POST /alerts HTTP/1.1\r\nContent-Length: 1", 400),
        (b"POST /hooks/git HTTP/1.1\r\nContent-Length: 0", 403),
        (b"GET /nothing HTTP/1.1", 404),
        (b"PUT / HTTP/1.1", 405),
        (b"GET / HTTP/1.1\r\nOrigin: http://evil.example", 403),
        (b"GET / HTTP/1.1\r\nX: \x00", 400),
    ],
)
async def test_the_headers_of_all_answers(sent: bytes, status: int) -> None:
    """Each answer forbids sniffing, and none names a version; only static files are stored."""
    async with running(make()) as (only,):
        head = sent + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        head += b" " * sent.endswith(b"Length: 1")
        answer = await say(int(only.rpartition(":")[2]), head)
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert lines[0].split()[1] == str(status)
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers["X-Content-Type-Options"] == "nosniff"
    stored = status == 200 and b"/static/" in sent
    assert ("no-store" in headers["Cache-Control"]) is not stored
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] in ("no-referrer", "same-origin")
    assert "camera=()" in headers["Permissions-Policy"]
    assert headers["Server"] == "openfero-gitops"


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/api/sync", "/alerts", "/static/x"])
async def test_requests_of_other_sites(path: str) -> None:
    """Requests that pages of other sites cause are refused on each path, and nothing is done."""
    inbox = Inbox()
    async with running(make(inbox, allowed_hosts=("Heal.example.com",))) as (only,):
        url = f"http://{only}{path}"
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        ):
            for method in ("GET", "POST", "OPTIONS"):
                status, text = await send(method, url, headers=headers)
                assert status == 403
                problem(text, 403)
        for headers in (
            {"Origin": f"http://{only}"},
            {"Host": "heal.example.com", "Origin": "https://heal.example.com"},
        ):
            assert (await send("GET", url, headers=headers))[0] in (200, 404)
    assert inbox.groups == []


async def test_a_listener_that_others_reach_accepts_any_host() -> None:
    """A Host is checked on loopback only: elsewhere the controller does not know its own names."""
    async with running(make(listen=Address(None, free_port()))) as (only,):
        headers = {"Host": "openfero.monitoring.svc"}
        assert (await send("GET", f"http://{only}/livez", headers=headers))[0] == 200


async def test_a_listener_without_authentication_is_reported(tmp_path: Path) -> None:
    """A warning names the flag that is missing, once, and not for listeners on loopback."""
    (tmp_path / "token").write_text("t0ken\n")
    guard = Guard(Credentials("bearer", tmp_path / "token"), certificate=False)
    everywhere = Address(None, free_port())
    for changes, advised in (
        ({"listen": LOOPBACK}, []),
        ({"listen": everywhere}, ["--webhook-auth", "--web-auth"]),
        ({"listen": everywhere, "web_listen": LOOPBACK}, ["--webhook-auth"]),
        ({"listen": everywhere, "webhook_guard": guard}, ["--web-auth"]),
        ({"listen": everywhere, "webhook_guard": guard, "web_guard": guard}, []),
    ):
        with capture_logs() as log:
            async with running(make(**changes)):
                pass
        warnings = [line for line in log if "without authentication" in line["event"]]
        assert [line["advice"].split()[1] for line in warnings] == advised


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give the CA of servers and clients."""
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


async def subject(port: int, trusted: ssl.SSLContext, name: str | None = None) -> str:
    """Return the common name of the certificate that a new connection is shown."""
    async with asyncio.timeout(60):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusted, server_hostname=name
        )
    shown = writer.get_extra_info("peercert")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return dict(pair for (pair,) in shown["subject"])["commonName"]


async def test_https(authority: Authority) -> None:
    """Both listeners speak https, 1.2 and up; http on their ports is refused."""
    tls = load_tls(*authority.issue("server"), None)
    trusted, old = authority.client(), authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with running(make(tls=tls, web_listen=LOOPBACK)) as addresses:
        for address in addresses:
            assert (await send("GET", f"https://{address}/livez", ssl=trusted))[0] == 200
            with pytest.raises(aiohttp.ClientError):
                await send("GET", f"http://{address}/livez")
            with pytest.raises(aiohttp.ClientError):
                await send("GET", f"https://{address}/livez", ssl=old)
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await send("GET", f"https://{address}/livez")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_a_renewed_certificate_is_shown(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    """New connections get the certificate that lies there now, whether they name a server or not.

    While certificate and key do not fit (one was written, the other not yet), the last good pair
    is shown, which is logged once.
    """
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(pair: tuple[Path, Path], only: Path | None = None) -> None:
        for target, source in zip((certificate, key), pair, strict=True):
            if only in (None, target):
                fresh = target.with_suffix(".new")
                fresh.write_bytes(source.read_bytes())
                fresh.rename(target)

    put(authority.issue("first"))
    second = authority.issue("second")
    trusted = authority.client()
    with capture_logs() as log:
        async with running(make(tls=load_tls(certificate, key, None))) as (only,):
            port = int(only.rpartition(":")[2])
            assert await subject(port, trusted, name) == "first"
            put(second, certificate)
            for _ in range(3):
                assert await subject(port, trusted, name) == "first"
            put(second, key)
            assert await subject(port, trusted, name) == "second"
            key.unlink()
            for _ in range(3):
                assert await subject(port, trusted, name) == "second"
    assert [line["log_level"] for line in log] == ["warning", "info", "warning"]
    assert "--tls-key-file" in log[0]["error"]


async def test_a_renewed_client_ca_holds(authority: Authority, tmp_path: Path) -> None:
    """After the CA of the clients was replaced, the old one's clients are refused."""
    other = Authority(tmp_path / "other", "other")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate.read_bytes())
    guard = Guard(None, certificate=True)
    server = make(tls=load_tls(*authority.issue("server"), ca), webhook_guard=guard)
    old = authority.client(*authority.issue("old"))
    new = authority.client(*other.issue("new"))
    async with running(server) as (only,):
        url = f"https://{only}/alerts"
        assert (await send("POST", url, json=BODY, ssl=old))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await send("POST", url, json=BODY, ssl=new)
        ca.write_bytes(other.certificate.read_bytes())
        assert (await send("POST", url, json=BODY, ssl=new))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await send("POST", url, json=BODY, ssl=old)


def test_without_a_certificate_there_is_no_tls() -> None:
    """Without a certificate, plain http is served."""
    assert load_tls(None, None, None) is None


def test_tls_files_with_traces_of_editors(authority: Authority, tmp_path: Path) -> None:
    """A byte order mark, CRLF and blanks do no harm."""
    spoilt = []
    for number, file in enumerate((*authority.issue("server"), authority.certificate)):
        spoilt.append(tmp_path / str(number))
        spoilt[-1].write_bytes(
            b"\xef\xbb\xbf\r\n" + file.read_bytes().replace(b"\n", b" \r\n").strip()
        )

    tls = load_tls(*spoilt)

    assert tls is not None
    assert tls.client_ca == authority.certificate.read_bytes()


def test_tls_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    """The message about an unusable file names its flag; OpenSSL never asks for a passphrase."""
    certificate, key = authority.issue("server")
    _, other_key = authority.issue("other")
    _, locked_key = authority.issue("locked", passphrase="s3cret")
    nonsense, empty, absent = tmp_path / "nonsense", tmp_path / "empty", tmp_path / "absent"
    nonsense.write_text("hello\n")
    empty.touch()
    ca = authority.certificate
    for files, flag, why in (
        ((absent, key, None), "--tls-cert-file", "No such file"),
        ((certificate, absent, None), "--tls-key-file", "No such file"),
        ((certificate, key, absent), "--client-ca-file", "No such file"),
        ((tmp_path, key, None), "--tls-cert-file", "is a directory"),
        ((nonsense, key, None), "--tls-cert-file", "contains no certificate in PEM format"),
        ((certificate, nonsense, None), "--tls-key-file", "contains no private key in PEM format"),
        ((certificate, other_key, None), "--tls-key-file", "the key does not belong"),
        ((certificate, locked_key, None), "--tls-key-file", "passphrase"),
        ((certificate, key, nonsense), "--client-ca-file", "no certificate"),
        ((certificate, key, empty), "--client-ca-file", "the file is empty"),
        ((ca, key, None), "--tls-key-file", "the key does not belong"),
    ):
        with pytest.raises(UsageError) as caught:
            load_tls(*files)
        message = str(caught.value)
        assert flag in message
        assert why in message
        assert "\n" not in message
        assert "s3cret" not in message

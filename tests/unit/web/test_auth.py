from __future__ import annotations

import base64
import hmac
import os
import ssl
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.network import parse_network
from openfero_gitops.web.auth import Caller, Cause, Credentials, Door, Guard
from openfero_gitops.web.proxies import TrustedProxies
from openfero_gitops.web.tls import load_tls
from tests.support.certificates import Authority
from tests.support.replica import alert, group
from tests.support.serving import Inbox, local_server, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


def basic(pair: str | bytes) -> str:
    """Write the header of a user and a password."""
    raw = pair.encode() if isinstance(pair, str) else pair
    return "Basic " + base64.b64encode(raw).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give the path of a credentials file that is not there yet."""
    return tmp_path / "credentials"


# Credentials


def test_a_user_and_a_password(file: Path) -> None:
    """Basic credentials are accepted as a whole, and in nothing else than their exact form."""
    file.write_text("alertmanager:s3cret\n")
    credentials = Credentials("basic", file)
    assert credentials.accept(basic("alertmanager:s3cret"))
    for scheme in ("basic", "BASIC", "bAsIc"):
        assert credentials.accept(basic("alertmanager:s3cret").replace("Basic", scheme))
    assert credentials.accept(basic("alertmanager:s3cret").replace(" ", "  "))
    for wrong in (
        "",
        "Basic",
        "Basic ",
        basic(""),
        basic(":"),
        basic("alertmanager"),
        basic("alertmanager:"),
        basic(":s3cret"),
        basic("alertmanager:S3cret"),
        basic("alertmanager:s3cret "),
        basic("alertmanager:s3cret\n"),
        basic("alertmanager:s3cret\0"),
        basic("other:s3cret"),
        "Bearer alertmanager:s3cret",
        "Bearer " + basic("alertmanager:s3cret")[6:],
        "Basic alertmanager:s3cret",
        basic("alertmanager:s3cret") + "=",
        basic("alertmanager:s3cret") + " x",
        "Basic ü",
        "Basic \udcff",
    ):
        assert not credentials.accept(wrong), wrong


def test_a_token(file: Path) -> None:
    """A bearer token is accepted as a whole."""
    file.write_text("t0ken\n")
    credentials = Credentials("bearer", file)
    assert credentials.accept("Bearer t0ken")
    assert credentials.accept("bearer t0ken")
    for wrong in ("", "t0ken", "Bearer", "Bearer ", "Bearer T0ken", "Bearer t0ken x", "Basic t0ken",
                  "Bearer t0ke", "Bearer t0kenn", "Bearer \udcff", basic("t0ken")):  # fmt: skip
        assert not credentials.accept(wrong), wrong


@pytest.mark.parametrize(
    ("scheme", "lines", "headers"),
    [
        ("basic", "a:1\r\n\r\n  b:2  \nc:d:e", [basic("a:1"), basic("b:2"), basic("c:d:e")]),
        ("bearer", "\n\nold\nnew\n\n", ["Bearer old", "Bearer new"]),
        ("bearer", "\ufeffmarked\n", ["Bearer marked"]),
    ],
)
def test_several_lines(file: Path, scheme: str, lines: str, headers: list[str]) -> None:
    """Each line is accepted, so that secrets can be rotated."""
    file.write_bytes(lines.encode())
    credentials = Credentials(scheme, file)
    for header in headers:
        assert credentials.accept(header)
    assert not credentials.accept("Bearer ")
    assert not credentials.accept(basic(""))


def test_letters_beyond_ascii(file: Path) -> None:
    """User, password and token may be any text; Unicode line separators do not end a line."""
    pair = "ärzte:пароль\u2028\x85🔑"
    file.write_text(pair + "\n", encoding="utf-8")
    assert Credentials("basic", file).accept(basic(pair))
    assert not Credentials("basic", file).accept(basic("ärzte:пароль"))
    assert not Credentials("basic", file).accept(basic("ärzte:x".encode("latin-1")))
    bearer = Credentials("bearer", file)
    # (As aiohttp hands over a header: bytes that are no UTF-8 become surrogates.)
    assert bearer.accept(f"Bearer {pair}".encode().decode("utf-8", "surrogateescape"))


def test_the_locale_does_not_matter(file: Path) -> None:
    """A file is UTF-8 whatever the machine's language is."""
    file.write_bytes("é:ü\n".encode())
    program = (
        "import locale, pathlib, sys\n"
        "from openfero_gitops.web.auth import Credentials\n"
        "assert locale.getencoding() not in ('UTF-8', 'utf-8'), locale.getencoding()\n"
        "accepted = Credentials('bearer', pathlib.Path(sys.argv[1])).accept('Bearer \\xe9:\\xfc')\n"
        "sys.exit(0 if accepted else 1)\n"
    )
    environment = {
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ran = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program, str(file)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("scheme", "content", "why"),
    [
        ("bearer", b"", "the file is empty"),
        ("bearer", b" \n\t\n\r\n", "the file is empty"),
        ("bearer", b"s3cret\xff\xfe", "not UTF-8 text"),
        ("basic", b"s3cret\n", "user:password"),
        ("basic", b"user:s3cret\ns3cret\n", "user:password"),
        ("basic", b"s3cret:\n", "neither may be empty"),
        ("basic", b":s3cret\n", "neither may be empty"),
    ],
)
def test_a_file_that_cannot_be_meant(file: Path, scheme: str, content: bytes, why: str) -> None:
    """A file without usable credentials ends the start, and nothing of it is repeated."""
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Credentials(scheme, file)
    assert str(file) in str(caught.value)
    assert why in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_not_there(file: Path) -> None:
    """A missing file, or a folder, is named."""
    with pytest.raises(UsageError, match="No such file"):
        Credentials("bearer", file)
    file.mkdir()
    with pytest.raises(UsageError, match="is a directory; name the file in it"):
        Credentials("bearer", file)


def test_rotation(file: Path) -> None:
    """After the file has changed, the next request is checked against its new content only."""
    file.write_text("first\n")
    credentials = Credentials("bearer", file)
    assert credentials.accept("Bearer first")
    file.write_text("second\nthird\n")
    assert credentials.accept("Bearer third")
    assert not credentials.accept("Bearer first")


def test_rotation_as_kubernetes_does_it(tmp_path: Path) -> None:
    """A mounted Secret changes by a symbolic link to another folder, with any time stamp."""
    for version, token in (("..1", "first"), ("..2", "other")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(token)
        os.utime(tmp_path / version / "token", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    credentials = Credentials("bearer", tmp_path / "token")
    assert credentials.accept("Bearer first")
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert credentials.accept("Bearer other")
    assert not credentials.accept("Bearer first")


def test_a_rotation_that_fails(file: Path) -> None:
    """While the file is not usable, its previous content stays valid; this is logged once."""
    file.write_text("user:first\n")
    credentials = Credentials("basic", file)
    with capture_logs() as log:
        for spoil in (file.unlink, lambda: file.write_text(""), lambda: file.write_text("s3cret")):
            spoil()
            for _ in range(3):
                assert credentials.accept(basic("user:first"))
                assert not credentials.accept(basic("user:second"))
        file.write_text("user:second\n")
        assert credentials.accept(basic("user:second"))
        assert not credentials.accept(basic("user:first"))
        file.unlink()
        assert credentials.accept(basic("user:second"))
    assert [line["log_level"] for line in log] == ["warning"] * 4
    assert "s3cret" not in str(log)


def test_comparison_takes_the_same_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is compared by digest, in constant time, with every line: none ends it early."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return same(left, right)

    same: Callable[[bytes, bytes], bool] = hmac.compare_digest
    file.write_text("one\ntwo\nthree\n")
    credentials = Credentials("bearer", file)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert credentials.accept("Bearer one")
    assert not credentials.accept("Bearer four")
    assert len(compared) == 6
    assert {len(value) for pair in compared for value in pair} == {32}


def test_what_is_accepted_is_not_shown(file: Path) -> None:
    """The repr of the object and its parts does not contain the secret."""
    file.write_text("s3cret\n")
    credentials = Credentials("bearer", file)
    assert "s3cret" not in repr(credentials) + repr(vars(credentials))


@pytest.mark.parametrize(
    ("scheme", "challenge"),
    [("basic", 'Basic realm="openfero-gitops", charset="UTF-8"'), ("bearer", "Bearer")],
)
def test_a_refused_caller_is_told_how(file: Path, scheme: str, challenge: str) -> None:
    """401 names the expected scheme, but not what was wrong."""
    file.write_text("user:s3cret\n")
    guard = Guard(Credentials(scheme, file), certificate=False)
    for headers in ({}, {"Authorization": "Basic x"}, {"Authorization": "Bearer x"}):
        with pytest.raises(web.HTTPUnauthorized) as caught:
            guard.check(make_mocked_request("GET", "/", headers=headers))
        assert caught.value.headers["WWW-Authenticate"] == challenge
        assert caught.value.text == "missing or wrong credentials"


def test_a_guard_that_demands_nothing() -> None:
    """Without credentials and certificates everybody may pass, whatever header is sent."""
    guard = Guard(None, certificate=False)
    guard.check(make_mocked_request("GET", "/", headers={"Authorization": "Bearer x"}))


# Wrong credentials


class Desk:
    """A guard with a clock that stands still, and what it counted."""

    def __init__(self, file: Path, door: Door, proxies: TrustedProxies | None = None) -> None:
        file.write_text("one\ntwo\n")
        self.now = 1000.0
        self.wait = ""
        self.counted: Counter[tuple[Door, Cause]] = Counter()
        self.guard = Guard(
            Credentials("bearer", file),
            certificate=False,
            proxies=proxies,
            door=door,
            count=lambda door, cause: self.counted.update([(door, cause)]),
            clock=lambda: self.now,
        )

    def ask(self, token: str, peer: str = "10.0.0.1", **headers: str) -> int:
        """Return the status of a request with a token; empty for none."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        transport = Mock()
        transport.get_extra_info = {"peername": (peer, 4711)}.get
        request = make_mocked_request("GET", "/", headers=headers, transport=transport)
        assert request.remote == peer
        try:
            self.guard.check(request)
        except web.HTTPException as error:
            self.wait = error.headers.get("Retry-After", "")
            return error.status
        return 200

    def guess(self, count: int, peer: str = "10.0.0.1", **headers: str) -> None:
        """Try different wrong tokens, each when the block of the last one is over."""
        for number in range(count):
            assert self.ask(f"guess {number}", peer, **headers) == 401
            self.now += 0 if number == count - 1 else 61


@pytest.mark.parametrize(("door", "status"), [(Door.PAGES, 429), (Door.WEBHOOK, 503)])
def test_a_guesser_has_to_wait(file: Path, door: Door, status: int) -> None:
    """After ten wrong tokens, even the right one is not checked until the block ends."""
    desk = Desk(file, door)
    with capture_logs() as log:
        desk.guess(30)
        for token in ("one", "two", "guess 29", "x", "one\n"):
            assert desk.ask(token) == status
            assert desk.wait == "60"
    assert [(line["log_level"], line["sender"]) for line in log] == [("warning", "10.0.0.1")]
    assert desk.ask("one", "10.0.0.2") == 200
    desk.now += 59.9
    assert desk.ask("one") == status
    desk.now += 0.1
    assert desk.ask("one") == 200
    assert desk.counted == {(door, Cause.WRONG_CREDENTIALS): 30, (door, Cause.BLOCKED): 6}


def test_who_already_used_a_credential_is_not_locked_out(file: Path) -> None:
    """Behind the same address as a guesser, credentials that worked before work on."""
    desk = Desk(file, Door.WEBHOOK)
    assert desk.ask("one") == 200
    desk.guess(30)
    assert desk.ask("one") == 200
    assert desk.ask("two") == 503
    assert desk.ask("guess") == 503


def test_a_familiar_credential_ends_with_the_file(file: Path) -> None:
    """A credential that was removed from the file is not accepted, familiar or not."""
    desk = Desk(file, Door.PAGES)
    assert desk.ask("one") == 200
    desk.guess(30)
    file.write_text("two\n")
    assert desk.ask("one") == 429
    desk.now += 60
    assert desk.ask("one") == 401


def test_requests_without_credentials_are_no_guesses(file: Path) -> None:
    """A browser first asks without credentials, and some senders use another scheme."""
    desk = Desk(file, Door.PAGES)
    for _ in range(50):
        assert desk.ask("") == 401
        assert desk.ask("", Authorization="Basic x") == 401
    assert desk.ask("one") == 200
    assert desk.counted == {(Door.PAGES, Cause.NO_CREDENTIALS): 100}


def test_the_addresses_of_one_ipv6_network_are_one_source(file: Path) -> None:
    """A guesser with a /64 of addresses is one guesser."""
    desk = Desk(file, Door.PAGES)
    for number in range(10):
        assert desk.ask(f"guess {number}", f"2001:db8::{number:x}") == 401
    assert desk.ask("one", "2001:db8::ffff") == 429
    assert desk.ask("one", "2001:db8:0:1::1") == 200


def test_clients_behind_a_trusted_proxy_are_told_apart(file: Path) -> None:
    """X-Forwarded-For of a trusted proxy names the source; that of others changes nothing."""
    proxies = TrustedProxies((parse_network("10.0.0.1"),))
    desk = Desk(file, Door.PAGES, proxies)
    desk.guess(30, **{"X-Forwarded-For": "192.0.2.1"})
    assert desk.ask("one", **{"X-Forwarded-For": "192.0.2.1"}) == 429
    assert desk.ask("one", **{"X-Forwarded-For": "192.0.2.2"}) == 200
    for number in range(10):
        header = {"X-Forwarded-For": f"192.0.2.{number}"}
        assert desk.ask(f"guess {number}", "10.0.0.2", **header) == 401
    assert desk.ask("one", "10.0.0.2", **{"X-Forwarded-For": "192.0.2.99"}) == 429


# Proxies


def test_a_proxy_names_who_calls() -> None:
    """With a user header, the proxy's user is the caller, and nobody else enters."""
    proxies = TrustedProxies((parse_network("10.0.0.1"),), "X-Forwarded-User")
    guard = Guard(None, certificate=False, proxies=proxies)
    transport = Mock()
    peer = {"peername": ("10.0.0.1", 4711)}
    transport.get_extra_info = peer.get
    headers = {"X-Forwarded-User": "anna", "X-Forwarded-For": "192.0.2.1"}
    caller = guard.check(make_mocked_request("GET", "/", headers=headers, transport=transport))
    assert caller == Caller("anna", "proxy 10.0.0.1", "192.0.2.1")
    with pytest.raises(web.HTTPForbidden) as caught:
        guard.check(make_mocked_request("GET", "/", transport=transport))
    assert caught.value.text == "the proxy sent no user in X-Forwarded-User"
    peer["peername"] = ("10.0.0.2", 4711)
    with pytest.raises(web.HTTPForbidden) as caught:
        guard.check(make_mocked_request("GET", "/", headers=headers, transport=transport))
    assert caught.value.text == "only the proxies of --web-trusted-proxy may read this"
    assert not guard.open


def test_a_password_names_who_calls(file: Path) -> None:
    """The user of basic credentials is the caller; a token names nobody."""
    file.write_text("anna:s3cret\n")
    guard = Guard(Credentials("basic", file), certificate=False)
    headers = {"Authorization": basic("anna:s3cret")}
    assert guard.check(make_mocked_request("GET", "/", headers=headers)).name == "anna"


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give the CA of servers and clients."""
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a CA that the server does not know."""
    return Authority(tmp_path_factory.mktemp("stranger"), "strange")


@pytest.fixture
async def guarded(authority: Authority) -> AsyncIterator[str]:
    """Give the URL of a server that demands client certificates."""
    certificate, key = authority.issue("server")
    inbox = Inbox()
    server = local_server(
        deliveries=inbox,
        webhook_guard=Guard(None, certificate=True),
        web_guard=Guard(None, certificate=True),
        tls=load_tls(certificate, key, authority.certificate),
    )
    await server.start()
    yield f"https://127.0.0.1:{server.bound[0].port}"
    await server.stop()


async def request(method: str, url: str, tls: ssl.SSLContext, **options: Any) -> tuple[int, str]:
    """Send one request over a connection of its own."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.request(method, url, ssl=tls, **options) as answer,
    ):
        return answer.status, await answer.text()


async def test_probes_need_no_certificate(guarded: str, authority: Authority) -> None:
    """The kubelet and Prometheus have no certificate: probes and metrics need none."""
    for path in ("/livez", "/readyz", "/healthz", "/readiness", "/startupz", "/metrics"):
        assert (await request("GET", guarded + path, authority.client()))[0] == 200


async def test_the_rest_needs_a_certificate(guarded: str, authority: Authority) -> None:
    """Without a certificate webhook, API and pages are 401; with one of the CA they are served."""
    body = group(alert("HostDown"))
    allowed = authority.client(*authority.issue("alertmanager"))
    status, text = await request("POST", f"{guarded}/alerts", authority.client(), json=body)
    assert status == 401
    assert problem(text, 401)["detail"] == "a client certificate is required"
    assert (await request("POST", f"{guarded}/alerts", allowed, json=body))[0] == 200
    for path in ("/alerts", "/api/remediations", "/api/about", "/"):
        assert (await request("GET", guarded + path, authority.client()))[0] == 401
        assert (await request("GET", guarded + path, allowed))[0] == 200


async def test_a_certificate_of_somebody_else(
    guarded: str, authority: Authority, stranger: Authority
) -> None:
    """A certificate that another CA signed does not even get a connection."""
    wrong = authority.client(*stranger.issue("alertmanager"))
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await request("POST", f"{guarded}/alerts", wrong, json=group(alert("HostDown")))


@pytest.fixture
def token(file: Path) -> Credentials:
    """Give credentials of which `t0ken` is one."""
    file.write_text("t0ken\n")
    return Credentials("bearer", file)


async def test_a_certificate_and_a_password(authority: Authority, token: Credentials) -> None:
    """Where both are demanded, one alone does not do."""
    guard = Guard(token, certificate=True)
    certificate, key = authority.issue("server")
    server = local_server(
        webhook_guard=guard,
        web_guard=guard,
        tls=load_tls(certificate, key, authority.certificate),
    )
    await server.start()
    try:
        url = f"https://127.0.0.1:{server.bound[0].port}/alerts"
        anyone, with_certificate = (
            authority.client(),
            authority.client(*authority.issue("alertmanager")),
        )
        header = {"Authorization": "Bearer t0ken"}
        body = group(alert("HostDown"))
        assert (await request("POST", url, anyone, json=body, headers=header))[0] == 401
        assert (await request("POST", url, with_certificate, json=body))[0] == 401
        assert (await request("POST", url, with_certificate, json=body, headers=header))[0] == 200
    finally:
        await server.stop()

"""Forged push hooks: who does not know a secret starts no sync, however it is presented."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import hmac
import http.client
import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.replica import Replica, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

SECRET = b"s3cret with spaces"
KEY = b"thirty-two bytes of a signing key"
TOKEN = b"whsec_" + base64.b64encode(KEY)
BODY = json.dumps({"ref": "refs/heads/main"}).encode()

Headers = list[tuple[str, str]]


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Iterator[Replica]:
    """Give a replica whose file of secrets has empty lines, a BOM and trailing whitespace."""
    folder = tmp_path_factory.mktemp("hooks")
    repository = Repository(folder / "operarios")
    repository.write("web.json", operario("WebDown"))
    repository.commit("Operarios")
    secret = folder / "secret"
    secret.write_bytes(b"\xef\xbb\xbf\n  \r\n" + SECRET + b" \t\r\n\n" + TOKEN + b"\n\n")
    with Replica(
        folder,
        name="hooked",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        interval="1h",
        ref="main",
        hook_secret_file=str(secret),
        development=False,
    ) as started:
        yield started


def post(replica: Replica, headers: Headers, body: bytes = BODY, *, chunked: bool = False) -> int:
    """POST a hook with exactly these headers; the status."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/hooks/git", skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            body = b"".join(b"1\r\n%b\r\n" % bytes([byte]) for byte in body) + b"0\r\n\r\n"
        else:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status


def github(secret: bytes = SECRET, body: bytes = BODY, digest: str = "sha256") -> Headers:
    """Return the headers of a push by GitHub."""
    signature = f"{digest}={hmac.new(secret, body, digest).hexdigest()}"
    return [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature)]


def gitlab(key: bytes, *, body: bytes = BODY, at: str | None = None, name: str = "1") -> Headers:
    """Return the headers of a push by GitLab with a signing token."""
    moment = at if at is not None else str(int(time.time()))
    signed = f"{name}.{moment}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return [
        ("X-Gitlab-Event", "Push Hook"),
        ("webhook-id", name),
        ("webhook-timestamp", moment),
        ("webhook-signature", f"v1,{signature}"),
    ]


def replaced(headers: Headers, name: str, value: str) -> Headers:
    """Return headers with another value of one."""
    return [(each, value if each == name else old) for each, old in headers]


def test_a_right_signature_is_accepted_in_every_form(replica: Replica) -> None:
    """Names of headers in any case, chunked bodies, and secrets without their whitespace."""
    assert post(replica, github()) == 202
    assert post(replica, [(name.upper(), value) for name, value in github()]) == 202
    assert post(replica, github(), chunked=True) == 202
    assert post(replica, gitlab(KEY)) == 202
    token = SECRET.decode()
    assert post(replica, [("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", token)]) == 202


FUTURE = str(int(time.time()) + 7 * 86_400)
ATTACKS: dict[str, Headers] = {
    "no signature": [("X-GitHub-Event", "push")],
    "an empty signature": [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", "")],
    "the empty secret": github(b""),
    "an empty line of the file": github(b"\r"),
    "the byte order mark": github(b"\xef\xbb\xbf"),
    "the secret with its whitespace": github(SECRET + b" \t\r"),
    "the token as a key of GitHub's": github(KEY),
    "SHA-1": [("X-Hub-Signature", github(digest="sha1")[1][1]), ("X-GitHub-Event", "push")],
    "SHA-1 under the name of SHA-256": [
        ("X-GitHub-Event", "push"),
        ("X-Hub-Signature-256", "sha256=" + hmac.new(SECRET, BODY, "sha1").hexdigest()),
    ],
    "no algorithm": replaced(github(), "X-Hub-Signature-256", github()[1][1][len("sha256=") :]),
    "another algorithm's name": replaced(
        github(), "X-Hub-Signature-256", "none=" + github()[1][1][len("sha256=") :]
    ),
    "the signature of other bytes": github(body=BODY + b" "),
    "half a signature": replaced(github(), "X-Hub-Signature-256", github()[1][1][:40]),
    "a wrong signature before the right one": [
        ("X-GitHub-Event", "push"),
        ("X-Hub-Signature-256", "sha256=" + "0" * 64),
        *github()[1:],
    ],
    "both signatures in one header": replaced(
        github(), "X-Hub-Signature-256", f"sha256={'0' * 64}, {github()[1][1]}"
    ),
    "another forge's wrong token beside it": [("X-Gitlab-Token", "wrong"), *github()],
    "an old signed time": gitlab(KEY, at=str(int(time.time()) - 3600)),
    "a signed time in the future": gitlab(KEY, at=FUTURE),
    "no signed time": gitlab(KEY, at=""),
    "a negative time": gitlab(KEY, at=f"-{int(time.time())}"),
    "a time of many digits": gitlab(KEY, at="0" * 20 + str(int(time.time()))),
    "an empty key": gitlab(b""),
    "the token as the key": gitlab(TOKEN),
    "the other secret as the key": gitlab(SECRET),
    "no version": replaced(gitlab(KEY), "webhook-signature", gitlab(KEY)[3][1][3:]),
    "another version": replaced(gitlab(KEY), "webhook-signature", "v2" + gitlab(KEY)[3][1][2:]),
    "a token with a character more": [
        ("X-Gitlab-Event", "Push Hook"),
        ("X-Gitlab-Token", SECRET.decode() + "x"),
    ],
    "an empty token": [("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", "")],
}


@pytest.mark.parametrize("headers", ATTACKS.values(), ids=ATTACKS)
def test_a_forged_signature_is_refused(replica: Replica, headers: Headers) -> None:
    """Whatever is wrong with a signature, the answer is 401, and no sync starts."""
    assert post(replica, headers) == 401


def test_digits_of_other_scripts_are_no_time(replica: Replica) -> None:
    """A signed time must be written in ASCII digits."""
    moment = str(int(time.time())).translate({48 + digit: 0x0660 + digit for digit in range(10)})
    headers = gitlab(KEY, at=moment)
    raw = [(name, value.encode().decode("latin-1")) for name, value in headers]
    assert post(replica, raw) == 401


def test_the_signature_is_of_the_bytes_on_the_wire(replica: Replica) -> None:
    """A body is not unpacked: neither before it is verified, nor after."""
    packed = gzip.compress(BODY)
    encoded = [("Content-Encoding", "gzip")]
    assert post(replica, github(), packed) == 401
    assert post(replica, [*github(), *encoded], packed) in (401, 415)
    assert post(replica, [*github(body=packed), *encoded], packed) in (400, 415)


def test_a_replay_costs_one_sync_of_the_same_repository(replica: Replica) -> None:
    """Nothing in a hook is used but its refs, so a copy of an old one changes nothing."""
    before = replica.get("/api/sync")["revision"]
    headers = github()
    assert [post(replica, headers) for _ in range(20)] == [202] * 20
    assert replica.get("/api/sync")["revision"] == before


def test_a_token_with_the_body_of_another_forge_starts_a_sync_at_most(replica: Replica) -> None:
    """A right token with any body is either refused, or one more sync of the same repository."""
    token = [("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Token", SECRET.decode())]
    for body in (
        b'{"push":{"changes":[{"new":{"name":"main","type":"branch"}}]}}',
        b'{"ref":"refs/heads/main","repository":{"clone_url":"https://elsewhere.example/x.git"}}',
    ):
        assert post(replica, token, body) == 202
    for body in (b"[]", b"1", b'"refs/heads/main"', b"\xff", b'{"ref":1}'):
        assert post(replica, token, body) == 400
    assert replica.get("/api/sync")["revision"]["repository"].startswith("file://")

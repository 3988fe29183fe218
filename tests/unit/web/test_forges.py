"""Signatures and payloads of the push hooks of each forge."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from openfero_gitops.domain.errors import PayloadError
from openfero_gitops.web import forges
from openfero_gitops.web.forges import Forge, Push, begin_proof, may_move, read_push

SECRET = b"s3cret"
KEY = b"k" * 32
SIGNING_TOKEN = b"whsec_" + base64.b64encode(KEY)
NOW = 1_790_000_000.0
MAIN = "refs/heads/main"


def digest(body: bytes, secret: bytes = SECRET) -> str:
    """The HMAC of a body in hex."""
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def standard(body: bytes, *, at: float = NOW, key: bytes = KEY) -> dict[str, str]:
    """GitLab's headers with a signing token."""
    signed = f"msg_1.{int(at)}.".encode() + body
    made = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at)),
        "webhook-signature": f"v1,{made}",
    }


def proven(headers: dict[str, str], body: bytes, *secrets: bytes) -> Forge | None:
    """Who signed it, whatever pieces the body arrives in."""
    forges = set()
    for size in (1, 7, len(body) or 1):
        proof = begin_proof(headers, secrets or (SECRET,), NOW)
        if proof is not None:
            for start in range(0, len(body), size):
                proof.update(body[start : start + size])
        forges.add(proof.forge if proof is not None and proof.holds() else None)
    (forge,) = forges
    return forge


def basic(pair: bytes) -> str:
    """Return the header of basic authentication."""
    return f"Basic {base64.b64encode(pair).decode()}"


BODY = b'{"ref": "refs/heads/main"}'


@pytest.mark.parametrize(
    ("headers", "forge"),
    [
        ({"X-Hub-Signature-256": f"sha256={digest(BODY)}"}, Forge.GITHUB),
        ({"X-Gitlab-Token": "s3cret"}, Forge.GITLAB),
        ({"X-Gitea-Signature": digest(BODY)}, Forge.GITEA),
        ({"X-Forgejo-Signature": digest(BODY)}, Forge.GITEA),
        ({"X-Hub-Signature": f"sha256={digest(BODY)}"}, Forge.BITBUCKET),
        ({"X-Gogs-Signature": digest(BODY)}, Forge.GOGS),
        ({"X-Gogs-Signature": digest(BODY), "X-Gitea-Signature": digest(BODY)}, Forge.GITEA),
        (
            {"Authorization": basic(b"ada:s3cret")},
            Forge.AZURE_DEVOPS,
        ),
        ({"Authorization": f"basic {base64.b64encode(b':s3cret').decode()}"}, Forge.AZURE_DEVOPS),
    ],
)
def test_each_forge_proves_itself_in_its_own_way(headers: dict[str, str], forge: Forge) -> None:
    """The right secret is accepted among several; a wrong one, or another body, is not."""
    assert proven(headers, BODY) is forge
    assert proven(headers, BODY, b"other", SECRET) is forge
    assert proven(headers, BODY, b"other") is None
    if forge not in {Forge.GITLAB, Forge.AZURE_DEVOPS}:  # which send the secret itself
        assert proven(headers, BODY + b" ") is None
    (header, value) = next(iter(headers.items()))
    for wrong in ("", "sha256=", value[:-1], value + "0", value.upper() + "é"):
        assert proven({header: wrong}, BODY) is None


def test_gitlabs_signing_token() -> None:
    """The signature covers id, time and body; old ones and those of another key are refused."""
    assert proven(standard(BODY), BODY, SIGNING_TOKEN) is Forge.GITLAB
    assert proven(standard(BODY), BODY, SECRET, SIGNING_TOKEN) is Forge.GITLAB
    assert proven(standard(BODY), BODY + b" ", SIGNING_TOKEN) is None
    assert proven(standard(BODY, key=b"x" * 32), BODY, SIGNING_TOKEN) is None
    for away in (-301, 301):
        assert proven(standard(BODY, at=NOW + away), BODY, SIGNING_TOKEN) is None
    for away in (-299, 299):
        assert proven(standard(BODY, at=NOW + away), BODY, SIGNING_TOKEN) is Forge.GITLAB
    moved = standard(BODY) | {"webhook-timestamp": str(int(NOW) + 1)}
    assert proven(moved, BODY, SIGNING_TOKEN) is None
    for moment in ("", "-1", "soon", "9" * 400):
        assert proven(standard(BODY) | {"webhook-timestamp": moment}, BODY, SIGNING_TOKEN) is None


def test_a_token_being_changed_has_two_signatures() -> None:
    """One of several signatures is enough."""
    headers = standard(BODY)
    both = "v1,AAAA " + headers["webhook-signature"]
    assert proven(headers | {"webhook-signature": both}, BODY, SIGNING_TOKEN) is Forge.GITLAB


def test_a_bad_signature_is_not_rescued_by_another_header() -> None:
    """The strongest header that is there decides alone."""
    headers = standard(BODY, key=b"x" * 32) | {"X-Gitlab-Token": "s3cret"}
    assert proven(headers, BODY) is None


def test_sha1_proves_nothing() -> None:
    """GitHub's SHA-1 signature and unsigned requests are refused."""
    old = hmac.new(SECRET, BODY, hashlib.sha1).hexdigest()
    assert proven({"X-Hub-Signature": f"sha1={old}"}, BODY) is None
    assert proven({}, BODY) is None
    assert begin_proof({"X-Gitlab-Token": ""}, (), NOW) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic not base64",
        basic(b"s3cret"),
        basic(b"s3cret:"),
        basic(b"ada:s3cret "),
        f"Bearer {base64.b64encode(b'ada:s3cret').decode()}",
        "Bearer s3cret",
        "Digest username=ada",
    ],
)
def test_another_authorization_proves_nothing(value: str) -> None:
    """Only basic authentication with the secret as its password is accepted."""
    assert proven({"Authorization": value}, BODY) is None


def read(forge: Forge, event: str, payload: Any) -> Push:
    """Read a push hook of a forge."""
    header = {
        Forge.GITHUB: "X-GitHub-Event",
        Forge.GITLAB: "X-Gitlab-Event",
        Forge.GITEA: "X-Gitea-Event",
        Forge.BITBUCKET: "X-Event-Key",
        Forge.GOGS: "X-Gogs-Event",
        Forge.AZURE_DEVOPS: "X-Not-Sent",
    }[forge]
    return read_push(forge, {header: event}, json.dumps(payload).encode())


BRANCH = {"type": "branch", "name": "main"}
TAG = {"type": "tag", "name": "v1"}


@pytest.mark.parametrize(
    ("forge", "event", "payload", "refs", "default"),
    [
        (
            Forge.GITHUB,
            "push",
            {"ref": MAIN, "repository": {"default_branch": "main"}},
            (MAIN,),
            "main",
        ),
        (Forge.GITHUB, "push", {"ref": "refs/tags/v1"}, ("refs/tags/v1",), ""),
        (Forge.GITHUB, "ping", {"zen": "…"}, (), ""),
        (
            Forge.GITLAB,
            "Push Hook",
            {"ref": MAIN, "project": {"default_branch": "main"}},
            (MAIN,),
            "main",
        ),
        (Forge.GITLAB, "Tag Push Hook", {"ref": "refs/tags/v1"}, ("refs/tags/v1",), ""),
        (Forge.GITLAB, "System Hook", {"event_name": "user_create"}, (), ""),
        (Forge.GITEA, "push", {"ref": MAIN}, (MAIN,), ""),
        (
            Forge.BITBUCKET,
            "repo:push",
            {
                "push": {"changes": [{"new": BRANCH, "old": BRANCH}, {"new": None, "old": TAG}]},
                "repository": {"mainbranch": {"name": "main"}},
            },
            (MAIN, "refs/tags/v1"),
            "main",
        ),
        (
            Forge.BITBUCKET,
            "repo:refs_changed",
            {"changes": [{"ref": {"id": MAIN, "displayId": "main"}}]},
            (MAIN,),
            "",
        ),
        (Forge.BITBUCKET, "diagnostics:ping", {"test": True}, (), ""),
        (
            Forge.GOGS,
            "push",
            {"ref": MAIN, "repository": {"default_branch": "main"}},
            (MAIN,),
            "main",
        ),
        (Forge.GOGS, "issues", {"action": "opened"}, (), ""),
        (
            Forge.AZURE_DEVOPS,
            "git.push",
            {
                "eventType": "git.push",
                "resource": {
                    "commits": [{"commitId": "33b55f7c"}],
                    "refUpdates": [{"name": MAIN}, {"name": "refs/tags/v1"}],
                    "repository": {"defaultBranch": MAIN},
                },
            },
            (MAIN, "refs/tags/v1"),
            "main",
        ),
        (Forge.AZURE_DEVOPS, "build.complete", {"eventType": "build.complete"}, (), ""),
        (Forge.AZURE_DEVOPS, "", {}, (), ""),
    ],
)
def test_each_forge_says_what_was_pushed(
    forge: Forge, event: str, payload: Any, refs: tuple[str, ...], default: str
) -> None:
    """Refs come out in full, whatever the forge calls them; other events name none."""
    assert read(forge, event, payload) == Push(forge, event, refs, default)


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        ({"eventType": "git.push", "resource": {"url": "https://dev.azure.com/x"}}, True),
        ({"eventType": "git.push", "resource": {"repository": {"defaultBranch": MAIN}}}, True),
        ({"eventType": "git.push"}, False),
        ({"id": "1"}, False),
    ],
)
def test_a_push_without_details_may_be_of_any_ref(body: Any, complete: bool) -> None:  # noqa: FBT001, pytest gives it by name
    """Azure DevOps can be configured to send no details; then a sync is requested."""
    push = read_push(Forge.AZURE_DEVOPS, {}, json.dumps(body).encode(), complete=complete)
    assert not push.is_known
    assert may_move(push, "main")


@pytest.mark.parametrize(
    "body",
    [b"", b"payload=%7B%7D", b"[]", b"null", b"{}", b'{"ref": 3}', b'{"changes": [3]}', b"\xff"],
)
def test_what_names_no_ref_is_refused(body: bytes) -> None:
    """A push that cannot be read is an error with a message, and not a push."""
    with pytest.raises(PayloadError, match=r"JSON|contains no ref"):
        read_push(Forge.GITHUB, {"X-GitHub-Event": "push"}, body)


@pytest.mark.parametrize(
    ("beginning", "refs", "default", "is_known"),
    [
        (
            '{"ref": "refs/heads/main", "repository": {"default_branch": "main"}, "commits": [{"id',
            (MAIN,),
            "main",
            True,
        ),
        (' { "ref" : "refs/heads/main" , "commits" : [ 1 , 2', (MAIN,), "", True),
        ('{"ref": "refs/heads/main", "message": "a long o', (MAIN,), "", True),
        ('{"commits": [{"id": "1"}, {"ref": "refs/heads/main"', (), "", False),
        ('{"push": {"changes": [{"new": {"name": "main"}}, {"new', (), "", False),
        ('{"ref": "refs/heads/ma', (), "", False),
        ('{"ref": 3, "x": ' + "[" * 100_000, (), "", False),
        ("[1, 2", (), "", False),
        ("", (), "", False),
    ],
)
def test_the_beginning_of_a_large_body_is_read(
    beginning: str,
    refs: tuple[str, ...],
    default: str,
    is_known: bool,  # noqa: FBT001, pytest gives it by name
) -> None:
    """Members that are complete count; if the refs are not among them, any may have been pushed."""
    headers = {"X-GitHub-Event": "push"}
    push = read_push(Forge.GITHUB, headers, beginning.encode(), complete=False)
    assert push == Push(Forge.GITHUB, "push", refs, default, is_known)
    assert may_move(push, "main")
    assert may_move(push, "other") is not is_known


@pytest.mark.parametrize(
    ("ref", "pushed", "default", "wanted"),
    [
        ("main", MAIN, "", True),
        ("main", "refs/heads/feature/main", "", False),
        ("feature/main", "refs/heads/feature/main", "", True),
        ("v1", "refs/tags/v1", "", True),
        ("refs/heads/main", MAIN, "", True),
        ("refs/tags/v1", "refs/heads/v1", "", False),
        ("HEAD", MAIN, "main", True),
        ("HEAD", "refs/heads/other", "main", False),
        ("HEAD", "refs/heads/other", "", True),
        ("HEAD", "refs/tags/v1", "", False),
        ("1" * 40, MAIN, "", False),
    ],
)
def test_only_pushes_to_the_followed_ref_are_of_concern(
    ref: str,
    pushed: str,
    default: str,
    wanted: bool,  # noqa: FBT001, pytest gives it by name
) -> None:
    """Another ref moves nothing here; the default branch may be unknown."""
    assert may_move(Push(Forge.GITHUB, "push", (pushed,), default), ref) is wanted


@pytest.mark.parametrize("token", ["whsec_", "whsec_AAAA", "whsec_====", "whsec_not base64"])
def test_a_signing_token_without_a_key_is_refused(token: str) -> None:
    """The prefix alone would be an empty key, with which everybody can sign."""
    with pytest.raises(ValueError, match="a signing token must be whsec_") as refused:
        forges.check_secrets(["another", token])
    assert token == "whsec_" or token not in str(refused.value)
    forges.check_secrets(["another", SIGNING_TOKEN.decode()])

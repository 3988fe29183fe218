"""`POST /hooks/git`, over HTTP."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from openfero_gitops.web.auth import SecretLines
from openfero_gitops.web.bodies import BodyBudget
from openfero_gitops.web.errors import problems
from openfero_gitops.web.hooks import MAX_BODY_BYTES, PushHook, add_push_hook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PUSH = {
    "ref": "refs/heads/main",
    "repository": {"default_branch": "main", "clone_url": "https://evil.example/other.git"},
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Give the file with the secret."""
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    return file


@pytest.fixture
def requests() -> list[str]:
    """A list with an entry for each requested sync."""
    return []


@pytest.fixture
async def client(secret: Path, requests: list[str]) -> AsyncIterator[TestClient[Any, Any]]:
    """Give a client of a server that follows `main`."""
    app = web.Application(middlewares=[problems])
    lines = SecretLines(secret, lambda _: None)
    add_push_hook(
        app, PushHook(lambda: requests.append("sync"), "main", lines), BodyBudget(1 << 20)
    )
    async with TestClient(TestServer(app)) as client:
        yield client


async def push(
    client: TestClient[Any, Any], log: Any = PUSH, secret: bytes = b"s3cret", event: str = "push"
) -> tuple[int, dict[str, Any]]:
    """Send a push hook as GitHub does; return status and body."""
    body = log if isinstance(log, bytes) else json.dumps(log).encode()
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "X-GitHub-Event": event}
    async with client.post("/hooks/git", data=io.BytesIO(body), headers=headers) as answer:
        return answer.status, json.loads(await answer.read())


async def test_a_push_does_not_bypass_the_wait_of_the_git_server(
    secret: Path, requests: list[str]
) -> None:
    """While the Git server wants no request, the answer says when the sync starts."""
    app = web.Application(middlewares=[problems])
    hook = PushHook(
        lambda: requests.append("sync"), "main", SecretLines(secret, lambda _: None), lambda: 41.2
    )
    add_push_hook(app, hook, BodyBudget(1 << 20))
    async with TestClient(TestServer(app)) as client:
        code, answer = await push(client)

    assert (code, answer["sync"], requests) == (202, True, ["sync"])
    assert "it starts in 42 s, because the Git server wants no request" in answer["message"]


async def test_a_push_asks_for_a_sync(client: TestClient[Any, Any], requests: list[str]) -> None:
    """A signed push to the followed ref is answered with 202, and requests one sync."""
    code, answer = await push(client)
    assert (code, answer["sync"], requests) == (202, True, ["sync"])


async def test_other_refs_and_events_are_of_no_concern(
    client: TestClient[Any, Any], requests: list[str]
) -> None:
    """They are answered with 200, so that the forge shows no failure, and request no sync."""
    for log, event in ((PUSH | {"ref": "refs/heads/other"}, "push"), (PUSH, "issues")):
        code, answer = await push(client, log, event=event)
        assert (code, answer["sync"], answer["message"]) == (
            200,
            False,
            "the push does not change main",
        )
    assert requests == []


async def test_a_wrong_secret_is_401(client: TestClient[Any, Any], requests: list[str]) -> None:
    """Whoever does not know the secret gets a problem document, and no word of it."""
    code, answer = await push(client, secret=b"wrong")
    assert code == 401
    assert "--hook-secret-file" in answer["detail"]
    assert "s3cret" not in json.dumps(answer)
    assert requests == []


def rotate(file: Path, text: str) -> None:
    """Replace a mounted Secret."""
    file.write_text(text)


async def test_the_secret_rotates_without_a_restart(
    client: TestClient[Any, Any], secret: Path
) -> None:
    """Both secrets are accepted while the file has both, then only the new one."""
    rotate(secret, "s3cret\nn3w\n")
    assert (await push(client))[0] == (await push(client, secret=b"n3w"))[0] == 202
    rotate(secret, "n3w")
    assert (await push(client))[0] == 401


async def test_what_cannot_be_read_is_refused(
    client: TestClient[Any, Any], requests: list[str]
) -> None:
    """A body that is no JSON is 400, one that is too large 413."""
    code, answer = await push(client, b"payload=%7B%7D")
    assert code == 400
    assert "application/json" in answer["detail"]
    assert (await push(client, b" " * (MAX_BODY_BYTES + 1)))[0] == 413
    assert requests == []


async def test_without_a_secret_it_is_off() -> None:
    """Without a secret, nobody can request syncs."""
    requests: list[str] = []
    app = web.Application(middlewares=[problems])
    add_push_hook(app, PushHook(lambda: requests.append("sync"), "main", None), BodyBudget(0))
    async with TestClient(TestServer(app)) as client:
        code, answer = await push(client)
    assert (code, requests) == (403, [])
    assert "--hook-secret-file" in answer["detail"]

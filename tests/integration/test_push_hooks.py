"""Push hooks and SIGHUP, on replicas as real processes that would sync once an hour."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.replica import Replica, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster


def at(replica: Replica) -> str:
    """The commit that a replica has in force."""
    commit: str = replica.get("/api/sync")["revision"]["commit"]
    return commit


def push(replica: Replica, secret: str, **members: object) -> int:
    """What GitHub would send to a replica; the status of its answer."""
    body = json.dumps({"ref": "refs/heads/main", **members}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    request = urllib.request.Request(replica.url + "/hooks/git", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Give a repository with an operario."""
    made = Repository(tmp_path / "operarios")
    made.write("web.json", operario("WebDown"))
    made.commit("Operarios")
    return made


@pytest.fixture
def replicas(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> Iterator[list[Replica]]:
    """Give two replicas that sync by themselves once an hour."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    made = [
        Replica(
            tmp_path,
            name=name,
            kubeconfig=kubeconfig,
            namespace=namespace,
            repository=repository.url,
            interval="1h",
            ref="main",
            hook_secret_file=str(secret),
        )
        for name in "ab"
    ]
    with made[0], made[1]:
        yield made


def test_a_push_reaches_every_replica(replicas: list[Replica], repository: Repository) -> None:
    """A signed push to one replica brings the new commit into force on both, an unsigned none."""
    first = repository.head
    repository.write("web.json", operario("WebDown", annotations={"note": "second"}))
    second = repository.commit("Another")
    assert push(replicas[0], "wrong") == 401
    assert push(replicas[0], "s3cret", ref="refs/heads/other") == 200
    assert [at(one) for one in replicas] == [first, first]
    elsewhere = {"clone_url": "https://git.example/other.git", "default_branch": "main"}
    assert push(replicas[0], "s3cret", repository=elsewhere) == 202
    for one in replicas:
        one.wait_for(lambda one=one: at(one) == second)  # type: ignore[misc]
        assert one.get("/api/sync")["revision"]["repository"] == repository.url


def test_sighup_asks_for_a_sync(replicas: list[Replica], repository: Repository) -> None:
    """A person on the machine need not wait for the interval either."""
    second = repository.commit("Another")
    replicas[1].process.signal(signal.SIGHUP)
    for one in replicas:
        one.wait_for(lambda one=one: at(one) == second)  # type: ignore[misc]

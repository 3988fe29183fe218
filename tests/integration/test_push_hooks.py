"""Push hooks and SIGHUP, on replicas in real processes with a sync interval of one hour."""

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
    """Return the active commit of a replica."""
    commit: str = replica.get("/api/sync")["revision"]["commit"]
    return commit


def push(replica: Replica, secret: str, **members: object) -> int:
    """Send a GitHub push to a replica; return the response status."""
    body = json.dumps({"ref": "refs/heads/main", **members}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    request = urllib.request.Request(replica.url + "/hooks/git", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create a repository with an operario."""
    repository = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    repository.write("web.json", operario("WebDown"))
    repository.commit("Operarios")
    return repository


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    shared_namespace: str,
    repository: Repository,
) -> Iterator[list[Replica]]:
    """Start two replicas with a sync interval of one hour."""
    folder = tmp_path_factory.mktemp("replicas")
    secret = folder / "secret"
    secret.write_text("s3cret\n")
    started = [
        Replica(
            folder,
            name=name,
            kubeconfig=kubeconfig,
            namespace=shared_namespace,
            repository=repository.url,
            interval="1h",
            ref="main",
            hook_secret_file=str(secret),
        )
        for name in "ab"
    ]
    with started[0], started[1]:
        yield started


def test_a_push_reaches_every_replica(replicas: list[Replica], repository: Repository) -> None:
    """A signed push to one replica activates the commit on both; an unsigned one does not."""
    first = repository.head
    repository.write("web.json", operario("WebDown", annotations={"note": "second"}))
    second = repository.commit("Another")
    assert push(replicas[0], "wrong") == 401
    assert push(replicas[0], "s3cret", ref="refs/heads/other") == 200
    assert [at(replica) for replica in replicas] == [first, first]
    elsewhere = {"clone_url": "https://git.example/other.git", "default_branch": "main"}
    assert push(replicas[0], "s3cret", repository=elsewhere) == 202
    for replica in replicas:
        replica.wait_for(lambda replica=replica: at(replica) == second)  # type: ignore[misc]
        assert replica.get("/api/sync")["revision"]["repository"] == repository.url


def test_sighup_starts_a_sync(replicas: list[Replica], repository: Repository) -> None:
    """SIGHUP starts a sync before the interval ends."""
    latest = repository.commit("Another")
    replicas[1].process.signal(signal.SIGHUP)
    for replica in replicas:
        replica.wait_for(lambda replica=replica: at(replica) == latest)  # type: ignore[misc]

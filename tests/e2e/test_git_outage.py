"""A replica whose Git server refuses connections: it waits, keeps its cache, and recovers."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster import temporary_namespace
from tests.support.git_servers import gate, http_server, ssh_server
from tests.support.replica import PATIENCE_SECONDS, Replica, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

OUTAGE_SECONDS = 6.0
WAIT_SECONDS = 5


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with an operario."""
    repository = Repository(tmp_path / "served" / "operarios")
    repository.write("web.json", operario("WebDown"))
    repository.commit("Operarios")
    return repository


def commit_of(replica: Replica) -> str:
    """Return the active commit of a replica, or an empty string."""
    revision = replica.get("/api/sync")["revision"]
    return str(revision["commit"]) if revision else ""


def failures(replica: Replica) -> int:
    """Return how many syncs have failed so far."""
    history: list[dict[str, Any]] = replica.get("/api/sync")["history"]
    return sum(record["times"] for record in history if record["error"])


def push(replica: Replica, secret: str) -> str:
    """Send a GitHub push to a replica; return the message of its response."""
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    request = urllib.request.Request(replica.url + "/hooks/git", body, headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return str(json.load(answer)["message"])


def test_connections_that_are_closed_cost_nothing(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, repository: Repository
) -> None:
    """For seconds at a first start and later: one connection a try, the same cache, ready after."""
    (tmp_path / "sshd").mkdir()
    with (
        ssh_server(tmp_path / "sshd") as server,
        gate(server.port) as entrance,
        temporary_namespace(kubectl) as namespace,
    ):
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(
            server.known_hosts.read_text().replace(f":{server.port} ", f":{entrance.port} ")
        )
        entrance.shut = True
        with Replica(
            tmp_path,
            name="outage",
            kubeconfig=kubeconfig,
            namespace=namespace,
            repository=server.url(repository.folder).replace(
                f":{server.port}/", f":{entrance.port}/"
            ),
            ready=False,
            git_ssh_key_file=str(server.key),
            git_known_hosts_file=str(known_hosts),
        ) as replica:
            time.sleep(OUTAGE_SECONDS)
            replica.wait_for(lambda: entrance.refused >= 2)
            entrance.shut = False
            replica.wait_for(lambda: commit_of(replica) == repository.head)
            assert entrance.refused == failures(replica)
            assert "the connection was closed before the login" in replica.process.output

            [cache] = (tmp_path / "cache-outage").glob("*/repository.git")
            before = cache.stat().st_ino
            tried = failures(replica)
            with server.forced("kill -9 $PPID"):
                replica.wait_for(lambda: failures(replica) > tried)
                assert commit_of(replica) == repository.head
            assert "the connection was interrupted after the login" in replica.process.output
            repository.write("web.json", operario("WebDown", note="2"))
            repository.commit("Second")
            replica.wait_for(lambda: commit_of(replica) == repository.head)
            assert cache.stat().st_ino == before
            assert replica.process.returncode is None
            assert "damage" not in replica.process.output


def test_a_server_that_wants_no_request_gets_none(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, repository: Repository
) -> None:
    """Neither the interval nor push hooks bypass `Retry-After`, and then a sync follows."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret-of-the-hook\n")
    with (
        http_server(repository.folder.parent) as server,
        temporary_namespace(kubectl) as namespace,
        Replica(
            tmp_path,
            name="limited",
            kubeconfig=kubeconfig,
            namespace=namespace,
            repository=server.url("operarios/.git"),
            hook_secret_file=str(secret),
            ref="main",
        ) as replica,
    ):
        begun = time.monotonic()  # before the answer from which the seconds are counted
        server.refusal = (429, {"Retry-After": str(WAIT_SECONDS)}, "")
        replica.wait_for(lambda: failures(replica))
        asked = len(server.hosts)
        repository.write("web.json", operario("WebDown", note="2"))
        repository.commit("Second")
        server.refusal = None

        message = push(replica, "s3cret-of-the-hook")
        while time.monotonic() < begun + WAIT_SECONDS / 2:
            push(replica, "s3cret-of-the-hook")
            time.sleep(0.1)
        if time.monotonic() < begun + WAIT_SECONDS - 1:  # not on a machine that was stopped
            assert len(server.hosts) == asked
            assert "because the Git server wants no request until then" in message

        replica.wait_for(lambda: commit_of(replica) == repository.head)
        assert "the server is asked too often (429)" in replica.process.output
        assert f"wants no request for {WAIT_SECONDS} s" in replica.process.output

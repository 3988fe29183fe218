"""The repository in the settings is another one than that of the mirror."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.git_servers import http_server
from tests.support.process import free_port
from tests.support.replica import PATIENCE_SECONDS, Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


def readiness(replica: Replica) -> tuple[int, dict[str, Any]]:
    """Return the status of `/readyz`, and its conditions by name."""
    try:
        with urllib.request.urlopen(f"{replica.url}/readyz", timeout=PATIENCE_SECONDS) as answer:
            status, body = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, json.load(error)
    return status, {item["name"]: item for item in body["conditions"]}


def test_a_replica_with_another_repository_is_not_ready_before_it_was_read(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """A mistyped address does not look like a successful rollout, and loses no alert.

    The replica refuses deliveries with 503 and names both repositories in its log, its condition
    and its API; the old replica goes on and its mirror stays. When the repository can be read, it
    need not have the former one's openfero.yaml, and waiting Jobs of the former need an approval.
    """
    former = Repository(tmp_path / "former")
    former.write("hostdown.json", operario("HostDown"))
    former.write("openfero.yaml", "limits: {concurrent: 0}\n")
    former.commit("Operarios")
    other = Repository(tmp_path / "other")
    other.write("hostdown.json", operario("HostDown"))
    other.commit("Operarios")
    common: dict[str, Any] = {"kubeconfig": kubeconfig, "namespace": namespace}
    with Replica(tmp_path, name="old", repository=former.url, **common) as old:
        old.wait_for(lambda: "mirror written" in old.process.output)
        waiting = old.deliver(alert("HostDown", host="a"))[1]["items"][0]["job"]
        port = free_port()
        address = f"http://127.0.0.1:{port}/other"
        with Replica(tmp_path, name="new", repository=address, ready=False, **common) as new:
            new.wait_for(lambda: new.get("/api/sync")["unusedMirror"])
            new.wait_for(lambda: new.get("/api/sync")["error"])
            status, conditions = readiness(new)
            assert status == 503
            for repository in (former.url, address):
                assert repository in conditions["catalog"]["message"]
                assert repository in new.process.output
            assert new.deliver(alert("HostDown", host="b"))[0] == 503
            assert old.deliver(alert("HostDown", host="b"))[0] == 200
            assert readiness(old)[0] == 200
            head = kubectl.json("get", "configmap", "openfero-catalog", "-n", namespace)
            assert json.loads(head["data"]["revision.json"])["repository"] == former.url
            old.kill()
            with http_server(tmp_path, port=port):
                new.wait_for(lambda: readiness(new)[0] == 200)
                assert new.get("/api/sync")["unusedMirror"] is None
                new.wait_for(lambda: new.leads)
                assert new.deliver(alert("HostDown", host="c"))[0] == 200
                new.wait_for(lambda: new.remediation(waiting)["phase"] == "AwaitingApproval")
                new.wait_for(lambda: former.url in new.remediation(waiting)["message"])
                new.wait_for(
                    lambda: (
                        f'"repository":"{address}"'
                        in kubectl.json("get", "configmap", "openfero-catalog", "-n", namespace)[
                            "data"
                        ]["revision.json"].replace(" ", "")
                    )
                )

"""A controller that follows a repository whose IDs have 64 digits, and people who use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cli import main
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.signing import allow, ssh_signer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


def test_a_sha256_repository_is_followed_from_the_commit_to_the_audit(
    tmp_path: Path,
    kubeconfig: Path,
    kubectl: Kubectl,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Full IDs are in the Jobs, the API, the metrics and the mirror; pages abbreviate them."""
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)
    ada = ssh_signer(tmp_path, "ada@git.example")
    signers = str(allow(tmp_path / "allowed_signers", ada))
    repository = Repository(tmp_path / "operarios", object_format="sha256")
    ada.sign_in(repository)
    gate = {"openfero.io/approval": "required"}
    repository.write("hostdown.json", operario("HostDown", annotations=gate))
    first = repository.commit("Reviewed")
    flags: dict[str, Any] = {
        "kubeconfig": kubeconfig,
        "namespace": namespace,
        "repository": repository.url,
        "verify": "commit",
        "allowed_signers_file": signers,
    }

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0, capsys.readouterr()
        return capsys.readouterr().out

    def revision(replica: Replica) -> str:
        return str(replica.get("/api/sync")["revision"]["commit"])

    with Replica(tmp_path, name="one", development=False, **flags) as replica:
        assert (len(first), revision(replica)) == (64, first)
        _, body = replica.deliver(alert("HostDown", host="a"))
        job = body["items"][0]["job"]
        annotations = kubectl.json("get", "job", job, "-n", namespace)["metadata"]["annotations"]
        assert annotations["openfero.io/commit"] == first
        assert annotations["openfero.io/blob"] == repository.git("rev-parse", "HEAD:hostdown.json")
        assert replica.remediation(job)["commit"] == first
        assert first in replica.read("/metrics")
        page = replica.read("/")
        assert first[:7] in page
        assert first[:13] not in page.replace(first, "")
        replica.wait_for(lambda: replica.leads)
        target = ("--kubeconfig", str(kubeconfig), "--namespace", namespace)
        assert job in run("approve", job, *target)
        replica.wait_for(lambda: replica.remediation(job)["phase"] not in {"", "AwaitingApproval"})

        repository.write("hostdown.json", operario("HostDown", annotations={"note": "second"}))
        second = repository.commit("Another")
        replica.wait_for(lambda: revision(replica) == second)
        repository.git("reset", "--quiet", "--hard", first)
        rewritten = repository.commit("Rewritten")
        replica.wait_for(lambda: replica.get("/api/sync")["refused"])
        assert replica.get("/api/sync")["refused"]["commit"] == rewritten
        repository.git("reset", "--quiet", "--hard", second)
        replica.wait_for(lambda: replica.get("/api/sync")["error"] is None)
        replica.wait_for(lambda: mirrored(kubectl, namespace) == second)
        folder = str(repository.folder)
        assert "approval" in run("diff", folder, first[:9], second)
        prove = ("--verify", "--repo", folder, "--allowed-signers-file", signers)
        assert "1 verified" in run("audit", *target, *prove)
    repository.folder.rename(tmp_path / "away")

    with Replica(tmp_path, name="two", development=False, **flags) as two:
        assert two.get("/api/sync")["origin"] == "mirror"
        assert revision(two) == second
        status, body = two.deliver(alert("HostDown", host="b"))
        assert (status, body["items"][0]["outcome"]) == (200, "created")


def mirrored(kubectl: Kubectl, namespace: str) -> str:
    """Return the commit that the mirror holds; empty where there is none yet."""
    for config_map in kubectl.json("get", "configmaps", "-n", namespace)["items"]:
        if config_map["metadata"]["name"] == "openfero-catalog":
            return str(json.loads(config_map["data"]["revision.json"])["commit"])
    return ""

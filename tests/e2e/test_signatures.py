"""Signatures from a push to the Job, with `serve` as a process and a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.signing import allow, fingerprint, ssh_signer, stop_signing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


def test_only_what_a_trusted_signer_signed_runs_and_each_job_says_who_it_was(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """An unsigned push is told of and changes nothing; a restart without Git heals as before."""
    ada = ssh_signer(tmp_path, "ada@git.example")
    repository = Repository(tmp_path / "operarios")
    ada.sign_in(repository)
    repository.write("hostdown.json", operario("HostDown"))
    signed = repository.commit("Reviewed")
    key = tmp_path / "mirror-key"
    key.write_text("a random text that nobody knows\n")
    signer = f"ada@git.example {fingerprint(ada, tmp_path)}"
    flags: dict[str, Any] = {
        "kubeconfig": kubeconfig,
        "namespace": namespace,
        "repository": repository.url,
        "verify": "commit",
        "allowed_signers_file": str(allow(tmp_path / "allowed_signers", ada)),
        "mirror_key_file": str(key),
    }

    def job_of(answer: Any) -> dict[str, str]:
        status, body = answer
        assert status == 200, body
        [item] = body["items"]
        assert item["outcome"] == "created", item
        job = kubectl.json("get", "job", item["job"], "-n", namespace)
        return dict(job["metadata"]["annotations"])

    def sync(replica: Replica) -> Any:
        return replica.get("/api/sync")

    with Replica(tmp_path, name="one", **flags) as replica:
        job = job_of(replica.deliver(alert("HostDown", host="a")))
        assert job["openfero.io/verified-signer"] == signer
        assert job["openfero.io/commit"] == signed
        stop_signing(repository)
        repository.write("hostdown.json", operario("HostDown", evil="yes"))
        pushed = repository.commit("Pushed")
        replica.wait_for(lambda: (sync(replica)["refused"] or {}).get("commit") == pushed)
        assert f"commit {pushed[:12]} is not signed" in sync(replica)["error"]
        assert sync(replica)["revision"]["verifiedSigner"] == signer
        job = job_of(replica.deliver(alert("HostDown", host="b")))
        assert job["openfero.io/commit"] == signed
        replica.wait_for(lambda: mirrored(kubectl, namespace) == signed)
    repository.folder.rename(tmp_path / "away")

    with Replica(tmp_path, name="two", development=False, **flags) as two:
        assert sync(two)["origin"] == "mirror"
        job = job_of(two.deliver(alert("HostDown", host="c")))
        assert job["openfero.io/verified-signer"] == signer
        assert job["openfero.io/commit"] == signed


def mirrored(kubectl: Kubectl, namespace: str) -> str:
    """The commit that the marked mirror holds; empty where there is none yet."""
    for config_map in kubectl.json("get", "configmaps", "-n", namespace)["items"]:
        if config_map["metadata"]["name"] == "openfero-catalog":
            assert config_map["data"]["mark"]
            return str(config_map["data"]["revision.json"].split('"commit":"')[1][:40])
    return ""

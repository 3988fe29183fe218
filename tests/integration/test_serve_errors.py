"""What `serve` says when it cannot work: one line that says what to do, and exit code 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.chart import service_account_kubeconfig
from tests.support.git_servers import http_server
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.signing import allow, ssh_signer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Give a repository with one operario."""
    made = Repository(tmp_path / "operarios")
    made.write("hostdown.json", operario("HostDown"))
    made.commit("Operarios")
    return made


def serve(tmp_path: Path, *flags: str) -> tuple[int, str]:
    """Run `serve` until it gives up; its exit code and what it said."""
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "openfero_gitops",
            "serve",
            "--listen=127.0.0.1:0",
            f"--cache-dir={tmp_path / 'cache'}",
            "--git-timeout=10s",
            *flags,
        ],
        env={k: v for k, v in os.environ.items() if k in ("PATH", "HOME")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stderr


def complaint(said: str) -> str:
    """Return the one line that is no log line, and make sure that it is one."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("openfero-gitops:")]
    assert len(lines) == 1, said
    return lines[0]


def test_no_repository(tmp_path: Path) -> None:
    """A missing --repo is named, with the environment variable that would do."""
    code, said = serve(tmp_path)
    assert code == 2
    assert "--repo is required" in complaint(said)
    assert "OPENFERO_GITOPS_REPO" in said


def test_a_repository_that_does_not_exist(tmp_path: Path, kubeconfig: Path, namespace: str) -> None:
    """A repository that is not there ends the start: there is no mirror to serve from."""
    code, said = serve(
        tmp_path, f"--repo={tmp_path / 'nowhere'}", f"--kubeconfig={kubeconfig}",
        f"--namespace={namespace}",
    )  # fmt: skip
    assert code == 2
    assert "nowhere" in complaint(said)


def test_a_wrong_ref(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A ref that the repository does not have is named."""
    code, said = serve(
        tmp_path, f"--repo={repository.url}", "--ref=no-such-branch",
        f"--kubeconfig={kubeconfig}", f"--namespace={namespace}",
    )  # fmt: skip
    assert code == 2
    assert "no-such-branch" in complaint(said)


def test_an_empty_repository(tmp_path: Path, kubeconfig: Path, namespace: str) -> None:
    """A repository without a commit is said to be empty."""
    empty = Repository(tmp_path / "empty")
    code, said = serve(
        tmp_path, f"--repo={empty.url}", f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"
    )
    assert code == 2
    assert "empty" in complaint(said)


def test_wrong_git_credentials(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A password that the Git server refuses is said to be refused, and never shown."""
    secret = tmp_path / "credentials"
    secret.write_text("ada:not-the-password\n")
    with http_server(tmp_path, user="ada", password="the-password") as server:
        url = server.url(f"{repository.folder.name}/.git")
        code, said = serve(
            tmp_path, f"--repo={url}", f"--git-credentials-file={secret}",
            f"--kubeconfig={kubeconfig}", f"--namespace={namespace}",
        )  # fmt: skip
    assert code == 2
    assert "refused the credentials" in complaint(said)
    assert "not-the-password" not in said


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--verify=commit"], "--verify commit requires --allowed-signers-file (SSH) or"),
        (["--allowed-signers-file=/x"], "--verify is none; set --verify commit or"),
        (["--verify=tag", "--allowed-signers-file=/x"], "'HEAD': --verify tag needs the name of"),
    ],
)
def test_signers_that_cannot_be_meant(tmp_path: Path, flags: list[str], word: str) -> None:
    """Half of what signatures need is refused at the start: it would trust everybody or nobody."""
    code, said = serve(tmp_path, "--repo=https://git.example/ops.git", *flags)
    assert code == 2
    assert word in complaint(said)


def test_a_key_of_the_mirror_that_is_none(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A key that anybody guesses is refused, and not shown."""
    key = tmp_path / "key"
    key.write_text("12345\n")
    code, said = serve(
        tmp_path, f"--repo={repository.url}", f"--mirror-key-file={key}",
        f"--kubeconfig={kubeconfig}", f"--namespace={namespace}",
    )  # fmt: skip
    assert code == 2
    assert "each key needs at least 16 characters" in complaint(said)
    assert "12345" not in said


def test_an_unsigned_repository(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """Where nothing was ever signed by anybody who is trusted, nothing is served."""
    ada = ssh_signer(tmp_path, "ada@git.example")
    code, said = serve(
        tmp_path, f"--repo={repository.url}", "--verify=commit",
        f"--allowed-signers-file={allow(tmp_path / 'allowed', ada)}",
        f"--kubeconfig={kubeconfig}", f"--namespace={namespace}",
    )  # fmt: skip
    assert code == 2
    assert f"commit {repository.head[:12]} is not signed" in complaint(said)


def test_a_kubeconfig_that_is_none(tmp_path: Path, repository: Repository) -> None:
    """A file that is no kubeconfig is named."""
    file = tmp_path / "kubeconfig"
    file.write_text("hello\n")
    code, said = serve(tmp_path, f"--repo={repository.url}", f"--kubeconfig={file}")
    assert code == 2
    assert str(file) in complaint(said)


def test_a_kubeconfig_that_is_not_there(tmp_path: Path, repository: Repository) -> None:
    """A path without a file is named."""
    code, said = serve(tmp_path, f"--repo={repository.url}", f"--kubeconfig={tmp_path / 'absent'}")
    assert code == 2
    assert "absent" in complaint(said)


def test_a_kubernetes_that_is_not_known(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A version without a schema is named, and those that there are."""
    code, said = serve(
        tmp_path, f"--repo={repository.url}", f"--kubeconfig={kubeconfig}",
        f"--namespace={namespace}", "--kubernetes-version=1.7",
    )  # fmt: skip
    assert code == 2
    assert "1.7" in complaint(said)
    assert "1.36" in complaint(said)


def test_missing_rights(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A ServiceAccount without a Role is told which rights are missing, and where."""
    powerless = service_account_kubeconfig(kubeconfig, namespace, tmp_path, account="default")
    code, said = serve(
        tmp_path, f"--repo={repository.url}", f"--kubeconfig={powerless}",
        f"--namespace={namespace}",
    )  # fmt: skip
    assert code == 2
    assert f"cannot list Jobs in namespace '{namespace}'" in complaint(said)
    assert "eyJ" not in said, "no part of the token"


def test_a_port_in_use(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A port that somebody else listens on is named, with what to do."""
    start = {"kubeconfig": kubeconfig, "namespace": namespace, "repository": repository.url}
    with Replica(tmp_path, name="first", **start) as first:
        code, said = serve(
            tmp_path, f"--repo={repository.url}", f"--kubeconfig={kubeconfig}",
            f"--namespace={namespace}", f"--listen=127.0.0.1:{first.port}",
        )  # fmt: skip
    assert code == 2
    assert f"127.0.0.1:{first.port}" in complaint(said)
    assert "--listen" in said


def test_wrong_credentials_of_the_webhook(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """A delivery without the token is answered with 401, one with a rotated token with 200."""
    token = tmp_path / "token"
    token.write_text("first\n")
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=kubeconfig,
        namespace=namespace,
        repository=repository.url,
        webhook_auth="bearer",
        webhook_credentials_file=str(token),
    ) as replica:
        status, answer = replica.deliver(alert("HostDown"))
        assert (status, answer["title"]) == (401, "Unauthorized")
        assert replica.deliver(alert("HostDown"), token="first")[0] == 200
        token.write_text("second\n")
        assert replica.deliver(alert("HostDown"), token="first")[0] == 401
        assert replica.deliver(alert("HostDown"), token="second")[0] == 200


def test_a_restart_without_git_serves_from_the_mirror(
    tmp_path: Path, kubeconfig: Path, namespace: str, repository: Repository
) -> None:
    """With the repository gone, a fresh replica heals from the mirrored catalog."""
    start = {"kubeconfig": kubeconfig, "namespace": namespace, "repository": repository.url}
    with Replica(tmp_path, name="a", **start) as first:
        commit = repository.head
        first.wait_for(lambda: first.leads)
        first.wait_for(lambda: "mirror written" in first.process.output)
    repository.folder.rename(tmp_path / "gone")
    with Replica(tmp_path / ".", name="b", **start) as second:
        sync = second.get("/api/sync")
        assert sync["origin"] == "mirror"
        assert sync["revision"]["commit"] == commit
        second.wait_for(lambda: second.get("/api/sync")["error"])
        assert second.deliver(alert("HostDown"))[0] == 200
        assert second.get("/api/sync")["revision"]["commit"] == commit


def test_sigterm_ends_it_in_good_order(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str, repository: Repository
) -> None:
    """A leader that is told to stop frees its lease and exits with 0."""
    with Replica(
        tmp_path, name="a", kubeconfig=kubeconfig, namespace=namespace, repository=repository.url
    ) as replica:
        replica.wait_for(lambda: replica.leads)
        replica.process.signal(signal.SIGTERM)
        assert replica.process.wait() == 0
    lease = kubectl.json("get", "lease", "openfero-gitops", "-n", namespace)
    assert not lease["spec"].get("holderIdentity")

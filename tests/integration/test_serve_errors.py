"""`serve` reports errors at the start on one line with advice, and exits with code 2."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cli import main
from tests.support.chart import service_account_kubeconfig
from tests.support.cluster import temporary_namespace
from tests.support.git_servers import http_server
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.signing import allow, ssh_signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

Serve = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create a repository with one operario."""
    repository = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    repository.write("hostdown.json", operario("HostDown"))
    repository.commit("Operarios")
    return repository


@pytest.fixture
def serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Serve:
    """Give a function that runs `serve` in this process; it returns the exit code and the output.

    Where logs go and what signals do is left as it is: this process is the test run's.
    """
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)
    monkeypatch.setattr("openfero_gitops.cli.serve._listen_to_signals", lambda *_: None)
    for name in os.environ:
        if name.startswith("OPENFERO_GITOPS_"):
            monkeypatch.delenv(name)

    def run(*flags: str) -> tuple[int, str]:
        code = main(
            [
                "serve",
                "--listen=127.0.0.1:0",
                f"--cache-dir={tmp_path / 'cache'}",
                "--git-timeout=10s",
                "--log-format=console",
                *flags,
            ]
        )
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of the replica's webhook token."""
    return tmp_path_factory.mktemp("token") / "token"


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    kubectl: Kubectl,
    repository: Repository,
    token: Path,
) -> Iterator[Replica]:
    """Start a replica whose webhook requires a token; its mirror is in a namespace of its own."""
    token.write_text("first\n")
    with (
        temporary_namespace(kubectl) as namespace,
        Replica(
            tmp_path_factory.mktemp("replica"),
            name="first",
            kubeconfig=kubeconfig,
            namespace=namespace,
            repository=repository.url,
            webhook_auth="bearer",
            webhook_credentials_file=str(token),
        ) as started,
    ):
        yield started


def error_line(output: str) -> str:
    """Return the only line that is not a log line."""
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.startswith("openfero-gitops:")]
    assert len(lines) == 1, output
    return lines[0]


def test_no_repository(serve: Serve) -> None:
    """A missing --repo is reported, together with its environment variable."""
    code, output = serve()
    assert code == 2
    assert "--repo is required" in error_line(output)
    assert "OPENFERO_GITOPS_REPO" in output


def test_a_repository_that_does_not_exist(
    serve: Serve, tmp_path: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """A missing repository without a mirror is an error at the start."""
    code, output = serve(
        f"--repo={tmp_path / 'nowhere'}", f"--kubeconfig={kubeconfig}",
        f"--namespace={shared_namespace}",
    )  # fmt: skip
    assert code == 2
    assert "nowhere" in error_line(output)


def test_a_wrong_ref(
    serve: Serve, kubeconfig: Path, shared_namespace: str, repository: Repository
) -> None:
    """A ref that the repository does not have is named."""
    code, output = serve(
        f"--repo={repository.url}", "--ref=no-such-branch",
        f"--kubeconfig={kubeconfig}", f"--namespace={shared_namespace}",
    )  # fmt: skip
    assert code == 2
    assert "no-such-branch" in error_line(output)


def test_an_empty_repository(
    serve: Serve, tmp_path: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """A repository without a commit is reported as empty."""
    empty = Repository(tmp_path / "empty")
    code, output = serve(
        f"--repo={empty.url}", f"--kubeconfig={kubeconfig}", f"--namespace={shared_namespace}"
    )
    assert code == 2
    assert "empty" in error_line(output)


def test_wrong_git_credentials(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, repository: Repository
) -> None:
    """A password that the Git server rejects is reported, not shown, and tried again."""
    secret = tmp_path / "credentials"
    secret.write_text("ada:not-the-password\n")
    with (
        http_server(repository.folder.parent, user="ada", password="the-password") as server,
        temporary_namespace(kubectl) as namespace,
        Replica(
            tmp_path,
            name="credentials",
            kubeconfig=kubeconfig,
            namespace=namespace,
            repository=server.url(f"{repository.folder.name}/.git"),
            ready=False,
            git_credentials_file=str(secret),
        ) as waiting,
    ):
        waiting.wait_for(lambda: "refused the credentials" in waiting.process.output)
        assert "no catalog is active yet" in waiting.process.output
        assert "not-the-password" not in waiting.process.output
        assert "refused the credentials" in str(waiting.get("/api/sync"))

        secret.write_text("ada:the-password\n")
        waiting.wait_for(lambda: waiting.get("/api/sync")["revision"])
        assert waiting.process.returncode is None


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--verify=commit"], "--verify commit requires --allowed-signers-file (SSH) or"),
        (["--allowed-signers-file=/x"], "--verify is none; set --verify commit or"),
        (["--verify=tag", "--allowed-signers-file=/x"], "'HEAD': --verify tag needs the name of"),
    ],
)
def test_incomplete_signature_settings(serve: Serve, flags: list[str], word: str) -> None:
    """Incomplete signature settings are rejected at the start."""
    code, output = serve("--repo=https://git.example/ops.git", *flags)
    assert code == 2
    assert word in error_line(output)


def test_a_weak_key_of_the_mirror(
    serve: Serve, tmp_path: Path, kubeconfig: Path, shared_namespace: str, repository: Repository
) -> None:
    """A key that is too short is rejected, and not shown."""
    key = tmp_path / "key"
    key.write_text("12345\n")
    code, output = serve(
        f"--repo={repository.url}", f"--mirror-key-file={key}",
        f"--kubeconfig={kubeconfig}", f"--namespace={shared_namespace}",
    )  # fmt: skip
    assert code == 2
    assert "each key needs at least 16 characters" in error_line(output)
    assert "12345" not in output


def test_an_unsigned_repository(
    serve: Serve, tmp_path: Path, kubeconfig: Path, shared_namespace: str, repository: Repository
) -> None:
    """A repository without any trusted signature is an error at the start."""
    ada = ssh_signer(tmp_path, "ada@git.example")
    code, output = serve(
        f"--repo={repository.url}", "--verify=commit",
        f"--allowed-signers-file={allow(tmp_path / 'allowed', ada)}",
        f"--kubeconfig={kubeconfig}", f"--namespace={shared_namespace}",
    )  # fmt: skip
    assert code == 2
    assert f"commit {repository.head[:12]} is not signed" in error_line(output)


def test_a_malformed_kubeconfig(serve: Serve, tmp_path: Path, repository: Repository) -> None:
    """A file that is not a kubeconfig is named."""
    file = tmp_path / "kubeconfig"
    file.write_text("hello\n")
    code, output = serve(f"--repo={repository.url}", f"--kubeconfig={file}")
    assert code == 2
    assert str(file) in error_line(output)


def test_a_missing_kubeconfig(serve: Serve, tmp_path: Path, repository: Repository) -> None:
    """A kubeconfig path without a file is named."""
    absent = tmp_path / "absent"
    code, output = serve(f"--repo={repository.url}", f"--kubeconfig={absent}")
    assert code == 2
    assert "absent" in error_line(output)


def test_an_unknown_kubernetes_version(
    serve: Serve, kubeconfig: Path, shared_namespace: str, repository: Repository
) -> None:
    """A version without a schema is named, together with the supported versions."""
    code, output = serve(
        f"--repo={repository.url}", f"--kubeconfig={kubeconfig}",
        f"--namespace={shared_namespace}", "--kubernetes-version=1.7",
    )  # fmt: skip
    assert code == 2
    assert "1.7" in error_line(output)
    assert "1.36" in error_line(output)


def test_missing_permissions(
    serve: Serve, tmp_path: Path, kubeconfig: Path, shared_namespace: str, repository: Repository
) -> None:
    """The missing permissions of a ServiceAccount without a Role are named."""
    powerless = service_account_kubeconfig(
        kubeconfig, shared_namespace, tmp_path, account="default"
    )
    code, output = serve(
        f"--repo={repository.url}", f"--kubeconfig={powerless}",
        f"--namespace={shared_namespace}",
    )  # fmt: skip
    assert code == 2
    assert f"cannot list Jobs in namespace '{shared_namespace}'" in error_line(output)
    assert "eyJ" not in output, "no part of the token"


def test_a_port_in_use(
    tmp_path: Path,
    kubeconfig: Path,
    shared_namespace: str,
    repository: Repository,
    replica: Replica,
) -> None:
    """A port that is in use is named, with advice; the process exits with 2."""
    ran = subprocess.run(
        [
            sys.executable,
            *("-m", "openfero_gitops", "serve"),
            f"--listen=127.0.0.1:{replica.port}",
            f"--cache-dir={tmp_path / 'cache'}",
            f"--repo={repository.url}",
            f"--kubeconfig={kubeconfig}",
            f"--namespace={shared_namespace}",
            "--log-format=console",
        ],
        env={k: v for k, v in os.environ.items() if k in ("PATH", "HOME")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert f"127.0.0.1:{replica.port}" in error_line(ran.stderr)
    assert "--listen" in ran.stderr


@pytest.mark.parametrize("failure", ["port", "kubeconfig", "address", "rights"])
def test_each_line_of_a_failed_start_is_json(
    tmp_path: Path,
    kubeconfig: Path,
    shared_namespace: str,
    repository: Repository,
    replica: Replica,
    failure: str,
) -> None:
    """With the JSON log, the reason why `serve` exits is an event, too."""
    flags = {
        "listen": "127.0.0.1:0",
        "cache-dir": str(tmp_path / "cache"),
        "repo": repository.url,
        "kubeconfig": str(kubeconfig),
        "namespace": shared_namespace,
        "log-format": "json",
        "web-auth": "proxy",
        "web-trusted-proxy": "10.244.0.0/16",
    }
    reason = {
        "port": f"cannot listen on 127.0.0.1:{replica.port}",
        "kubeconfig": "absent",
        "address": "somewhere",
        "rights": "cannot list Jobs",
    }[failure]
    match failure:
        case "port":
            flags["listen"] = f"127.0.0.1:{replica.port}"
        case "kubeconfig":
            flags["kubeconfig"] = str(tmp_path / "absent")
        case "address":
            flags["listen"] = "somewhere"
        case "rights":
            flags["kubeconfig"] = str(
                service_account_kubeconfig(
                    kubeconfig, shared_namespace, tmp_path, account="default", lifetime="10m"
                )
            )
    ran = subprocess.run(
        [
            *(sys.executable, "-X", "dev", "-m", "openfero_gitops", "serve"),
            *(f"--{flag}={value}" for flag, value in flags.items()),
        ],
        env={k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "PYTHONPATH")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    last = [json.loads(line) for line in ran.stderr.splitlines()][-1]
    assert (last["level"], last["event"]) == ("critical", "fatal error; exiting")
    assert reason in last["error"]


def test_probes_are_answered_before_the_api_server_is(
    tmp_path: Path, repository: Repository
) -> None:
    """`/livez` answers and SIGTERM works while the API server accepts requests without an answer.

    Every line of the log is JSON.
    """
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        kubeconfig = tmp_path / "frozen.kubeconfig"
        server = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": server}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        with Replica(
            tmp_path,
            name="frozen",
            kubeconfig=kubeconfig,
            roles=False,
            namespace="openfero",
            repository=repository.url,
            ready=False,
        ) as replica:
            assert "cannot reach the API server" not in replica.process.output
            assert replica.deliver(alert("HostDown"))[0] == 503
            replica.process.signal(signal.SIGTERM)
            assert replica.process.wait() == 0
            assert "cannot reach the API server" not in replica.process.output
            lines = [json.loads(line) for line in replica.process.output.splitlines()]
            assert any(line["event"] == "listening" for line in lines)


def test_wrong_credentials_of_the_webhook(replica: Replica, token: Path) -> None:
    """A delivery without the token gets status 401, one with a rotated token 200."""
    status, answer = replica.deliver(alert("HostDown"))
    assert (status, answer["title"]) == (401, "Unauthorized")
    assert replica.deliver(alert("HostDown"), token="first")[0] == 200
    token.write_text("second\n")
    assert replica.deliver(alert("HostDown"), token="first")[0] == 401
    assert replica.deliver(alert("HostDown"), token="second")[0] == 200


def test_sigterm_releases_the_lease_and_a_restart_without_git_uses_the_mirror(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """A leader that gets SIGTERM exits with 0; a new replica heals from the mirrored catalog."""
    repository = Repository(tmp_path / "operarios")
    repository.write("hostdown.json", operario("HostDown"))
    commit = repository.commit("Operarios")
    start = {"kubeconfig": kubeconfig, "namespace": namespace, "repository": repository.url}
    with Replica(tmp_path, name="a", **start) as first:
        first.wait_for(lambda: first.leads)
        first.wait_for(lambda: "mirror written" in first.process.output)
        first.process.signal(signal.SIGTERM)
        assert first.process.wait() == 0
    lease = kubectl.json("get", "lease", "openfero-gitops", "-n", namespace)
    assert not lease["spec"].get("holderIdentity")
    repository.folder.rename(tmp_path / "gone")
    with Replica(tmp_path, name="b", **start) as second:
        sync = second.get("/api/sync")
        assert sync["origin"] == "mirror"
        assert sync["revision"]["commit"] == commit
        second.wait_for(lambda: second.get("/api/sync")["error"])
        assert second.deliver(alert("HostDown"))[0] == 200
        assert second.get("/api/sync")["revision"]["commit"] == commit

"""The Kubernetes cluster that tests share, and kubectl for it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.controlplane import HERE, binaries
from tests.support.optional import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class KubectlError(RuntimeError):
    """kubectl failed; the text is its error output."""


class Kubectl:
    """kubectl for one cluster: `kubectl("get", "jobs", "-n", namespace)` returns its stdout.

    It blocks: in an async test call it through `asyncio.to_thread`.
    """

    def __init__(self, executable: Path, kubeconfig: Path) -> None:
        self._command = [
            str(executable),
            f"--kubeconfig={kubeconfig}",
            # Next to the kubeconfig: the cache of another cluster on these ports would be wrong.
            f"--cache-dir={kubeconfig.parent / 'cache'}",
        ]

    def __call__(self, *arguments: str, stdin: str | None = None, patience: float = 180) -> str:
        """Run it with these arguments.

        Raises:
            KubectlError: it failed.
            subprocess.TimeoutExpired: it took more than `patience` seconds.
        """
        done = subprocess.run(
            [*self._command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        """Return the decoded `-o json` output."""
        return json.loads(self(*arguments, "-o", "json", stdin=stdin))

    def create(self, namespace: str, *objects: object) -> None:
        """Create objects that are given as JSON values."""
        self("create", "-n", namespace, "-f", "-", stdin="\n".join(map(json.dumps, objects)))

    def wait(self, namespace: str, resource: str, condition: str, *, patience: int = 180) -> None:
        """Wait until a resource (like `job/NAME`) meets a condition of `kubectl wait --for`.

        Raises:
            KubectlError: the condition is not met after `patience` seconds.
        """
        self("wait", resource, f"--for={condition}", f"--timeout={patience}s", "-n", namespace)


@dataclass(frozen=True)
class Cluster:
    """A running cluster: the one started for this test run, or that of `KUBECONFIG`.

    Only the former has an audit log.
    """

    kubeconfig: Path
    kubectl: Kubectl
    audit_log: Path | None = None


@contextlib.contextmanager
def temporary_namespace(kubectl: Kubectl, name: str = "") -> Iterator[str]:
    """Create a namespace in which Pods can be created, and delete it with the block."""
    name = name or f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    kubectl.wait(name, "serviceaccount/default", "create")
    yield name
    delete_namespace(kubectl, name)


def delete_namespace(kubectl: Kubectl, name: str) -> None:
    """Delete a namespace, if there is one, but not from a cluster that ends with the test run.

    There, deleting it would cost more than all that most tests do in it. The deletion does not
    wait: thousands of Jobs have thousands of finalizers.
    """
    if existing_kubeconfig() is not None:
        kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def existing_kubeconfig() -> Path | None:
    """Return the kubeconfig that the environment gives, if it does."""
    given = os.environ.get("KUBECONFIG")
    return Path(given).resolve() if given else None


def require_kubectl(config: pytest.Config) -> Path:
    """Return a kubectl for the cluster of `KUBECONFIG`: the one on PATH, else the built one."""
    executable = shutil.which("kubectl")
    return Path(executable) if executable else require_binaries(config) / "kubectl"


def require_binaries(config: pytest.Config) -> Path:
    """Return the folder of the built control plane (with kubectl and helm).

    It builds them if needed, with a message on the terminal, since it takes
    minutes. Without Go see `missing`.
    """
    checked = subprocess.run([HERE / "build", "--check"], capture_output=True, check=False)
    if checked.returncode == 2:
        missing("the test cluster", "install Go 1.26 or later (https://go.dev/dl)")
    capture = config.pluginmanager.getplugin("capturemanager")
    if checked.returncode and capture is not None:
        with capture.global_and_fixture_disabled():
            return binaries()
    return binaries()

"""What is imported of the library `kubernetes`."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.paths import ROOT

_PATIENCE = 90  # seconds


def run(program: str) -> str:
    """Run a Python program in a process of its own; return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=_PATIENCE,
        check=True,
    ).stdout


def test_only_one_of_its_clients_is_imported() -> None:
    """Neither the other client nor what only that needs takes time and memory."""
    modules = set(
        json.loads(run("import json, sys, openfero_gitops.app\nprint(json.dumps([*sys.modules]))"))
    )
    assert "kubernetes.aio.config.kube_config" in modules
    assert {"kubernetes.client", "kubernetes.aio.dynamic", "requests"}.isdisjoint(modules)


def test_other_parts_of_the_library_can_be_imported() -> None:
    """Code that needs them finds them where they are."""
    program = (
        "import openfero_gitops.cluster.library\n"
        "from kubernetes import client\n"
        "import kubernetes.aio.dynamic\n"
        "print(client.ApiClient.__module__, kubernetes.aio.dynamic.__name__)\n"
    )
    assert run(program) == "kubernetes.client.api_client kubernetes.aio.dynamic\n"

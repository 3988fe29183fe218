"""What is imported of the library `kubernetes`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_PATIENCE = 90  # seconds
_WITHOUT_HOME = """
import os, pathlib
del os.environ["HOME"]
def home():
    if "HOME" not in os.environ:
        raise RuntimeError
    return pathlib.Path("/")
pathlib.Path.home = home
"""


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


@pytest.mark.parametrize("start", ["", _WITHOUT_HOME], ids=["with a home", "without a home"])
def test_only_one_of_its_clients_is_imported(start: str) -> None:
    """Neither the other client nor what only that needs takes time and memory."""
    program = "import json, sys, openfero_gitops.app\nprint(json.dumps([*sys.modules]))"
    modules = set(json.loads(run(start + program)))
    assert "kubernetes.aio.config.kube_config" in modules
    assert {"kubernetes.client", "kubernetes.aio.dynamic", "requests"}.isdisjoint(modules)


def test_other_parts_of_the_library_can_be_imported() -> None:
    """Code that needs them finds them where they are."""
    program = (
        "import openfero_gitops.cluster.library\n"
        "import kubernetes.aio.client\n"
        "print(kubernetes.aio.client.Configuration.__module__)\n"
        "import kubernetes.aio.client.api_client as api_client\n"
        "print(api_client.__name__)\n"
        "print(kubernetes.config.__name__)\n"
        "from kubernetes import client\n"
        "print(client.ApiClient.__module__)\n"
        "import kubernetes.aio.dynamic\n"
        "print(kubernetes.aio.dynamic.__name__, kubernetes.aio.__project__)\n"
    )
    assert run(program).splitlines() == [
        "kubernetes.aio.client.configuration",
        "kubernetes.aio.client.api_client",
        "kubernetes.config",
        "kubernetes.client.api_client",
        "kubernetes.aio.dynamic kubernetes_aio",
    ]

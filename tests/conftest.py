"""Fixtures for all suites."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from tests.cluster.controlplane import ControlPlane
from tests.cluster.node import Node, lacking
from tests.support.audit_log import check_rights
from tests.support.cluster import (
    Cluster,
    Kubectl,
    delete_namespace,
    existing_kubeconfig,
    require_binaries,
    require_kubectl,
    temporary_namespace,
)
from tests.support.depth import load_profile
from tests.support.optional import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


#: Characters of a parameter in the name of its test.
_LONGEST_ID = 60

load_profile()
# Without the values of variables, of which a log of pages would have megabytes.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)
# While tests are collected nothing becomes garbage that is worth looking for.
gc.disable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use one process for each core, and one more where tests wait for other programs."""
    cores = min(os.cpu_count() or 1, 4)
    folder = config.rootpath / "tests" / "unit"
    paths = [(config.invocation_params.dir / arg.partition("::")[0]) for arg in config.args]
    return cores if all(path.is_relative_to(folder) for path in paths) else cores + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Schedule the tests by their files, in the order of collection."""
    from tests.support.schedule import FileScheduling  # noqa: PLC0415 - in the main process alone

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process of pytest-xdist run all tests on the cluster that the environment names.

    They were not written to share one with tests that run at the same time. Without `KUBECONFIG`
    each process starts a control plane of its own when it needs one.
    """
    if existing_kubeconfig() is not None:
        for item in items:
            if item.get_closest_marker("cluster") is not None:
                item.add_marker(pytest.mark.xdist_group("cluster"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a test by the beginning of a long parameter: some have a million characters."""
    if isinstance(val, str | bytes) and len(val) > _LONGEST_ID:
        return f"{val[:_LONGEST_ID]!r}..."
    return None


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but not among the tests themselves, and less often."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_sessionstart() -> None:
    """Let SIGTERM (a `timeout`, a cancelled CI job) end the fixtures too, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo the configuration of logging by a command that a test runs in this process.

    Loggers would go on writing to the stderr of that test, which pytest has closed.
    """
    before, configure = structlog.get_config(), structlog.configure

    def configure_without_cache(**settings: Any) -> None:
        configure(**settings | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_without_cache)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    configure(**before)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)  # noqa: FBT003 - signature of the library


@pytest.fixture(scope="session")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Give the cluster that all tests of this process share.

    It is a control plane of this process, started at the first use; where the environment
    names a `KUBECONFIG`, it is that cluster, which is left as it is. Not to be broken: a test
    that injects faults takes `private_control_plane`.
    """
    existing = existing_kubeconfig()
    if existing is not None:
        kubectl = Kubectl(require_kubectl(request.config), existing)
        yield Cluster(existing, kubectl)
        return
    executables = require_binaries(request.config)
    plane = ControlPlane(tmp_path_factory.mktemp("cluster"))
    plane.start()
    kubectl = Kubectl(executables / "kubectl", plane.kubeconfig)
    yield Cluster(plane.kubeconfig, kubectl, plane.audit_log)
    plane.stop()
    try:
        check_rights(plane.audit_log)
    finally:
        plane.remove()


@pytest.fixture(scope="session")
def kubeconfig(control_plane: Cluster) -> Path:
    """Give the path of the shared cluster's kubeconfig."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def kubectl(control_plane: Cluster) -> Kubectl:
    """Give kubectl for the shared cluster."""
    return control_plane.kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """Give a namespace of the test's own, in which Pods can be created."""
    with temporary_namespace(kubectl) as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(kubectl: Kubectl) -> Iterator[str]:
    """Give a namespace that the tests of a file share."""
    with temporary_namespace(kubectl) as name:
        yield name


@pytest.fixture(scope="module")
def jobs_namespace(kubectl: Kubectl, shared_namespace: str) -> Iterator[str]:
    """Name the namespace that the chart makes for Jobs when it is installed in the shared one."""
    name = f"{shared_namespace}-jobs"
    yield name
    delete_namespace(kubectl, name)


@pytest.fixture
def kwok(kubectl: Kubectl) -> None:
    """Need Pods that follow the annotations of tests/cluster/stages.yaml."""
    if not kubectl.json("get", "nodes", "-l", "type=kwok")["items"]:
        missing("a node played by kwok", "unset KUBECONFIG, or use that of make cluster")


@pytest.fixture(scope="module")
def real_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Give a node that runs containers, with a control plane of its own, for the tests of a file.

    They run in its network: what they start, and the addresses they connect to, are the node's.
    """
    if need := lacking():
        missing("a node with a kubelet", need)
    require_binaries(request.config)
    # Not in /tmp, which may be a tmpfs.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    nodes = cache / "openfero-gitops" / "node"
    for process in nodes.glob("*"):
        if not Path("/proc", process.name).exists():  # it was killed
            Node(process).stop()
    with Node(nodes / str(os.getpid())) as node:
        with node.network():
            yield node
        plane = ControlPlane(node.kubeconfig.parent)
        check_rights(plane.audit_log)


@pytest.fixture(scope="module")
def private_control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., ControlPlane]]:
    """Give a function that starts a control plane for the tests of a file, to be broken at will.

    It takes the keyword arguments of `ControlPlane`. A test that breaks it repairs it.
    """
    require_binaries(request.config)
    with contextlib.ExitStack() as ended:

        def start(**arguments: Any) -> ControlPlane:
            plane = ControlPlane(tmp_path_factory.mktemp("private"), **arguments)
            ended.callback(plane.remove)
            ended.callback(check_rights, plane.audit_log)
            ended.callback(plane.stop)
            plane.start()
            return plane

        yield start

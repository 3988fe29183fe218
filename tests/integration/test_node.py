"""What a real node does before it runs, and when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import node
from tests.cluster.cgroups import enable_controllers, remove_groups
from tests.cluster.controlplane import ControlPlaneError
from tests.cluster.node import Node, lacking_privileges


@pytest.fixture(autouse=True)
def _built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Need no programs of Kubernetes."""
    monkeypatch.setattr(node, "binaries", lambda: Path("/usr/bin"))


@pytest.fixture
def _can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine lack nothing."""
    monkeypatch.setattr(node, "lacking", lambda: "")


@pytest.mark.usefixtures("_can_run")
def test_a_folder_of_other_files_is_not_deleted(tmp_path: Path) -> None:
    """Neither start nor stop deletes a folder that no node has made."""
    (tmp_path / "precious").touch()
    for act in (Node(tmp_path).start, Node(tmp_path).stop):
        with pytest.raises(ControlPlaneError, match="holds something else"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_folder_of_a_node_is_deleted(tmp_path: Path) -> None:
    """Stop deletes the folder of a node, an empty one, and is content with none."""
    folder = tmp_path / "node"
    for files in (["node", "ready"], []):
        folder.mkdir()
        for file in files:
            (folder / file).touch()
        Node(folder).stop()
        assert not folder.exists()
    Node(folder).stop()


@pytest.mark.usefixtures("_can_run")
@pytest.mark.parametrize("folder", ["/run/node", "/var/lib/jenkins/node", "/var/log/node"])
def test_a_folder_that_the_node_cannot_see_is_refused(folder: str) -> None:
    """A node is not placed in a folder that one of its own mounts would hide."""
    with pytest.raises(ControlPlaneError, match=f"{folder} is not seen by a node"):
        Node(folder).start()


@pytest.mark.parametrize(("status", "need"), [(0, ""), (1, "run in a privileged container")])
def test_root_may_lack_privileges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, need: str
) -> None:
    """Where root cannot create namespaces, as in most containers, the message says what to do."""
    program = tmp_path / "unshare"
    program.write_text(f"#!/bin/sh\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lacking_privileges().startswith(need)
    assert bool(lacking_privileges()) is bool(need)


def test_a_node_that_is_left_while_it_starts_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the process that starts a node is killed, the node notices it before it is ready."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin, subprocess.Popen([sys.executable, "-c", "input()"],
                                                   stdin=subprocess.PIPE) as kubelet:  # fmt: skip
        monkeypatch.setattr("sys.stdin", stdin)
        parts = node._Inside(tmp_path, detached=False)
        parts._programs["kubelet"] = kubelet
        parts._check("kubelet")
        os.close(write)
        with pytest.raises(ControlPlaneError, match="is gone"):
            parts._check("kubelet")
        detached = node._Inside(tmp_path, detached=True)
        detached._programs["kubelet"] = kubelet
        detached._check("kubelet")
        monkeypatch.setattr(detached, "_deadline", 0.0)
        with pytest.raises(ControlPlaneError, match="not ready within"):
            detached._check("kubelet")
        kubelet.communicate(b"\n")


def groups(root: Path, **files: str) -> Path:
    """Write the files of a group, and return it."""
    root.mkdir()
    for name, text in files.items():
        (root / f"cgroup.{name}").write_text(text)
    return root


def test_the_processes_of_a_container_make_room_for_controllers(tmp_path: Path) -> None:
    """In a container, processes leave the root group, which then has all controllers."""
    root = groups(
        tmp_path / "cgroup",
        type="domain",
        controllers="cpu memory pids",
        subtree_control="pids",
        procs="1\n7\n",
    )
    enable_controllers(root)
    assert (root / "init" / "cgroup.procs").read_text() == "1\n7\n"
    assert (root / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.parametrize(
    "files",
    [
        {"controllers": "cpu memory", "subtree_control": "", "procs": "1\n"},
        {"type": "domain", "controllers": "cpu", "subtree_control": "cpu", "procs": "1\n"},
        {},
    ],
    ids=["root of a machine", "enabled already", "version 1"],
)
def test_other_groups_stay_as_they_are(tmp_path: Path, files: dict[str, str]) -> None:
    """Nothing is moved on a machine itself, nor where nothing is missing."""
    root = groups(tmp_path / "cgroup", **files)
    enable_controllers(root)
    assert {path.name: path.read_text() for path in root.iterdir()} == {
        f"cgroup.{name}": text for name, text in files.items()
    }


@pytest.mark.parametrize("hierarchy", ["memory", "."], ids=["version 1", "version 2"])
def test_groups_of_killed_containers_are_removed(tmp_path: Path, hierarchy: str) -> None:
    """Empty groups of Pods are removed, and no others."""
    (tmp_path / hierarchy / "k8s.io" / "pod" / "container").mkdir(parents=True)
    (tmp_path / hierarchy / "system.slice").mkdir()
    remove_groups(tmp_path)
    assert sorted(path.name for path in (tmp_path / hierarchy).iterdir()) == ["system.slice"]

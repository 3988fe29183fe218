"""The control groups of a node: what its containers leave behind, and their controllers."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
#: The parent of the groups of Pods: containerd's default.
_PODS = "k8s.io"


def remove_groups(root: Path = ROOT) -> None:
    """Remove the groups of containers that were killed; those in use cannot be removed.

    Version 1 has a hierarchy for each controller, version 2 a single one.
    """
    for hierarchy in (*root.glob(f"*/{_PODS}"), *root.glob(_PODS)):
        for group in sorted(hierarchy.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()


def enable_controllers(root: Path = ROOT) -> None:
    """Let groups limit memory and processors in a container with cgroup version 2.

    The root group of a container's cgroup namespace has processes, and a group that has some gives
    no controllers to groups below it. As the scripts of Docker in Docker and of kind do, this moves
    them to a group of their own and enables all controllers. On a machine itself nothing is moved:
    its root group has no type, can have processes, and is cared for by the init system.
    """
    enabled = root / "cgroup.subtree_control"
    if not (root / "cgroup.type").exists() or not enabled.exists():
        return
    controllers = (root / "cgroup.controllers").read_text().split()
    if set(controllers) <= set(enabled.read_text().split()):
        return
    child = root / "init"
    child.mkdir(exist_ok=True)
    for attempts_left in reversed(range(10)):  # a process may start another one meanwhile
        for process in (root / "cgroup.procs").read_text().split():
            with (
                contextlib.suppress(ProcessLookupError),
                (child / "cgroup.procs").open("a") as file,
            ):
                file.write(f"{process}\n")
        try:
            enabled.write_text(" ".join(f"+{controller}" for controller in controllers))
        except OSError as error:
            if error.errno != errno.EBUSY or not attempts_left:
                raise
        else:
            return

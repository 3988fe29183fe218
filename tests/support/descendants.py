"""Processes and open files, as /proc reports them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def descendants(pid: int | None = None) -> set[int]:
    """Return all descendants of a process (default: this process), zombies included."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (status := _status(int(entry.name))) is not None:
            parents[int(entry.name)] = status[1]
    below: set[int] = set()
    fresh = {pid or os.getpid()}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - below
        below |= fresh
    return below


def wait_gone(pids: set[int], patience: float = 60) -> set[int]:
    """Wait until processes are gone, and return those that still exist.

    A zombie is gone once it is init's to reap.
    """
    deadline = time.monotonic() + patience
    while (remaining := {pid for pid in pids if _exists(pid)}) and time.monotonic() < deadline:
        time.sleep(0.01)
    return remaining


def _exists(pid: int) -> bool:
    status = _status(pid)
    return status is not None and (status[0] != "Z" or status[1] == os.getpid())


def _status(pid: int) -> tuple[str, int] | None:
    """Return the state letter and the parent of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def command_and_environment(pid: int) -> bytes:
    """Return the arguments and the environment of a process."""
    with suppress(OSError):
        folder = Path(f"/proc/{pid}")
        return (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    return b""


def open_files() -> int:
    """Count the file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a descriptor more would be counted

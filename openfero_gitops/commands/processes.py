"""How many processes a command may start: as many as it has processors and memory for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def usable_processes(
    bytes_each: int, *, cgroups: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP
) -> int:
    """Return how many processes can run at once, besides this one, which takes as much memory.

    The limits of a container are those of its cgroup and of all above it. Only version 2 of cgroups
    is read; in version 1 there seems to be no limit.
    """
    counts = [_processors()]
    for group in _groups(cgroups, own_cgroup):
        quota, _, period = _content(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            counts.append(int(quota) // int(period))
        memory = _content(group / "memory.max")
        if memory.isdecimal():
            counts.append(int(memory) // bytes_each - 1)
    return max(min(counts), 0)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(cgroups: Path, own_cgroup: Path) -> Iterator[Path]:
    """Yield the cgroup of this process and those above it."""
    path = next(
        (line[3:] for line in _content(own_cgroup).splitlines() if line.startswith("0::/")), "/"
    )
    group = cgroups / path.lstrip("/")
    yield group
    for parent in group.parents:
        if not parent.is_relative_to(cgroups):
            return
        yield parent


def _content(file: Path) -> str:
    """Return the content of a file; empty if it cannot be read."""
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""

"""A real limit of memory for a process: a cgroup where one can be made, else a resource limit.

A cgroup counts what a container's limit counts: resident memory of the process and its children,
and buffers of sockets and files that cannot be dropped. Where no group can be made (no root, or a
read-only /sys), `RLIMIT_DATA` limits each process's writable memory instead, resident or not.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOUNT: Final = Path("/sys/fs/cgroup")
#: Memory that is reserved but never touched (stacks of threads, arenas), in bytes.
_RESERVED: Final = 256 * 1024 * 1024


class MemoryLimit:
    """A limit in bytes; `wrap` makes a command run under it."""

    def __init__(self, limit: int, group: Path | None) -> None:
        """Use `group` as the cgroup, or a resource limit without one."""
        self.limit = limit
        self.group = group

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` under the limit, with the same process id."""
        if self.group is None:
            limit = f"ulimit -d {(self.limit + _RESERVED) // 1024}"
            return ["/bin/sh", "-c", f'{limit} && exec "$@"', "sh", *argv]
        join = f'echo $$ > {self.group}/cgroup.procs && exec "$@"'
        return ["/bin/sh", "-c", join, "sh", *argv]

    def peak(self) -> int | None:
        """Return the highest use so far in bytes; None if it is not known."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            with contextlib.suppress(OSError, TypeError, ValueError):
                return int((self.group / name).read_text())  # type: ignore[operator]
        return None

    def __str__(self) -> str:
        """Name the limit and how it is made."""
        how = "cgroup" if self.group else "RLIMIT_DATA"
        return f"{self.limit // 1024 // 1024} MiB ({how})"


@contextlib.contextmanager
def memory_limit(limit: int, name: str) -> Iterator[MemoryLimit]:
    """Give a limit of so many bytes; a cgroup is removed with the block."""
    group = _make_group(limit, f"{name}-{os.getpid()}")
    try:
        yield MemoryLimit(limit, group)
    finally:
        if group is not None:
            _remove(group)


def _make_group(limit: int, name: str) -> Path | None:
    """Make a cgroup beneath this process's own, or at the mount if that is not visible."""
    for parent, limits in _candidates():
        group = parent / name
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                for file in limits:
                    (group / file).write_text("0" if file == "memory.swap.max" else str(limit))
            except OSError:
                group.rmdir()
                continue
            return group
    return None


def _candidates() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """List where a group may be made, and the files that set its limit: cgroup v1, then v2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            for parent in (_MOUNT / "memory" / path.lstrip("/"), _MOUNT / "memory"):
                yield parent, ("memory.limit_in_bytes",)
        elif not controllers:
            for parent in (_MOUNT / path.lstrip("/"), _MOUNT):
                yield parent, ("memory.max", "memory.swap.max")


def _remove(group: Path) -> None:
    """Remove a group; its last process may take a moment to be gone."""
    for _ in range(50):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return

"""How many processes a command may start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.commands.processes import usable_processes

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


def _write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, 16),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 0),
        ({"memory.max": f"{512 * MIB}\n"}, 4),
        ({"memory.max": f"{64 * MIB}\n"}, 0),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2),
        ({"a/b/memory.max": f"{900 * MIB}", "c/memory.max": "1"}, 8),
        ({"cpu.max": "none", "memory.max": "\N{SNOWMAN}"}, 16),
    ],
)
def test_the_lowest_limit_counts(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the processors, and of the cgroup and all above it; what is unreadable is none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    _write(tmp_path, files)
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/x\n0::/a/b\n")
    assert usable_processes(100 * MIB, cgroups=tmp_path, own_cgroup=own) == expected


def test_without_cgroups_the_processors_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a process cannot be bound to some of them."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    missing = tmp_path / "missing"
    assert usable_processes(100 * MIB, cgroups=missing, own_cgroup=missing) == 3

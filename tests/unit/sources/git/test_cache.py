"""The directory that keeps a repository."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from openfero_gitops.sources.git.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3600.0


def test_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    """A log, or a part of a key's copy, stays only while a running process can use it."""
    cache = Cache.of(tmp_path, "https://git.example.com/ops")
    cache.open()
    left = ("transport-1a2b", ".repaired-3c4d")
    kept = ("transport-5e6f", ".repaired-7a8b", "repaired-12345678-9c0d", "lock", "gitconfig")
    for name in (*left, *kept):
        (cache.folder / name).write_text("text")
    for name in (*left, "repaired-12345678-9c0d", "lock", "gitconfig"):
        hours_ago = time.time() - 2 * HOUR
        os.utime(cache.folder / name, (hours_ago, hours_ago))

    cache.sweep(3 * HOUR)
    assert {path.name for path in cache.folder.iterdir()} == {*left, *kept, "home"}
    cache.sweep(60.0)
    assert {path.name for path in cache.folder.iterdir()} == {*kept, "home"}

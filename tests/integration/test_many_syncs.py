"""What is held after many syncs is what was held after a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.syncs import PACKS, judged, levels
from tests.support.depth import scaled

if TYPE_CHECKING:
    from pathlib import Path


async def test_many_syncs_of_a_changing_repository_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    """Descriptors and children are level; threads, packs, Python's memory and the disk all but."""
    seen = [level async for level in levels(tmp_path, syncs=scaled(80), points=4, files=30)]

    assert len(seen) == 4
    first = seen[0]
    assert {level.descriptors for level in seen} == {first.descriptors}
    assert {level.children for level in seen} == {first.children}
    assert {level.loose for level in seen} == {0}
    assert max(level.packs for level in seen) <= PACKS
    assert [one for one in judged(seen) if not one.is_level] == []

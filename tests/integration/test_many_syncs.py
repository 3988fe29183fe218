"""Resource use after many syncs equals that after a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.syncs import PACKS, judged, levels
from tests.support.depth import scaled

if TYPE_CHECKING:
    from pathlib import Path


async def test_many_syncs_of_a_changing_repository_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    """Descriptors and children are level; threads, packs, memory and the disk nearly so."""
    measured = [level async for level in levels(tmp_path, syncs=scaled(80), points=4, files=30)]

    assert len(measured) == 4
    first = measured[0]
    assert {level.descriptors for level in measured} == {first.descriptors}
    assert {level.children for level in measured} == {first.children}
    assert {level.loose for level in measured} == {0}
    assert max(level.packs for level in measured) <= PACKS
    assert [figure for figure in judged(measured) if not figure.is_level] == []

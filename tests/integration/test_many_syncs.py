"""What is held after many syncs is what was held after a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.syncs import levels

if TYPE_CHECKING:
    from pathlib import Path


async def test_three_hundred_syncs_of_a_changing_repository_leave_nothing_behind(
    tmp_path: Path,
) -> None:
    """Descriptors, children, threads and packs are level, memory and disk all but."""
    seen = [level async for level in levels(tmp_path, syncs=300, points=4, files=30)]

    assert [level.syncs for level in seen] == [75, 150, 225, 300]
    first, last = seen[0], seen[-1]
    assert {level.descriptors for level in seen} == {first.descriptors}
    assert {level.children for level in seen} == {first.children}
    assert {level.threads for level in seen} == {first.threads}
    assert {level.loose for level in seen} == {0}
    assert max(level.packs for level in seen) <= 51
    assert last.memory - first.memory < 20
    # (A pack of one commit takes two blocks of the disk or three, until it is rolled up.)
    assert last.disk < 2 * last.clone + 51 * 3 * 4096

"""Work that is good to have, and fails."""

from __future__ import annotations

import asyncio

import pytest

from openfero_gitops.app import _aside
from openfero_gitops.workers.lead import TermEnded
from tests.support.workers import in_background, in_virtual_time, seconds_so_far


@in_virtual_time
async def test_what_fails_begins_anew_and_ends_nothing_else() -> None:
    """Half a minute later, however often it fails."""
    began: list[float] = []

    async def fails() -> None:
        began.append(seconds_so_far())
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async with in_background(_aside(fails)):
        await asyncio.sleep(100)
    assert began == [0, 31, 62, 93]


@in_virtual_time
async def test_the_end_of_a_term_is_no_failure() -> None:
    """It ends with the other work of that leadership."""

    async def ends() -> None:
        raise TermEnded("over")

    with pytest.raises(TermEnded):
        await _aside(ends)

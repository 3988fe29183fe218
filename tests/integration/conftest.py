"""Fixtures that several files share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.follower import followers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.follower import Follower
    from tests.support.repository import Repository


@pytest.fixture
async def replicas(
    repository: Repository, tmp_path: Path
) -> AsyncIterator[Callable[..., Follower]]:
    """Return a function that creates replicas of one cluster, each with its own cache."""
    async with followers(repository.url, tmp_path) as make_replica:
        yield make_replica

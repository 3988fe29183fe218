"""A replica compares its active commit with the leader's, which it reads from the mirror."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from openfero_gitops.catalog.lag import LagMonitor
from openfero_gitops.catalog.mirror import HEAD, write_mirror
from openfero_gitops.domain.catalog import Catalog, Envelope, Revision, Snapshot
from openfero_gitops.domain.errors import SourceError, Unavailable
from openfero_gitops.domain.sync import LagState, ReplicaLag
from tests.support import build
from tests.support.workers import in_background, in_virtual_time, seconds_so_far

REPOSITORY = "https://git.example/ops"
#: A line of commits, the oldest first, and a commit on another branch.
LINE = ["1" * 40, "2" * 40, "3" * 40]
BESIDE = "9" * 40


class Desk:
    """A replica with an active commit, a leader with a mirrored one, and a history."""

    def __init__(self, own: str | None, leader: str | None) -> None:
        self.own = own
        self.leader = leader
        self.leaders_repository = REPOSITORY
        self.fetched = {*LINE, BESIDE}
        self.down = False
        self.lag_monitor = LagMonitor(
            store=self,
            history=self,
            catalog=self.catalog,
            now=self.now,
            tolerance=timedelta(minutes=2),
        )

    def now(self) -> datetime:
        """Return the wall clock time."""
        return build.NOW + timedelta(seconds=seconds_so_far())

    def catalog(self) -> Catalog | None:
        """Return the replica's active catalog."""
        return None if self.own is None else Catalog(revision(self.own), Envelope(), ())

    async def get(self, name: str) -> dict[str, Any] | None:
        """Return the head of the mirror."""
        if self.down:
            raise Unavailable("no connection")
        assert name == HEAD
        return None if self.leader is None else head(self.leader, self.leaders_repository)

    async def is_ancestor(self, older: str, newer: str, *, deepen: bool = True) -> bool:  # noqa: ARG002
        """Return whether a commit is an ancestor of another."""
        if newer not in self.fetched:
            raise SourceError("not in the cache")
        both = older in LINE and newer in LINE
        return older == newer or (both and LINE.index(older) < LINE.index(newer))

    async def compare(self) -> LagState | None:
        """Compare once, and return the state."""
        await self.lag_monitor.compare()
        lag = self.lag_monitor.lag
        return lag.state if lag else None


def revision(commit: str, repository: str = REPOSITORY) -> Revision:
    """Return a revision at a commit."""
    return Revision(repository, "main", commit)


def head(commit: str, repository: str) -> dict[str, Any]:
    """Return the head of a mirror of a commit."""
    return write_mirror(Snapshot(revision(commit, repository), "", ()), "controller").head


@pytest.mark.parametrize(
    ("own", "leader", "state"),
    [
        (LINE[1], LINE[1], LagState.SAME),
        (LINE[0], LINE[2], LagState.BEHIND),
        (LINE[2], LINE[0], LagState.AHEAD),
        (BESIDE, LINE[2], LagState.APART),
        (None, LINE[2], None),
        (LINE[0], None, None),
    ],
)
@in_virtual_time
async def test_a_replica_compares_its_commit_with_the_leaders(
    own: str | None, leader: str | None, state: LagState | None
) -> None:
    """The state is behind, ahead, same or apart, or None if a commit is missing."""
    assert await Desk(own, leader).compare() is state


@in_virtual_time
async def test_a_replica_is_behind_a_commit_that_it_has_not_fetched() -> None:
    """A replica whose fetches fail is behind the leader's unknown commit."""
    desk = Desk(LINE[0], LINE[2])
    desk.fetched.discard(LINE[2])
    assert await desk.compare() is LagState.BEHIND


@in_virtual_time
async def test_a_lasting_lag_is_reported() -> None:
    """A lag is reported after the tolerance, even if the leader moves on, until it ends."""
    desk = Desk(LINE[0], LINE[0])
    async with in_background(desk.lag_monitor.run()):
        await asyncio.sleep(30)
        desk.leader = LINE[1]
        await asyncio.sleep(90)
        assert desk.lag_monitor.message == ""
        desk.leader = LINE[2]
        await asyncio.sleep(60)
        assert "behind the leader, whose active commit is 333333333333" in desk.lag_monitor.message
        desk.down = True
        await asyncio.sleep(60)
        assert "behind the leader" in desk.lag_monitor.message
        desk.down = False
        desk.own = LINE[2]
        await asyncio.sleep(11)
        assert desk.lag_monitor.message == ""


@pytest.mark.parametrize("leader", [LINE[0], BESIDE, "8" * 40])
@in_virtual_time
async def test_a_leader_of_another_repository_is_reported(leader: str) -> None:
    """Both repositories are named, whatever commit the leader has."""
    desk = Desk(LINE[0], leader)
    desk.leaders_repository = "https://git.example/other"
    async with in_background(desk.lag_monitor.run()):
        await asyncio.sleep(1)
        assert desk.lag_monitor.message == ""
        await asyncio.sleep(130)
        assert desk.lag_monitor.message == (
            "this replica follows https://git.example/ops, but the leader follows "
            "https://git.example/other (ref main); they have differed since 2026-11-21T03:04:05Z"
        )


@in_virtual_time
async def test_a_lasting_divergence_is_reported() -> None:
    """A divergence is reported even if the leader moves on, or first seemed to be ahead."""
    desk = Desk(BESIDE, LINE[1])
    desk.fetched.discard(LINE[1])
    async with in_background(desk.lag_monitor.run()):
        await asyncio.sleep(35)
        assert desk.lag_monitor.lag == ReplicaLag(LagState.BEHIND, LINE[1], build.NOW)
        desk.fetched.add(LINE[1])
        await asyncio.sleep(55)
        assert desk.lag_monitor.lag == ReplicaLag(LagState.APART, LINE[1], build.NOW)
        assert desk.lag_monitor.message == ""
        desk.leader = LINE[2]
        await asyncio.sleep(60)
        assert (
            "has another history than the leader, whose active commit is 333"
            in desk.lag_monitor.message
        )
        assert desk.lag_monitor.message.endswith(f"since {build.NOW:%Y-%m-%dT%H:%M:%SZ}")
        desk.own = LINE[2]
        await asyncio.sleep(11)
        assert desk.lag_monitor.message == ""


@in_virtual_time
async def test_being_ahead_is_not_reported() -> None:
    """A replica ahead of the leader has no lag message."""
    desk = Desk(LINE[2], LINE[0])
    async with in_background(desk.lag_monitor.run()):
        await asyncio.sleep(3600)
    assert desk.lag_monitor.message == ""
    assert desk.lag_monitor.lag is not None

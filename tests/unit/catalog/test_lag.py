"""How far a replica is beside the leader, as the mirror tells."""

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

#: A line of commits, the oldest first, and one beside it.
LINE = ["1" * 40, "2" * 40, "3" * 40]
BESIDE = "9" * 40


class Desk:
    """A replica that has a commit in force, a leader that has mirrored one, and a history."""

    def __init__(self, own: str | None, leader: str | None) -> None:
        self.own = own
        self.leader = leader
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
        """The wall clock's time."""
        return build.NOW + timedelta(seconds=seconds_so_far())

    def catalog(self) -> Catalog | None:
        """What is in force here."""
        return None if self.own is None else Catalog(revision(self.own), Envelope(), ())

    async def get(self, name: str) -> dict[str, Any] | None:
        """The mirror's head."""
        if self.down:
            raise Unavailable("no connection")
        assert name == HEAD
        return None if self.leader is None else head(self.leader)

    async def is_ancestor(self, older: str, newer: str, *, deepen: bool = True) -> bool:  # noqa: ARG002
        """Whether a commit continues another."""
        if newer not in self.fetched:
            raise SourceError("not in the cache")
        both = older in LINE and newer in LINE
        return older == newer or (both and LINE.index(older) < LINE.index(newer))

    async def step(self) -> LagState | None:
        """Look once."""
        await self.lag_monitor.compare()
        lag = self.lag_monitor.lag
        return lag.state if lag else None


def revision(commit: str) -> Revision:
    """A revision at a commit."""
    return Revision("https://git.example/ops", "main", commit)


def head(commit: str) -> dict[str, Any]:
    """The head of a mirror of a commit."""
    return write_mirror(Snapshot(revision(commit), "", ()), "controller").head


@pytest.mark.parametrize(
    ("own", "leader", "step"),
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
async def test_a_replica_knows_where_it_is(
    own: str | None, leader: str | None, step: LagState | None
) -> None:
    """Behind, ahead, the same or on another history; nothing where there is nothing to compare."""
    assert await Desk(own, leader).step() is step


@in_virtual_time
async def test_a_commit_that_was_not_fetched_yet_is_one_that_it_is_behind() -> None:
    """A replica whose Git is down has never seen what the leader has."""
    desk = Desk(LINE[0], LINE[2])
    desk.fetched.discard(LINE[2])
    assert await desk.step() is LagState.BEHIND


@in_virtual_time
async def test_being_behind_for_long_is_trouble() -> None:
    """It is said after a while, however often the leader moves on, and is over when it is over."""
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


@in_virtual_time
async def test_being_apart_for_long_is_trouble() -> None:
    """Also where the leader moves on over there, and where it first seemed that it was ahead."""
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
async def test_being_ahead_is_no_trouble() -> None:
    """It is the leader then who is behind, or about to mirror."""
    desk = Desk(LINE[2], LINE[0])
    async with in_background(desk.lag_monitor.run()):
        await asyncio.sleep(3600)
    assert desk.lag_monitor.message == ""
    assert desk.lag_monitor.lag is not None

"""Replicas report themselves in a ConfigMap, and read who else there is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from openfero_gitops.catalog.presence import Presence
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.catalog import Catalog, Envelope, Revision
from openfero_gitops.domain.control import NAME
from openfero_gitops.domain.replica import ReplicaReport, read_replicas, report_key
from tests.support import build
from tests.support.workers import NAMESPACE, World, in_virtual_time, seconds_so_far

if TYPE_CHECKING:
    from datetime import datetime

MINUTES = 60.0


def now() -> datetime:
    """The wall clock time."""
    return build.NOW + timedelta(seconds=seconds_so_far())


class Replica:
    """A replica with an active commit."""

    def __init__(self, world: World, name: str) -> None:
        self.commit = build.COMMIT
        self.store = ConfigMapStore(world.cluster, NAMESPACE)
        self.presence = Presence(
            store=self.store, identity=name, version="1.2.3", catalog=self.catalog, now=now
        )

    def catalog(self) -> Catalog | None:
        """Return its active catalog."""
        revision = Revision("https://git.example/ops", "main", self.commit)
        return Catalog(revision, Envelope(), ()) if self.commit else None

    async def written(self) -> str:
        """Return the version of the ConfigMap, which changes with every write."""
        config_map = await self.store.get(NAME)
        assert config_map is not None
        return str(config_map["metadata"]["resourceVersion"])


def names(replica: Replica) -> list[str]:
    """The replicas that a replica knows."""
    return [report.replica for report in replica.presence.replicas]


@in_virtual_time
async def test_each_replica_knows_the_others() -> None:
    """With version, active commit and the time of the start."""
    world = World()
    first, second = Replica(world, "a"), Replica(world, "b")
    second.commit = ""
    await first.presence.update()
    await second.presence.update()
    await first.presence.update()

    assert first.presence.replicas == [
        ReplicaReport("a", "1.2.3", build.COMMIT, build.NOW, build.NOW),
        ReplicaReport("b", "1.2.3", "", build.NOW, build.NOW),
    ]
    assert names(second) == ["a", "b"]


@in_virtual_time
async def test_a_report_is_written_rarely() -> None:
    """Every five minutes, and when the active commit changes."""
    replica = Replica(World(), "a")
    await replica.presence.update()
    before = await replica.written()

    await asyncio.sleep(4.9 * MINUTES)
    await replica.presence.update()
    assert await replica.written() == before

    replica.commit = "9" * 40
    await replica.presence.update()
    changed = await replica.written()
    assert changed != before

    await asyncio.sleep(5 * MINUTES)
    await replica.presence.update()
    assert await replica.written() != changed


@in_virtual_time
async def test_replicas_that_are_gone_are_forgotten() -> None:
    """One that no longer reports is shown as stopped, and removed after an hour."""
    world = World()
    gone, alive = Replica(world, "gone"), Replica(world, "alive")
    await gone.presence.update()
    await alive.presence.update()

    await asyncio.sleep(12 * MINUTES)
    await alive.presence.update()
    stopped = {report.replica: report.is_stopped(now()) for report in alive.presence.replicas}
    assert stopped == {"alive": False, "gone": True}

    await asyncio.sleep(60 * MINUTES)
    await alive.presence.update()
    await alive.presence.update()
    assert names(alive) == ["alive"]


@in_virtual_time
async def test_damaged_reports_are_ignored_and_removed() -> None:
    """Anybody with access may have written them."""
    replica = Replica(World(), "a")
    damaged = {
        "replica.x": "{",
        "replica.y": "[]",
        "replica.z": '{"replica": "z", "at": "yesterday", "startedAt": ""}',
        "paused": "false",
    }
    await replica.store.merge(NAME, damaged, {})
    await replica.presence.update()

    assert names(replica) == ["a"]
    config_map = await replica.store.get(NAME)
    assert config_map is not None
    assert set(config_map["data"]) == {report_key("a"), "paused"}
    assert list(read_replicas(config_map)) == [report_key("a")]

"""Replicas that share the alerts without a Job, with an API server that does not always answer."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.delivery.unanswered import (
    MAX_KINDS,
    AlertKind,
    Heard,
    OccurrenceId,
    Sample,
    Unanswered,
    UnansweredRecord,
    seconds_of,
)
from openfero_gitops.delivery.unanswered_shares import SharingPace, UnansweredAlerts
from openfero_gitops.delivery.unanswered_text import write_record
from openfero_gitops.domain.answer import Answer, Item
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from tests.support import build
from tests.support.workers import Wire, World, in_background, in_virtual_time, none

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.relay import Act, Request

NAMESPACE = "controller"


class Desk:
    """A replica that records and shares."""

    def __init__(
        self, world: World, name: str, *, leads: bool = False, poll: float = 2, rate: int = 50_000
    ) -> None:
        self.wire = Wire(world.cluster)
        self.leads = leads
        self.alerts = UnansweredAlerts(
            store=ConfigMapStore(self.wire, NAMESPACE),
            identity=name,
            now=world.now,
            is_leading=lambda: self.leads,
            replica_labels=REPLICA_LABELS,
            pace=SharingPace(poll=timedelta(seconds=poll), bytes_per_second=rate),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Desk]:
        """Run the background task of a replica, until it crashes."""
        async with in_background(self.alerts.run()):
            yield self

    def hear(self, name: str, **labels: str) -> None:
        """Deliver an alert that no operario answers."""
        alert = build.alert(labels={"alertname": name, **labels})
        reason = Reason.NO_OPERARIO
        self.alerts.receive(Answer((Item(alert, Outcome.NO_MATCH, reason, reason.text),)))

    @property
    def counts(self) -> dict[str, int]:
        """The number of alerts by name, as this replica knows them."""
        kinds = self.alerts.record.kinds
        return {kind.alertname: len(each.occurrences) for kind, each in sorted(kinds.items())}


async def shares(world: World) -> list[str]:
    """Who wrote the ConfigMaps."""
    config_maps = (await world.cluster.list(CONFIG_MAPS, NAMESPACE)).items
    return sorted(
        each["metadata"]["annotations"]["openfero.io/received-by"] for each in config_maps
    )


@in_virtual_time
async def test_replicas_show_the_same_alerts_within_five_seconds() -> None:
    """An alert that both heard counts once."""
    world = World()
    async with Desk(world, "a").running() as a, Desk(world, "b").running() as b:
        a.hear("OnlyA")
        b.hear("OnlyB")
        for desk in (a, b):
            desk.hear("Both", prometheus_replica=str(id(desk)))
        await asyncio.sleep(5)
        assert a.counts == b.counts == {"Both": 1, "OnlyA": 1, "OnlyB": 1}
        a.hear("OnlyA", pod="another")
        await asyncio.sleep(5)
        assert a.counts == b.counts == {"Both": 1, "OnlyA": 2, "OnlyB": 1}
    assert await shares(world) == ["a", "b"]


@in_virtual_time
async def test_repetitions_are_written_every_half_minute() -> None:
    """A storm of deliveries does not become a storm of writes."""
    world = World()
    async with Desk(world, "a").running() as desk:
        for _ in range(60):
            desk.hear("Again")
            await asyncio.sleep(1)
        assert 2 <= len([w for w in desk.wire.writes(CONFIG_MAPS) if w.verb == "create"]) <= 3


@in_virtual_time
async def test_alerts_survive_that_all_replicas_crash() -> None:
    """New replicas, with other names, read what the dead ones wrote."""
    world = World()
    async with Desk(world, "a").running() as a, Desk(world, "b").running() as b:
        a.hear("HeardByA")
        b.hear("HeardByB")
        await asyncio.sleep(3)
    async with Desk(world, "c").running() as c, Desk(world, "d").running() as d:
        await asyncio.sleep(5)
        assert c.counts == d.counts == {"HeardByA": 1, "HeardByB": 1}


@in_virtual_time
async def test_a_replica_that_stops_writes_what_it_heard_last() -> None:
    """Even what came just now."""
    world = World()
    a = Desk(world, "a")
    a.hear("Last")
    await a.alerts.flush(1)
    async with Desk(world, "b").running() as b:
        await asyncio.sleep(1)
        assert b.counts == {"Last": 1}


@in_virtual_time
async def test_the_leader_takes_over_the_shares_of_dead_replicas() -> None:
    """Nothing is lost meanwhile, whenever the leader crashes; its share is the only one left."""
    world = World()
    async with Desk(world, "dead").running() as dead:
        dead.hear("HeardByDead")
        await asyncio.sleep(3)
    async with Desk(world, "leader", leads=True).running() as leader:
        leader.hear("HeardByLeader")
        await asyncio.sleep(9 * 60)
        assert await shares(world) == ["dead", "leader"]
        await asyncio.sleep(90)
        assert await shares(world) == ["leader"]
        assert leader.counts == {"HeardByDead": 1, "HeardByLeader": 1}
    async with Desk(world, "new").running() as new:
        await asyncio.sleep(1)
        assert new.counts == {"HeardByDead": 1, "HeardByLeader": 1}


@in_virtual_time
async def test_a_share_is_only_deleted_after_its_content_is_written() -> None:
    """A leader that cannot write takes over nothing."""
    world = World()
    async with Desk(world, "dead").running() as dead:
        dead.hear("HeardByDead")
        await asyncio.sleep(3)

    async def no_creation(request: Request, act: Act) -> object:
        if request.verb == "create":
            raise Unavailable("down")
        return await act()

    leader = Desk(world, "leader", leads=True)
    leader.wire.trouble = no_creation
    async with leader.running():
        await asyncio.sleep(20 * 60)
        assert await shares(world) == ["dead"]
        leader.wire.trouble = none
        await asyncio.sleep(5)
        assert await shares(world) == ["leader"]


@in_virtual_time
async def test_after_a_day_nothing_is_left() -> None:
    """Neither on the pages nor in the cluster."""
    world = World()
    async with Desk(world, "leader", leads=True, poll=60).running() as leader:
        leader.hear("Old")
        await asyncio.sleep(24 * 3600 - 60)
        assert leader.counts == {"Old": 1}
        await asyncio.sleep(300)
        assert leader.counts == {}
        assert await shares(world) == []


@in_virtual_time
async def test_forged_config_maps_are_ignored_and_logged_once() -> None:
    """Those with other names are not even read, and none is deleted."""
    world = World()
    digest = "0a" * 16
    names = (f"openfero-alerts-{digest}", "kube-root-ca.crt")
    for name, data in zip(names, ("bm8=", "!"), strict=True):
        metadata = {
            "name": name,
            "labels": {"openfero.io/alerts": "true"},
            "annotations": {"openfero.io/received-by": "mallory"},
        }
        body = {"metadata": metadata, "binaryData": {"alerts.json.zlib": data}}
        await world.cluster.create(CONFIG_MAPS, NAMESPACE, body)
    with capture_logs() as logs:
        async with Desk(world, "a", leads=True).running() as desk:
            desk.hear("Real")
            await asyncio.sleep(20 * 60)
            assert desk.counts == {"Real": 1}
    assert await shares(world) == ["a", "mallory", "mallory"]
    refused = [entry for entry in logs if "cannot be read" in entry["event"]]
    assert [entry["configmap"] for entry in refused] == [names[0]]


@in_virtual_time
async def test_an_api_server_that_is_down_is_tried_again() -> None:
    """Alerts are shown here at once, and shared when it is back."""
    world = World()

    async def down(*_: object) -> object:
        raise Unavailable("down")

    async with Desk(world, "a").running() as a, Desk(world, "b").running() as b:
        a.wire.trouble = down
        a.hear("Meanwhile")
        await asyncio.sleep(60)
        assert (a.counts, b.counts) == ({"Meanwhile": 1}, {})
        a.wire.trouble = none
        await asyncio.sleep(5)
        assert b.counts == {"Meanwhile": 1}


@in_virtual_time
async def test_a_new_alert_is_known_within_five_seconds_although_the_share_is_large() -> None:
    """It is written alone first; then everything is written again, and nothing else is left."""
    world = World()
    a, b = Desk(world, "a", rate=1000), Desk(world, "b")
    async with a.running(), b.running():
        for number in range(500):  # about 20 kB
            a.hear(f"Storm{number}")
        await asyncio.sleep(4)
        assert len(b.counts) == 500
        for number in range(3):
            a.hear(f"New{number}")
            await asyncio.sleep(5)
            assert f"New{number}" in b.counts
            assert number or await shares(world) == ["a", "a"]
        await asyncio.sleep(60)
        assert await shares(world) == ["a"]
        assert len(b.counts) == 503


@in_virtual_time
async def test_a_storm_of_new_alerts_is_written_at_the_average_rate() -> None:
    """After what may be written at once: the API server is worth more than the record."""
    world = World()
    a = Desk(world, "a", rate=100)
    async with a.running():
        for number in range(600):
            a.hear(f"Storm{number}", pod=str(number))
            await asyncio.sleep(1)
        sizes = [
            len(write.body["binaryData"]["alerts.json.zlib"])
            for write in a.wire.writes(CONFIG_MAPS)
            if write.verb == "create"
        ]
    assert sum(sizes) * 3 / 4 <= 100 * (600 + 30) + max(sizes)


@in_virtual_time
async def test_an_additional_share_of_a_replica_that_crashed_is_not_lost() -> None:
    """It is read like any other, and the leader takes it over."""
    world = World()
    async with Desk(world, "dead", rate=20).running() as dead:
        dead.hear("First")
        await asyncio.sleep(3)
        dead.hear("Added")
        await asyncio.sleep(3)
    assert await shares(world) == ["dead", "dead"]
    async with Desk(world, "leader", leads=True).running() as leader:
        await asyncio.sleep(11 * 60)
        assert leader.counts == {"Added": 1, "First": 1}
        assert await shares(world) == ["leader"]


@in_virtual_time
async def test_alerts_that_come_faster_than_they_are_recorded_make_the_record_incomplete() -> None:
    """All replicas show the record as incomplete, and the log has one entry."""
    world = World()
    with capture_logs() as logs:
        async with Desk(world, "a").running() as a, Desk(world, "b").running() as b:
            await asyncio.sleep(1)
            assert a.alerts.record.is_complete(world.now())
            for number in range(10_050):
                a.hear(f"Flood{number % 7}")
            await asyncio.sleep(5)
            for desk in (a, b):
                assert not desk.alerts.record.is_complete(world.now())
    assert len([entry for entry in logs if "more alerts" in entry["event"]]) == 1


@in_virtual_time
async def test_a_forged_share_with_future_times_hides_nothing() -> None:
    """Neither here nor where the leader takes it over."""
    world = World()
    ahead = seconds_of(world.now() + timedelta(hours=2))
    unanswered = Unanswered(
        ahead, Sample(ahead, "error"), {OccurrenceId("i", 0): Heard(ahead, ahead)}
    )
    kinds = {AlertKind(f"Forged{n}", "firing", "busy"): unanswered for n in range(MAX_KINDS)}
    data, _ = write_record(UnansweredRecord(kinds, ahead))
    metadata = {
        "name": f"openfero-alerts-{'0a' * 16}",
        "labels": {"openfero.io/alerts": "true"},
        "annotations": {"openfero.io/received-by": "mallory"},
    }
    binary = {"alerts.json.zlib": base64.b64encode(data).decode()}
    await world.cluster.create(CONFIG_MAPS, NAMESPACE, {"metadata": metadata, "binaryData": binary})
    async with Desk(world, "a", leads=True).running() as desk:
        desk.hear("Real")
        await asyncio.sleep(11 * 60)
        assert desk.counts == {"Real": 1}
        assert desk.alerts.record.is_complete(world.now())
        assert await shares(world) == ["a"]

"""The watchdog's alert on several replicas, with an API server that does not always answer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from openfero_gitops.admission.pause import Control
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.delivery.watchdog import WatchdogMonitor
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.control import NAME
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.domain.watchdog import Watchdog
from tests.support import build
from tests.support.workers import (
    Wire,
    World,
    in_background,
    in_virtual_time,
    none,
    seconds_so_far,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from openfero_gitops.domain.alert import Alert
    from tests.support.relay import Act, Request

NAMESPACE = "controller"
WITHIN = timedelta(minutes=15)
WATCHDOG = Watchdog(within=WITHIN)


class Desk:
    """A replica that expects the watchdog's alert."""

    def __init__(self, world: World, watchdog: Watchdog = WATCHDOG) -> None:
        self.wire = Wire(world.cluster)
        store = ConfigMapStore(self.wire, NAMESPACE)
        self.control = Control(store, seconds_so_far, now=world.now)
        self.watchdog: Watchdog | None = watchdog
        self.reported: list[tuple[str, datetime | None]] = []
        self.monitor = WatchdogMonitor(
            store=store,
            catalog=lambda: build.catalog(envelope=Envelope(watchdog=self.watchdog)),
            now=world.now,
            report=lambda *report: self.reported.append(report),
        )
        self.control.on_read(self.monitor.observe)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[WatchdogMonitor]:
        """Activate the catalog, and run the background tasks of a replica."""
        self.monitor.reload()
        async with in_background(self.control.run()), in_background(self.monitor.run()):
            yield self.monitor


def alerts(name: str = "Watchdog", status: Status = Status.FIRING) -> list[Alert]:
    """A delivery of one alert."""
    return [build.alert(labels={"alertname": name, "severity": "none"}, status=status)]


async def recorded(world: World) -> str:
    """What replicas share about deliveries; empty if nothing is recorded."""
    for config_map in (await world.cluster.list(CONFIG_MAPS, NAMESPACE)).items:
        return str(config_map.get("data", {}).get("watchdog", ""))
    return ""


@in_virtual_time
async def test_silence_is_reported_after_the_time_of_the_envelope() -> None:
    """The message says since when, and what to check; the next delivery ends it."""
    world = World()
    desk = Desk(world)
    async with desk.running() as monitor:
        await asyncio.sleep(60)
        monitor.receive(alerts())
        await asyncio.sleep(15 * 60)
        assert monitor.trouble == ""
        await asyncio.sleep(12)
        assert monitor.trouble == (
            'the watchdog alert "Watchdog" was last delivered at 2026-11-21T03:05:05Z, 15m ago '
            "(openfero.yaml expects it within 15m). Other alerts probably do not arrive either, so "
            "nothing is healed: check Prometheus, Alertmanager, and the route of this alert to the "
            "controller, which must repeat it within 15m"
        )
        monitor.receive(alerts())
        assert monitor.trouble == ""
    assert desk.reported[0] == ("Watchdog", None)
    assert desk.reported[-1] == ("Watchdog", build.NOW + timedelta(seconds=60 + 15 * 60 + 12))


@in_virtual_time
async def test_a_starting_replica_waits_before_it_complains() -> None:
    """Alertmanager may only just have been told of it; that it never came is said as such."""
    desk = Desk(World())
    async with desk.running() as monitor:
        await asyncio.sleep(15 * 60)
        assert monitor.trouble == ""
        await asyncio.sleep(1)
        assert "has never been delivered; it has been expected since" in monitor.trouble


@in_virtual_time
async def test_only_the_firing_alert_of_that_name_counts() -> None:
    """Its case does not matter, as in operarios."""
    desk = Desk(World())
    async with desk.running() as monitor:
        monitor.receive(alerts("InfoInhibitor"))
        monitor.receive(alerts(status=Status.RESOLVED))
        monitor.receive([])
        await asyncio.sleep(1000)
        assert "never" in monitor.trouble
        monitor.receive(alerts("InfoInhibitor") + alerts("WATCHDOG"))
        assert monitor.trouble == ""


@in_virtual_time
async def test_a_delivery_to_one_replica_is_known_to_all_and_after_a_restart() -> None:
    """It is recorded within seconds."""
    world = World()
    first, second = Desk(world), Desk(world)
    async with first.running(), second.running() as monitor:
        for _ in range(6):
            first.monitor.receive(alerts())
            await asyncio.sleep(5 * 60)
            assert monitor.trouble == ""
        assert second.reported[-1][1] is not None
        assert world.now() - second.reported[-1][1] < timedelta(minutes=6)
        last = second.reported[-1][1]
    restarted = Desk(world)
    async with restarted.running() as monitor:
        await asyncio.sleep(1)
        assert restarted.reported[-1] == ("Watchdog", last)
        await asyncio.sleep(16 * 60)
        assert f"was last delivered at {last:%Y-%m-%dT%H:%M:%SZ}" in monitor.trouble


@in_virtual_time
async def test_few_deliveries_are_written() -> None:
    """At most one in a tenth of the time, however many there are, and on however many replicas."""
    world = World()
    desks = [Desk(world), Desk(world)]
    async with desks[0].running(), desks[1].running():
        for number in range(600):
            desks[number % 2].monitor.receive(alerts())
            await asyncio.sleep(1.5)
    writes = len(list(world.writes(CONFIG_MAPS)))
    assert 10 <= writes <= 20


@in_virtual_time
async def test_a_short_time_does_not_cause_many_writes() -> None:
    """At most one in ten seconds."""
    world = World()
    desk = Desk(world, Watchdog(within=timedelta(minutes=1)))
    async with desk.running():
        for _ in range(60):
            desk.monitor.receive(alerts())
            await asyncio.sleep(1)
    assert len(list(world.writes(CONFIG_MAPS))) <= 7


@in_virtual_time
async def test_without_the_api_server_the_replica_still_knows() -> None:
    """The delivery does not wait; what could not be written is written later, and logged once."""
    world = World()
    desk = Desk(world)

    async def trouble(_: Request, __: Act) -> Any:
        raise Unavailable("no connection")

    with capture_logs() as logs:
        async with desk.running() as monitor:
            desk.wire.trouble = trouble
            await asyncio.sleep(10 * 60)
            monitor.receive(alerts())
            await asyncio.sleep(10 * 60)
            assert monitor.trouble == ""
            assert await recorded(world) == ""
            desk.wire.trouble = none
            await asyncio.sleep(15)
            assert await recorded(world) == "2026-11-21T03:14:05.678901Z Watchdog"
    events = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert events.count("delivery of the watchdog not recorded") == 1


@in_virtual_time
async def test_another_watchdog_is_expected_from_the_commit_that_names_it() -> None:
    """What is recorded of the former alert does not count, nor does the former time."""
    world = World()
    desk = Desk(world)
    async with desk.running() as monitor:
        monitor.receive(alerts())
        await asyncio.sleep(14 * 60)
        desk.watchdog = Watchdog("DeadMansSwitch", WITHIN)
        monitor.reload()
        await asyncio.sleep(14 * 60)
        assert monitor.trouble == ""
        monitor.reload()  # by a commit that changes something else
        await asyncio.sleep(2 * 60)
        assert 'alert "DeadMansSwitch" has never been delivered' in monitor.trouble
        desk.watchdog = None
        monitor.reload()
        assert monitor.trouble == ""
        monitor.receive(alerts())
        await asyncio.sleep(60)
    assert desk.reported[-1] == ("", None)
    assert await recorded(world) == "2026-11-21T03:04:05.678901Z Watchdog"


@in_virtual_time
async def test_a_recorded_time_that_cannot_be_right_does_not_count() -> None:
    """Users, or a replica whose clock is wrong, may have written it."""
    for member in ("2027-01-01T00:00:00Z Watchdog", "yesterday Watchdog", "x" * 5000, ""):
        world = World()
        desk = Desk(world)
        await ConfigMapStore(world.cluster, NAMESPACE).merge(NAME, {"watchdog": member}, {})
        async with desk.running() as monitor:
            await asyncio.sleep(1000)
            assert "never" in monitor.trouble
            monitor.receive(alerts())
            await asyncio.sleep(1)
            assert (await recorded(world)).endswith(" Watchdog")
            assert (await recorded(world)).startswith("2026-")

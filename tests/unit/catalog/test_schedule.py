"""Delays between syncs, and requested syncs on several replicas."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.admission.pause import NAME, Control
from openfero_gitops.catalog.schedule import Schedule, SyncRequests, delay_before_sync
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.errors import Unavailable
from tests.support.workers import Wire, World, in_background, in_virtual_time, seconds_so_far

if TYPE_CHECKING:
    from tests.support.relay import Act, Request

NAMESPACE = "controller"
MINUTE = timedelta(minutes=1)


class Desk:
    """A replica that accepts sync requests and records when its syncs start."""

    def __init__(self, world: World, name: str) -> None:
        self.wire = Wire(world.cluster)
        self.control = Control(ConfigMapStore(self.wire, NAMESPACE), seconds_so_far)
        self.syncs: list[float] = []
        self.control.on_sync(self.sync)
        self.requests = SyncRequests(
            sync=self.sync,
            publish=self.control.request_sync,
            identity=name,
            requested=asyncio.Event(),
        )

    def sync(self) -> None:
        """Record the start of a sync."""
        self.syncs.append(seconds_so_far())

    async def run(self) -> None:
        """Run the background tasks of a replica."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.control.run())
            tasks.create_task(self.requests.run())


@in_virtual_time
async def test_a_sync_request_reaches_every_replica() -> None:
    """After a webhook to one replica, every replica syncs once within seconds."""
    world = World()
    desks = [Desk(world, name) for name in "abc"]
    async with (
        in_background(desks[0].run()),
        in_background(desks[1].run()),
        in_background(desks[2].run()),
    ):
        for index in range(2):  # the first time, the ConfigMap does not exist yet
            await asyncio.sleep(60)
            began = seconds_so_far()
            desks[index].requests.request()
            await asyncio.sleep(30)
            for desk in desks:
                assert len(desk.syncs) == index + 1
                assert desk.syncs[-1] - began <= 6
        control = await world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
        assert control["data"]["sync"].endswith(" b")
        assert not desks[2].control.pause


@in_virtual_time
async def test_many_requests_cause_few_syncs() -> None:
    """A thousand requests in ten seconds cause a few syncs, one of them after the last request."""
    desk = Desk(World(), "a")
    async with in_background(desk.run()):
        for _ in range(1000):
            desk.requests.request()
            await asyncio.sleep(0.01)
        last = seconds_so_far() - 0.01
        await asyncio.sleep(30)
    assert 2 <= len(desk.syncs) <= 7
    assert desk.syncs[-1] >= last - 0.02


@in_virtual_time
async def test_a_replica_syncs_without_the_api_server() -> None:
    """If the request cannot be published, the replica still syncs, and accepts more requests."""
    desk = Desk(World(), "a")

    async def trouble(_: Request, __: Act) -> None:
        raise Unavailable("no connection")

    desk.wire.trouble = trouble
    async with in_background(desk.run()):
        for _ in range(3):
            desk.requests.request()
            await asyncio.sleep(10)
    assert len(desk.syncs) == 3


@in_virtual_time
async def test_a_request_from_before_the_start_is_ignored() -> None:
    """A starting replica ignores old requests and a ConfigMap without data."""
    world = World()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}}
    await world.cluster.create(CONFIG_MAPS, NAMESPACE, body)
    early, late = Desk(world, "early"), Desk(world, "late")
    async with in_background(early.run()):
        early.requests.request()
        await asyncio.sleep(10)
        async with in_background(late.run()):
            await asyncio.sleep(30)
    assert len(early.syncs) == 1
    assert late.syncs == []


@in_virtual_time
async def test_two_first_requests_at_once_both_succeed() -> None:
    """A replica that loses the race to create the ConfigMap updates it instead."""
    world = World()
    desks = [Desk(world, name) for name in "abc"]
    races = [1]

    async def overtaken(request: Request, act: Act) -> Any:
        if request.verb == "create" and races:
            races.clear()
            await desks[1].control.request_sync("b")
        return await act()

    desks[0].wire.trouble = overtaken
    async with in_background(desks[2].run()):
        await asyncio.sleep(60)
        await desks[0].control.request_sync("a")
        await asyncio.sleep(10)
    assert len(desks[2].syncs) == 1
    control = await world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
    assert control["data"]["sync"].endswith(" a")


def test_retries_back_off_exponentially() -> None:
    """Retries follow after 5 s, 10 s, … up to five minutes; a success restores the interval."""
    pauses = [delay_before_sync(MINUTE, n, 0.5).total_seconds() for n in range(9)]
    assert pauses == [60, 5, 10, 20, 40, 80, 160, 300, 300]


def test_the_delay_does_not_exceed_the_interval() -> None:
    """After failures, the delay is at most a long interval, and is a short interval at once."""
    hour = timedelta(hours=1)
    assert delay_before_sync(hour, 40, 0.5) == hour
    assert delay_before_sync(timedelta(seconds=1), 1, 0.5) == timedelta(seconds=1)


@given(st.integers(1, 10**6), st.integers(0, 10**9), st.floats(0, 1))
def test_the_delay_has_jitter_and_a_maximum(seconds: int, failures: int, chance: float) -> None:
    """The delay varies by a tenth and does not exceed its maximum, whatever the failures."""
    interval = timedelta(seconds=seconds)
    pause = delay_before_sync(interval, failures, chance)
    middle = delay_before_sync(interval, failures, 0.5)
    assert middle * 0.899 <= pause <= middle * 1.101
    assert timedelta(0) < pause <= max(interval, timedelta(minutes=5)) * 1.101


@given(
    seconds=st.integers(1, 3600),
    failures=st.integers(0, 50),
    chance=st.floats(0, 1),
    block=st.integers(0, 3600),
)
def test_no_sync_starts_before_the_server_allows_it(
    seconds: int, failures: int, chance: float, block: int
) -> None:
    """Jitter only adds to the time for which the Git server wants no request."""
    delay = delay_before_sync(
        timedelta(seconds=seconds), failures, chance, timedelta(seconds=block)
    )

    assert delay >= timedelta(seconds=block)
    assert delay >= delay_before_sync(timedelta(seconds=seconds), failures, chance)


async def test_a_requested_sync_waits_until_the_server_allows_it() -> None:
    """Requests do not bypass the time for which the Git server wants no request."""
    clock = asyncio.get_running_loop().time
    blocked_until = 0.0
    runs: list[float] = []
    refused, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal blocked_until
        runs.append(clock())
        if len(runs) == 1:
            blocked_until = clock() + 1.0
            refused.set()
        else:
            done.set()

    schedule = Schedule(
        work,
        lambda: timedelta(hours=1),
        lambda: timedelta(seconds=max(0.0, blocked_until - clock())),
    )
    schedule.start()
    async with asyncio.timeout(60):
        await refused.wait()
        for _ in range(20):
            schedule.now()
            await asyncio.sleep(0.01)
        await done.wait()
    schedule.stop()

    assert len(runs) == 2
    assert runs[1] >= blocked_until


async def test_a_sync_requested_during_a_refused_one_waits() -> None:
    """A request that arrives while a sync is refused is carried out once, after the wait."""
    clock = asyncio.get_running_loop().time
    blocked_until = 0.0
    runs: list[float] = []
    begun, refused, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal blocked_until
        runs.append(clock())
        if len(runs) > 1:
            done.set()
            return
        begun.set()
        await refused.wait()
        blocked_until = clock() + 0.5

    schedule = Schedule(
        work,
        lambda: timedelta(hours=1),
        lambda: timedelta(seconds=max(0.0, blocked_until - clock())),
    )
    schedule.start()
    async with asyncio.timeout(60):
        await begun.wait()
        schedule.now()
        await asyncio.sleep(0.1)  # until the second run waits for the first
        refused.set()
        await done.wait()
    schedule.stop()

    assert len(runs) == 2
    assert runs[1] >= blocked_until

"""Requested syncs on several replicas, and the answers to them."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openfero_gitops.admission.pause import Control
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.sync_requests import SyncRequests
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.control import NAME
from openfero_gitops.domain.errors import SourceUnavailable, Unavailable
from openfero_gitops.domain.sync_answer import SyncAnswer, answer_key, read_answers, write_answer
from tests.support.workers import (
    Commits,
    Wire,
    World,
    in_background,
    in_virtual_time,
    operario_file,
    seconds_so_far,
)

if TYPE_CHECKING:
    from openfero_gitops.domain.sync import SyncStatus
    from tests.support.relay import Act, Request

NAMESPACE = "controller"


class Desk:
    """A replica that handles sync requests and records when its syncs start."""

    def __init__(self, world: World, name: str, source: Commits | None = None) -> None:
        self.wire = Wire(world.cluster)
        self.source = source or Commits()
        if not self.source.history:
            self.source.commit({"disk.yaml": operario_file("disk")})
        store = ConfigMapStore(self.wire, NAMESPACE)
        self.control = Control(store, seconds_so_far, now=world.now)
        self.syncs: list[float] = []
        self.seconds = 0.0  # that a fetch takes
        self.source.trouble = self._fetch
        self.error: SourceUnavailable | None = None
        self.fault: Exception | None = None
        self.syncer = Syncer(
            source=self.source, scope=Scope(), counts=self, now=world.now, clock=seconds_so_far
        )
        self.due = asyncio.Event()
        self.requests = SyncRequests(
            syncer=self.syncer,
            sync=self.due.set,
            store=store,
            identity=name,
            now=world.now,
            requested=asyncio.Event(),
        )
        self.control.on_read(self.requests.observe)

    def synced(self, _: SyncStatus) -> None:
        """Ignore the end of a sync."""

    async def _fetch(self, operation: str) -> None:
        if operation == "fetch":
            self.syncs.append(seconds_so_far())
            await asyncio.sleep(self.seconds)
            if self.fault is not None:
                raise self.fault
            if self.error is not None:
                raise self.error

    async def run(self) -> None:
        """Run the background tasks of a replica."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.control.run())
            tasks.create_task(self.requests.run())
            tasks.create_task(self._sync())

    async def _sync(self) -> None:
        while True:
            await self.due.wait()
            self.due.clear()
            with contextlib.suppress(RuntimeError):
                await self.requests.work()


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
            desks[1].requests.request()
            await asyncio.sleep(0.1)
        return await act()

    desks[0].wire.trouble = overtaken
    async with (
        in_background(desks[0].requests.run()),
        in_background(desks[1].requests.run()),
        in_background(desks[2].run()),
    ):
        await asyncio.sleep(60)
        desks[0].requests.request()
        await asyncio.sleep(10)
    assert len(desks[2].syncs) == 1
    control = await world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
    assert control["data"]["sync"].endswith(" a")


class TestAnswers:
    """What each replica reports to a user who waits for its sync."""

    @in_virtual_time
    async def test_each_replica_reports_that_it_began_and_how_it_ended(self) -> None:
        """The second answer has the commits before and after, and the duration."""
        world = World()
        desks = [Desk(world, name) for name in "ab"]
        for desk in desks:
            desk.seconds = 20.0
            await desk.syncer.sync()
        old = desks[0].source.head
        for desk in desks:
            new = desk.source.commit({"cpu.yaml": operario_file("cpu")})
        async with in_background(desks[0].run()), in_background(desks[1].run()):
            await asyncio.sleep(60)
            await request(world, "r1")
            await asyncio.sleep(6)
            first = await answers(world)
            await asyncio.sleep(20)
            last = await answers(world)
        assert {name: (a.request, a.finished) for name, a in first.items()} == {
            "a": ("r1", False),
            "b": ("r1", False),
        }
        for answer in last.values():
            assert (answer.request, answer.finished, answer.error) == ("r1", True, "")
            assert (answer.before, answer.commit) == (old, new)
            assert round(answer.seconds) == 20

    @in_virtual_time
    async def test_only_a_sync_that_began_after_the_request_answers_it(self) -> None:
        """The sync that runs when the request is read may have fetched an older commit."""
        world = World()
        desk = Desk(world, "a")
        desk.seconds = 20.0
        async with in_background(desk.run()):
            await asyncio.sleep(60)
            desk.due.set()
            await asyncio.sleep(1)
            await request(world, "r1")
            await asyncio.sleep(20)
            assert not (await answers(world))["a"].finished
            await asyncio.sleep(30)
        assert (await answers(world))["a"].finished
        assert len(desk.syncs) == 2

    @in_virtual_time
    async def test_a_failed_sync_is_reported_with_its_error(self) -> None:
        """The commit is still the active one."""
        world = World()
        desk = Desk(world, "a")
        await desk.syncer.sync()
        desk.error = SourceUnavailable("no connection to git.example")
        async with in_background(desk.run()):
            await asyncio.sleep(10)
            await request(world, "r1")
            await asyncio.sleep(10)
        answer = (await answers(world))["a"]
        assert answer.finished
        assert answer.error == "no connection to git.example"
        assert answer.commit == desk.source.head

    @in_virtual_time
    async def test_an_answer_to_an_earlier_request_replaces_no_later_answer(self) -> None:
        """The user of the later request would find no answer of the replica."""
        world = World()
        desk = Desk(world, "a")
        desk.seconds = 20.0
        async with in_background(desk.run()):
            await asyncio.sleep(60)
            await request(world, "r1")
            await asyncio.sleep(10)
            await request(world, "r2")
            await asyncio.sleep(16)
            assert len(desk.syncs) == 2
            during = (await answers(world))["a"]
            await asyncio.sleep(20)
            after = (await answers(world))["a"]
        assert (during.request, during.finished) == ("r2", False)
        assert (after.request, after.finished) == ("r2", True)

    @in_virtual_time
    async def test_a_sync_that_raises_is_answered_with_the_error(self) -> None:
        """Otherwise the user would wait for it until the timeout."""
        world = World()
        desk = Desk(world, "a")
        async with in_background(desk.run()):
            await asyncio.sleep(60)
            desk.fault = RuntimeError("no memory")
            await request(world, "r1")
            await asyncio.sleep(10)
            answer = (await answers(world))["a"]
        assert answer.finished
        assert answer.error == "unexpected RuntimeError: no memory"

    @in_virtual_time
    async def test_while_the_git_server_wants_no_request_that_is_the_answer(self) -> None:
        """The user does not wait until the end of Retry-After."""
        world = World()
        desk = Desk(world, "a")
        await desk.syncer.sync()
        desk.error = SourceUnavailable("slow down", retry_after=600.0)
        await desk.syncer.sync()
        async with in_background(desk.run()):
            await asyncio.sleep(10)
            await request(world, "r1")
            await asyncio.sleep(10)
            answer = (await answers(world))["a"]
        assert answer.finished
        assert answer.error.startswith("the Git server accepts no requests for another 5")

    @in_virtual_time
    async def test_a_push_hook_is_not_answered(self) -> None:
        """Nobody waits for it, so that nothing is written."""
        world = World()
        desks = [Desk(world, name) for name in "ab"]
        async with in_background(desks[0].run()), in_background(desks[1].run()):
            await asyncio.sleep(60)
            desks[0].requests.request()
            await asyncio.sleep(30)
        assert await answers(world) == {}
        assert [len(desk.syncs) for desk in desks] == [1, 1]

    @in_virtual_time
    async def test_an_answer_is_written_again_after_an_error(self) -> None:
        """The API server may fail for a moment."""
        world = World()
        desk = Desk(world, "a")
        failures = [1, 2]

        async def trouble(request: Request, act: Act) -> Any:
            if request.verb == "patch" and failures:
                failures.pop()
                raise Unavailable("no connection")
            return await act()

        desk.wire.trouble = trouble
        async with in_background(desk.run()):
            await asyncio.sleep(10)
            await request(world, "r1")
            await asyncio.sleep(20)
        assert (await answers(world))["a"].finished

    @in_virtual_time
    async def test_answers_of_replicas_that_are_gone_are_removed(self) -> None:
        """After an hour, and of very many the oldest; what is no answer goes as well."""
        world = World()
        desk = Desk(world, "a")
        store = ConfigMapStore(world.cluster, NAMESPACE)
        await store.merge(NAME, {"paused": "false", "sync-answer.nonsense": "["}, {})
        for number in range(130):
            at = world.now() - timedelta(minutes=number)
            other = SyncAnswer(f"gone-{number}", "old", at, finished=True)
            await store.merge(NAME, {answer_key(other.replica): write_answer(other)}, {})
        async with in_background(desk.run()):
            await asyncio.sleep(10)
            await request(world, "r1")
            await asyncio.sleep(10)
        left = await answers(world)
        assert {"a", "gone-0", "gone-59"} <= left.keys()
        assert "gone-61" not in left
        control = await world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME)
        assert control["data"]["paused"] == "false"
        assert "sync-answer.nonsense" not in control["data"]


async def request(world: World, text: str) -> None:
    """Request a sync of all replicas, as the command does."""
    members = {"sync": text, "sync-request": text}
    await ConfigMapStore(world.cluster, NAMESPACE).merge(NAME, members, {})


async def answers(world: World) -> dict[str, SyncAnswer]:
    """Return the answers by the name of the replica."""
    stored = read_answers(await world.cluster.get(CONFIG_MAPS, NAMESPACE, NAME))
    return {answer.replica: answer for answer in stored.values() if answer is not None}

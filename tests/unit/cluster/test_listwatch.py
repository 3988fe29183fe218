from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.api import CONFIG_MAPS, LEASES, ApiServer, Change, Resource, WatchEvent
from openfero_gitops.cluster.listwatch import QUEUE_SIZE, ListWatch, Pace
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import Expired, Forbidden, Throttled, Unavailable
from openfero_gitops.domain.feed import Changed, Deleted, Failed, Listed
from openfero_gitops.domain.remediation import MAX_FOREIGN, Foreign, JobKey
from tests.contract.objects import config_map, lease
from tests.support.relay import Act, Relay, Request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from openfero_gitops.cluster.api import Object
    from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.feed import FeedEvent


class Time:
    """A clock that only sleeping moves, and a record of the pauses."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        """Advance the time."""
        self.pauses.append(round(seconds, 3))
        self.now += seconds
        await asyncio.sleep(0)

    def clock(self) -> float:
        """Return the time."""
        return self.now


class Faulty(Relay):
    """An in-memory cluster with planned faults by verb; `event` is the next event of a watch."""

    def __init__(self, **planned: list[ApiError | None]) -> None:
        self.cluster = MemoryCluster()
        super().__init__(self.cluster)
        self.planned = planned
        self.requests: Counter[str] = Counter()

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Raise the next planned error, or carry out the request."""
        del timeout
        self._strike(request.verb)
        return await act()

    async def watch(
        self, resource: Resource, namespace: str, **options: Any
    ) -> AsyncGenerator[WatchEvent, None]:
        """Raise the next planned error before an event."""
        async with aclosing(super().watch(resource, namespace, **options)) as events:
            async for event in events:
                if event.change is not Change.BOOKMARK:
                    self._strike("event")
                yield event

    def _strike(self, verb: str) -> None:
        self.requests[verb] += 1
        errors = self.planned.get(verb)
        if errors and (error := errors.pop(0)) is not None:
            raise error


@pytest.fixture
def time() -> Time:
    """Provide a clock for one test."""
    return Time()


@pytest.fixture
def pace(time: Time) -> Pace:
    """Provide a pace with this clock, without jitter."""
    return Pace(sleep=time.sleep, clock=time.clock, jitter=lambda: 1.0)


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncGenerator[None, None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


def summary(news: FeedEvent) -> str:
    """Return an event as text."""
    match news:
        case Listed(namespace, jobs):
            names = " ".join(sorted(job["metadata"]["name"] for job in jobs))
            return f"{namespace} listed {names}".rstrip()
        case Changed(namespace, changed):
            return f"{namespace} changed {changed['metadata']['name']}"
        case Deleted(namespace, key):
            return f"{namespace} gone {key.name}"
        case Failed(namespace, error):
            return f"{namespace} lost {type(error).__name__}"


async def take(news: AsyncGenerator[FeedEvent, None], count: int) -> list[str]:
    """Return the next events as text."""
    async with asyncio.timeout(60):
        return [summary(await anext(news)) for _ in range(count)]


async def create(api: ApiServer, *names: str, namespace: str = "a", **labels: str) -> None:
    """Create ConfigMaps."""
    for name in names:
        await api.create(CONFIG_MAPS, namespace, config_map(name, labels))


async def test_list_and_then_changes(pace: Pace) -> None:
    """The existing objects come first as a list, then each change in order."""
    api = MemoryCluster()
    await create(api, "one", "two")
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        listed = await anext(news)
        assert summary(listed) == "a listed one two"
        assert isinstance(listed, Listed)
        assert listed.resource_version == (await api.list(CONFIG_MAPS, "a")).resource_version
        await create(api, "three")
        await api.replace(CONFIG_MAPS, "a", config_map("one", {"x": "y"}))
        await api.delete(CONFIG_MAPS, "a", "two")
        assert await take(news, 3) == ["a changed three", "a changed one", "a gone two"]


async def test_several_namespaces(pace: Pace) -> None:
    """Each namespace is listed and watched separately."""
    api = MemoryCluster()
    await create(api, "one")
    await create(api, "two", namespace="b")
    async with aclosing(
        ListWatch(api, CONFIG_MAPS, ["a", "b", "c"], dict, pace=pace).follow()
    ) as news:
        assert sorted(await take(news, 3)) == ["a listed one", "b listed two", "c listed"]
        for namespace in "cab":
            await create(api, "new", namespace=namespace)
        changes = ["a changed new", "b changed new", "c changed new"]
        assert sorted(await take(news, 3)) == changes


async def test_selection(pace: Pace) -> None:
    """Only selected objects are reported; one that leaves the selection is deleted."""
    api = MemoryCluster()
    await create(api, "mine", mine="yes")
    await create(api, "other")
    feed = ListWatch(api, CONFIG_MAPS, ["a"], dict, "mine=yes", pace)
    async with aclosing(feed.follow()) as news:
        assert await take(news, 1) == ["a listed mine"]
        await create(api, "another")
        await create(api, "new", mine="yes")
        await api.replace(CONFIG_MAPS, "a", config_map("mine", {"mine": "no"}))
        assert await take(news, 2) == ["a changed new", "a gone mine"]


async def test_watch_that_ends_is_continued() -> None:
    """After a normal end, the next watch starts at once, without a list."""
    api, time = Faulty(), Time()
    pace = Pace(watch_seconds=0.05, stable_seconds=0.01, sleep=time.sleep)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 1) == ["a listed"]
        for n in range(5):
            await asyncio.sleep(0.08)
            await create(api, f"n-{n}")
            assert await take(news, 1) == [f"a changed n-{n}"]
    assert api.requests["list"] == 1
    assert api.requests["watch"] >= 5
    assert time.pauses == []


async def test_bookmarks_count() -> None:
    """Bookmarks advance the version, so that it does not expire."""
    api = Faulty()
    pace = Pace(watch_seconds=0.05, stable_seconds=0.01)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 1) == ["a listed"]
        await api.create(LEASES, "a", lease("elsewhere"))
        await asyncio.sleep(0.1)
        api.cluster.compact()
        await asyncio.sleep(0.1)
        await create(api, "one")
        assert await take(news, 1) == ["a changed one"]
    assert api.requests["list"] == 1


async def test_expired_version(pace: Pace, time: Time) -> None:
    """When the version has expired, objects are listed again without a failure."""
    api = Faulty(event=[Expired("too old")])
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 1) == ["a listed"]
        await create(api, "one")
        assert await take(news, 1) == ["a listed one"]
        await create(api, "two")
        assert await take(news, 1) == ["a changed two"]
    assert api.requests["list"] == 2
    assert time.pauses == [0.2]


async def test_version_that_expires_again_and_again(pace: Pace, time: Time) -> None:
    """A server whose own list is always expired does not cause a busy loop."""
    api = Faulty(watch=[Expired("too old")] * 4)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        listed, lost = "a listed", "a lost Expired"
        assert await take(news, 8) == [listed, listed, lost, listed, lost, listed, lost, listed]
    assert time.pauses == [0.2, 0.4, 0.8, 1.6]


async def test_server_that_is_down(pace: Pace, time: Time) -> None:
    """Each failed attempt is reported and doubles the pause, up to a maximum."""
    api = Faulty(list=[Unavailable("down")] * 10)
    await create(api, "one")
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 11) == ["a lost Unavailable"] * 10 + ["a listed one"]
    assert time.pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15, 15]


async def test_pauses_by_chance() -> None:
    """Jitter shortens a pause, to half at most."""
    time = Time()
    pace = Pace(sleep=time.sleep, clock=time.clock, jitter=lambda: 0.0)
    api = Faulty(list=[Unavailable("down")] * 3)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        await take(news, 4)
    assert time.pauses == [0.1, 0.2, 0.4]


async def test_pauses_begin_anew(pace: Pace, time: Time) -> None:
    """After a watch with events, the pauses are short again."""
    api = Faulty(list=[Unavailable("down")] * 3)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        await take(news, 4)
        await create(api, "one")
        await take(news, 1)
        api.planned |= {"event": [Unavailable("cut")], "watch": [Unavailable("down")] * 2}
        await create(api, "two")
        # The stream breaks, and then the server is down: the first is no loss, the others are.
        lost, listed = "a lost Unavailable", "a listed one two"
        assert await take(news, 4) == [lost, listed, lost, listed]
    assert time.pauses == [0.2, 0.4, 0.8, 0.2, 0.4, 0.8]


async def test_stream_that_breaks_once(pace: Pace, time: Time) -> None:
    """A broken watch is resumed without missing or repeated events."""
    api = Faulty(event=[None, Unavailable("cut")])
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 1) == ["a listed"]
        await create(api, "one", "two", "three")
        assert await take(news, 3) == ["a changed one", "a changed two", "a changed three"]
    assert api.requests["list"] == 1
    assert time.pauses == [0.2]


async def test_stream_that_breaks_always(pace: Pace) -> None:
    """A watch that breaks twice without events is a failure."""
    api = Faulty(event=[Unavailable("cut")] * 2)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 1) == ["a listed"]
        await create(api, "one")
        assert await take(news, 2) == ["a lost Unavailable", "a listed one"]


async def test_missing_rights(pace: Pace) -> None:
    """Permanent errors are reported and retried."""
    api = Faulty(list=[Forbidden("no")], watch=[Forbidden("no")])
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 4) == [
            "a lost Forbidden",
            "a listed",
            "a lost Forbidden",
            "a listed",
        ]


async def test_empty_watches(time: Time) -> None:
    """Watches that end at once are a failure, and are opened less and less often."""
    pace = Pace(watch_seconds=0, sleep=time.sleep, clock=time.clock, jitter=lambda: 1.0)
    api = MemoryCluster()
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        lost = "a lost Unavailable"
        assert await take(news, 5) == ["a listed", lost, "a listed", lost, "a listed"]
    assert time.pauses == [0.2, 0.4, 0.8][: len(time.pauses)]
    assert len(time.pauses) >= 2


async def test_throttled(pace: Pace, time: Time) -> None:
    """Retry-After is respected."""
    api = Faulty(list=[Throttled("slowly", 40), Throttled("slowly", 0.1)])
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 3) == ["a lost Throttled", "a lost Throttled", "a listed"]
    assert time.pauses == [40, 0.4]


async def test_one_namespace_fails_alone() -> None:
    """A failure in one namespace does not affect another."""

    class Partly(Relay):
        async def send(self, request: Request, timeout: float, act: Act) -> Any:
            del timeout
            if (request.verb, request.namespace) == ("list", "b"):
                raise Forbidden("no")
            return await act()

    api = Partly(MemoryCluster())
    slow = Pace(backoff=Backoff(60, 60.0))
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a", "b"], dict, pace=slow).follow()) as news:
        assert sorted(await take(news, 2)) == ["a listed", "b lost Forbidden"]
        await create(api, "one")
        assert await take(news, 1) == ["a changed one"]


async def test_slow_reader(pace: Pace) -> None:
    """A slow reader gets all events in order."""
    api = MemoryCluster(history=10 * QUEUE_SIZE)
    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], dict, pace=pace).follow()) as news:
        assert await take(news, 1) == ["a listed"]
        names = [f"n-{n}" for n in range(3 * QUEUE_SIZE)]
        await create(api, *names)
        await asyncio.sleep(0.05)
        assert await take(news, 3 * QUEUE_SIZE) == [f"a changed {name}" for name in names]


async def test_cancelled_reader(pace: Pace) -> None:
    """A cancelled reader leaves no running request."""
    api = MemoryCluster()
    listed = asyncio.Event()

    async def read() -> None:
        async with aclosing(
            ListWatch(api, CONFIG_MAPS, ["a", "b"], dict, pace=pace).follow()
        ) as news:
            async for _ in news:
                listed.set()

    reader = asyncio.create_task(read())
    await listed.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_closed_while_waiting_to_try_again() -> None:
    """Closing does not wait for a pause to end."""
    api = Faulty(list=[Unavailable("down")])
    async with asyncio.timeout(60):
        async with aclosing(
            ListWatch(
                api, CONFIG_MAPS, ["a"], dict, pace=Pace(backoff=Backoff(600, 600.0))
            ).follow()
        ) as news:
            assert await take(news, 1) == ["a lost Unavailable"]


async def test_defect(pace: Pace) -> None:
    """The reader gets an error that is not an ApiError."""

    class Broken(Relay):
        async def send(self, *_: object) -> Any:
            raise ZeroDivisionError

    async with aclosing(
        ListWatch(Broken(MemoryCluster()), CONFIG_MAPS, ["a"], dict, pace=pace).follow()
    ) as news:
        with pytest.raises(ZeroDivisionError):
            await anext(news)


async def test_objects_are_read_before_they_are_queued(pace: Pace) -> None:
    """A reader that is slow holds what was made of each object, not the objects."""
    api = MemoryCluster()
    await create(api, "one")
    seen: list[str] = []

    def read(item: Object) -> Foreign:
        seen.append(item["metadata"]["name"])
        return Foreign(JobKey("a", item["metadata"]["name"]), "", "", "small")

    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], read, pace=pace).follow()) as news:
        first = await anext(news)
        for number in range(20):
            await create(api, f"n-{number}")
        async with asyncio.timeout(60):
            while len(seen) < 21:  # noqa: ASYNC110 - what is read is told by no event
                await asyncio.sleep(0.01)
        second = await anext(news)
    assert isinstance(first, Listed)
    assert first.jobs == [Foreign(JobKey("a", "one"), "", "", "small")]
    assert second == Changed("a", Foreign(JobKey("a", "n-0"), "", "", "small"))


async def test_a_list_keeps_some_foreign_jobs(pace: Pace) -> None:
    """Of the Jobs that others created, a list keeps the first thousand."""
    api = MemoryCluster()
    for number in range(MAX_FOREIGN + 5):
        await create(api, f"n-{number}")

    def read(item: Object) -> Foreign:
        return Foreign(JobKey("a", item["metadata"]["name"]), "", "", "small")

    async with aclosing(ListWatch(api, CONFIG_MAPS, ["a"], read, pace=pace).follow()) as news:
        listed = await anext(news)
    assert isinstance(listed, Listed)
    assert len(listed.jobs) == MAX_FOREIGN

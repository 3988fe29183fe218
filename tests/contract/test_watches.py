from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cluster.api import CONFIG_MAPS, EVENTS, Change
from openfero_gitops.domain.errors import ApiError, Expired, Invalid
from tests.contract.objects import config_map, event, without

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from openfero_gitops.cluster.api import ApiServer, Object, WatchEvent


async def observe(
    api: ApiServer, ns: str, since: str, count: int, *, selector: str = "", timeout: float = 30
) -> list[WatchEvent]:
    """Return the first events of a watch, without bookmarks."""
    observed: list[WatchEvent] = []
    watch = api.watch(
        CONFIG_MAPS, ns, resource_version=since, label_selector=selector, timeout=timeout
    )
    async with asyncio.timeout(timeout + 10), aclosing(watch) as events:
        async for each in events:
            if each.change is not Change.BOOKMARK:
                observed.append(each)
            if len(observed) == count:
                break
    return observed


def summaries(events: list[WatchEvent]) -> list[str]:
    """Return each event as its type and the object's name."""
    return [f"{each.change} {each.object['metadata']['name']}" for each in events]


async def write(api: ApiServer, ns: str) -> list[Object]:
    """Create two objects, change one and delete it; return all the states."""
    first = (await api.create(CONFIG_MAPS, ns, config_map("first", data={"n": "1"}))).object
    second = (await api.create(CONFIG_MAPS, ns, config_map("second"))).object
    changed = await api.replace(CONFIG_MAPS, ns, config_map("first", data={"n": "2"}))
    await api.delete(CONFIG_MAPS, ns, "first")
    return [first, second, changed]


async def test_earlier_writes(api: ApiServer, ns: str) -> None:
    """A watch from an earlier version delivers all later writes in order, with complete objects."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    states = await write(api, ns)
    events = await observe(api, ns, since, 4)
    assert summaries(events) == ["ADDED first", "ADDED second", "MODIFIED first", "DELETED first"]
    assert [each.object for each in events[:3]] == states
    gone = events[3].object
    assert without(gone, "metadata", "resourceVersion") == without(
        states[2], "metadata", "resourceVersion"
    )
    versions = [int(each.object["metadata"]["resourceVersion"]) for each in events]
    assert versions == sorted(set(versions))


async def test_live_writes(api: ApiServer, ns: str) -> None:
    """An open watch delivers writes as they happen; its first event confirms that it is open."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    events = api.watch(CONFIG_MAPS, ns, resource_version=since, timeout=30)
    async with asyncio.timeout(120), aclosing(events):
        opened = await anext(events)
        assert opened.change is Change.BOOKMARK
        assert opened.object["metadata"]["resourceVersion"] == since
        for n in range(5):
            await api.create(CONFIG_MAPS, ns, config_map(f"n-{n}"))
            assert summaries([await anext(events)]) == [f"ADDED n-{n}"]


async def test_resuming(api: ApiServer, ns: str) -> None:
    """A watch from the version of an event continues right after that event."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    await write(api, ns)
    for each in ("ADDED first", "ADDED second", "MODIFIED first", "DELETED first"):
        (following,) = await observe(api, ns, since, 1)
        assert summaries([following]) == [each]
        since = following.object["metadata"]["resourceVersion"]


async def test_resuming_from_a_list(api: ApiServer, ns: str) -> None:
    """List and watch together miss nothing and repeat nothing during concurrent writes."""

    async def write_on() -> None:
        for n in range(60):
            await api.create(CONFIG_MAPS, ns, config_map(f"n-{n:02}", {"mine": "yes"}))

    async with asyncio.TaskGroup() as group:
        group.create_task(write_on())
        await asyncio.sleep(0.05)
        listing = await api.list(CONFIG_MAPS, ns, label_selector="mine=yes")
        listed = [item["metadata"]["name"] for item in listing.items]
        rest = await observe(
            api, ns, listing.resource_version, 60 - len(listed), selector="mine=yes"
        )
    watched = [each.object["metadata"]["name"] for each in rest]
    assert listed + watched == [f"n-{n:02}" for n in range(60)]


async def test_ends_after_its_timeout(api: ApiServer, ns: str) -> None:
    """A watch ends after its timeout without an error, even if nothing happened."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await observe(api, ns, since, 1, selector="never", timeout=2) == []
    assert loop.time() - began > 1.5


async def test_selection(api: ApiServer, ns: str) -> None:
    """An object that leaves the selection is DELETED in its last selected state, and ADDED back."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    await api.create(CONFIG_MAPS, ns, config_map("other", {"app": "db"}))
    await api.create(CONFIG_MAPS, ns, config_map("one", {"app": "web"}))
    for labels in ({"app": "web", "n": "2"}, {"app": "db"}, {"app": "web"}):
        last = await api.replace(CONFIG_MAPS, ns, config_map("one", labels))
    events = await observe(api, ns, since, 4, selector="app=web")
    assert summaries(events) == ["ADDED one", "MODIFIED one", "DELETED one", "ADDED one"]
    assert events[2].object["metadata"]["labels"] == {"app": "web", "n": "2"}
    assert events[3].object == last


async def test_other_namespaces_are_not_watched(api: ApiServer, ns: str) -> None:
    """A watch delivers only events of its namespace and its resource."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    stray = f"stray-{ns}"
    await api.create(CONFIG_MAPS, "default", config_map(stray))
    await api.create(EVENTS, ns, event("e", ns))
    await api.create(CONFIG_MAPS, ns, config_map("mine"))
    await api.delete(CONFIG_MAPS, "default", stray)
    assert summaries(await observe(api, ns, since, 1)) == ["ADDED mine"]


async def test_write_without_a_change(api: ApiServer, ns: str) -> None:
    """A write that changes nothing causes no event."""
    since = (await api.create(CONFIG_MAPS, ns, config_map("one"))).object["metadata"][
        "resourceVersion"
    ]
    await api.replace(CONFIG_MAPS, ns, config_map("one"))
    await api.create(CONFIG_MAPS, ns, config_map("two"))
    assert summaries(await observe(api, ns, since, 1)) == ["ADDED two"]


async def test_large_objects(api: ApiServer, ns: str) -> None:
    """An event of almost 1 MiB arrives complete."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    data = {"a": "x" * 1_000_000}
    await api.create(CONFIG_MAPS, ns, config_map("large", data=data))
    (added,) = await observe(api, ns, since, 1)
    assert added.object["data"] == data


async def test_version_that_is_too_old(
    api: ApiServer, ns: str, compact: Callable[[str], None]
) -> None:
    """A watch from a version that is no longer kept is Expired."""
    # The API server itself keeps no history of Events: it reads etcd.
    first = (await api.create(EVENTS, ns, event("e-0", ns))).object
    for n in range(1, 4):
        last = (await api.create(EVENTS, ns, event(f"e-{n}", ns))).object
    await asyncio.to_thread(compact, last["metadata"]["resourceVersion"])
    for version in ("1", first["metadata"]["resourceVersion"]):
        with pytest.raises(Expired):
            await read_all(api.watch(EVENTS, ns, resource_version=version, timeout=10))
    fresh = (await api.list(EVENTS, ns)).resource_version
    watch = api.watch(EVENTS, ns, resource_version=fresh, timeout=10)
    async with aclosing(watch):
        assert (await anext(watch)).change is Change.BOOKMARK


async def read_all(watch: AsyncGenerator[WatchEvent, None]) -> None:
    """Read a watch to its end."""
    async with asyncio.timeout(60), aclosing(watch):
        async for _ in watch:
            pass


@pytest.mark.parametrize("version", ["", "0"])
async def test_watch_needs_a_version(api: ApiServer, ns: str, version: str) -> None:
    """A watch without a specific version is rejected."""
    with pytest.raises(Invalid):
        await anext(api.watch(CONFIG_MAPS, ns, resource_version=version))


async def test_malformed_version(api: ApiServer, ns: str) -> None:
    """A watch from a malformed version is an error, not a silent stream."""
    with pytest.raises(ApiError):
        await anext(api.watch(CONFIG_MAPS, ns, resource_version="abc"))


async def test_closing_ends_a_silent_watch(api: ApiServer, ns: str) -> None:
    """Cancelling the reader of an idle watch ends the watch at once."""
    since = (await api.list(CONFIG_MAPS, ns)).resource_version
    opened = asyncio.Event()

    async def read() -> None:
        async with aclosing(api.watch(CONFIG_MAPS, ns, resource_version=since)) as events:
            async for _ in events:
                opened.set()

    reader = asyncio.create_task(read())
    async with asyncio.timeout(60):
        await opened.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

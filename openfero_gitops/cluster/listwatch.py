"""List and watch, for ever: what is there, and then every change, over whatever breaks.

Each namespace has a loop of its own: list, watch from the list's resourceVersion, watch again from
the last version seen (bookmarks count). It lists again when that version is `Expired`, and after
a `Failed`: the `Listed` that follows is how a reader knows that its knowledge is fresh again. A
watch that broke once after it had been accepted is only resumed; nothing is lost by that.

No answer, however quick and empty, makes it a hot loop: every attempt that led to nothing doubles
the pause before the next, up to a ceiling.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import Change
from openfero_gitops.domain.errors import ApiError, Expired, Unavailable
from openfero_gitops.domain.feed import Changed, Deleted, Failed, Listed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from openfero_gitops.cluster.api import ApiServer, Resource, WatchEvent
    from openfero_gitops.domain.feed import FeedEvent

ROOM: Final = 1000  # news that wait for their reader; then the streams are not read, either


@dataclass(frozen=True, slots=True)
class Pace:
    """When to try again; all in seconds.

    Args:
        first: pause after the first attempt that led to nothing; doubled with each further one.
        ceiling: of that pause.
        steady: an accepted watch that lasted so long led to something, even without news.
        watch: how long a watch is to last, give or take a quarter. A silent connection is found
            out at its end, so this is short; the price is one small request.
        sleep: waits.
        clock: tells a time that only goes forward.
        chance: tells a random number from 0 to 1, so that replicas do not come all at once.
    """

    first: float = 0.2
    ceiling: float = 15.0
    steady: float = 1.0
    watch: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random


PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class ListWatch:
    """What to follow, for those who only want to read its news."""

    api: ApiServer
    resource: Resource
    namespaces: Sequence[str]
    label_selector: str = ""
    pace: Pace = PACE

    def follow(self) -> AsyncGenerator[FeedEvent, None]:
        """See `follow`."""
        return follow(
            self.api,
            self.resource,
            self.namespaces,
            label_selector=self.label_selector,
            pace=self.pace,
        )


async def follow(
    api: ApiServer,
    resource: Resource,
    namespaces: Sequence[str],
    *,
    label_selector: str = "",
    pace: Pace = PACE,
) -> AsyncGenerator[FeedEvent, None]:
    """FeedEvent of all these namespaces, until it is closed, which ends every request of it.

    In each namespace `Listed` comes first, then changes in their order. While requests fail there
    is a `Failed` at each further attempt; the next `Listed` ends that.
    """
    news: asyncio.Queue[FeedEvent | Exception] = asyncio.Queue(ROOM)
    loops = [
        asyncio.create_task(
            _Loop(
                api, resource, namespace, label_selector=label_selector, pace=pace, news=news
            ).run(),
            name=f"follow {resource.plural} in {namespace}",
        )
        for namespace in namespaces
    ]
    try:
        while True:
            item = await news.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


class _Loop:
    """The loop of one namespace."""

    def __init__(
        self,
        api: ApiServer,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str,
        pace: Pace,
        news: asyncio.Queue[FeedEvent | Exception],
    ) -> None:
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._pace = pace
        self._news = news
        self._version = ""  # the last one seen; "" is: list first
        self._accepted = False  # the present watch was
        self._moved = False  # by the present watch, or the list before it

    async def run(self) -> None:
        """Go on until cancelled; an error that is none of the API server's ends the feed."""
        try:
            failures = 0
            while True:
                failures = await self._attempt(failures)
        except Exception as error:  # noqa: BLE001, raised where the feed is read
            await self._news.put(error)

    async def _attempt(self, failures: int) -> int:
        """List if need be, and watch to the end; return how often in a row that led to nothing."""
        pace, began = self._pace, self._pace.clock()
        self._accepted = self._moved = False
        error: ApiError | None = None
        try:
            await self._list_and_watch()
        except ApiError as raised:
            error = raised
        lasted = pace.clock() - began >= pace.steady
        useful = self._accepted and (self._moved or lasted)
        if useful and error is None:
            if not lasted:
                await self._pause(1)
            return 0
        failures = 1 if useful else failures + 1
        await self._note(error, failures)
        await self._pause(failures, at_least=getattr(error, "retry_after", 0.0))
        return failures

    async def _list_and_watch(self) -> None:
        if not self._version:
            found = await self._api.list(
                self._resource, self._namespace, label_selector=self._label_selector
            )
            self._version = found.resource_version
            await self._news.put(Listed(self._namespace, found.items, found.resource_version))
        events = self._api.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            timeout=self._pace.watch * (0.75 + self._pace.chance() / 2),
        )
        async with aclosing(events):
            async for event in events:
                self._accepted = True
                await self._take(event)

    async def _take(self, event: WatchEvent) -> None:
        version = event.object["metadata"]["resourceVersion"]
        self._moved = self._moved or version != self._version
        if event.change is Change.DELETED:
            await self._news.put(Deleted(self._namespace, event.object))
        elif event.change is not Change.BOOKMARK:
            await self._news.put(Changed(self._namespace, event.object))
        self._version = version

    async def _note(self, error: ApiError | None, failures: int) -> None:
        """Decide what an attempt that led to nothing means for the next, and for the reader."""
        if isinstance(error, Expired):
            self._version = ""
        if failures == 1 and (self._accepted or isinstance(error, Expired)):
            return
        self._version = ""
        said = error or Unavailable(f"watches of {self._resource.plural} end as soon as they begin")
        await self._news.put(Failed(self._namespace, said))

    async def _pause(self, failures: int, *, at_least: float = 0.0) -> None:
        pace = self._pace
        pause = min(pace.first * 2.0 ** min(failures - 1, 32), pace.ceiling)
        await pace.sleep(max(pause * (0.5 + pace.chance() / 2), at_least))

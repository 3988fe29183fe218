"""Lists and watches Jobs without end, and recovers from every error.

Each namespace has a loop of its own: list, watch from the resourceVersion of the list, and watch
again from the last version seen (of a bookmark, too). It lists again when that version is
`Expired` and after a `Failed`; the `Listed` that follows tells the reader that its data is current
again. A watch that fails once after it was accepted is only resumed: nothing is lost.

Objects are read before they are queued, so that the queue holds only what is needed of them.

Every attempt without progress doubles the pause before the next one, so that no response, however
fast and empty, causes a busy loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import Change
from openfero_gitops.cluster.jobs import few_foreign
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import ApiError, Expired, Unavailable
from openfero_gitops.domain.feed import Changed, Deleted, Failed, Listed
from openfero_gitops.domain.remediation import JobKey

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from openfero_gitops.cluster.api import ApiServer, Resource, WatchEvent
    from openfero_gitops.cluster.jobs import ReadJob
    from openfero_gitops.domain.feed import FeedEvent

_BACKOFF: Final = Backoff(first_seconds=0.2, max_seconds=15.0)
#: Events that are queued for the reader. When the queue is full, the watches are not read.
QUEUE_SIZE: Final = 1000
#: For a whole list: with very large objects it has many pages, each with a deadline of its own.
LIST_SECONDS: Final = 240.0


@dataclass(frozen=True, slots=True)
class Pace:
    """When to try again.

    Args:
        backoff: the pause after consecutive attempts without progress.
        stable_seconds: an accepted watch that lasts this long is progress, even without events.
        watch_seconds: how long a watch lasts, give or take a quarter. A dead connection is only
            noticed at the end of a watch, so this is short; it costs one small request.
        sleep: waits.
        clock: returns monotonic time.
        jitter: returns a number from 0 to 1, so that replicas do not all try at once.
    """

    backoff: Backoff = _BACKOFF
    stable_seconds: float = 1.0
    watch_seconds: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class ListWatch:
    """What to list and watch, in one or more namespaces; `read` returns what is kept of it.

    While much happens, changes may be `batch_seconds` late: read together, they cost less.
    """

    api: ApiServer
    resource: Resource
    namespaces: Sequence[str]
    read: ReadJob
    label_selector: str = ""
    pace: Pace = field(default_factory=Pace)
    batch_seconds: Callable[[], float] | None = None

    async def follow(self) -> AsyncGenerator[FeedEvent, None]:
        """Yield what happens in these namespaces until closed, which ends all its requests.

        In each namespace `Listed` comes first, then the changes in order. While requests fail,
        each attempt but the first yields `Failed`; the next `Listed` ends this state.
        """
        queue: asyncio.Queue[FeedEvent | Exception] = asyncio.Queue(QUEUE_SIZE)
        loops = [
            asyncio.create_task(
                _Loop(self, namespace, queue).run(),
                name=f"list and watch {self.resource.plural} in {namespace}",
            )
            for namespace in self.namespaces
        ]
        try:
            while True:
                event = await queue.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


class _Loop:
    """The loop of one namespace."""

    def __init__(
        self, followed: ListWatch, namespace: str, queue: asyncio.Queue[FeedEvent | Exception]
    ) -> None:
        self._followed = followed
        self._namespace = namespace
        self._queue = queue
        self._version = ""  # the last one seen; empty to list first
        self._accepted = False  # whether the server has accepted the current watch
        self._advanced = False  # whether the current watch has brought a new version

    async def run(self) -> None:
        """Run until cancelled; the reader gets every error that is not an `ApiError`."""
        try:
            failures = 0
            while True:
                failures = await self._attempt(failures)
        except Exception as error:  # noqa: BLE001, raised where the feed is read
            await self._queue.put(error)

    async def _attempt(self, failures: int) -> int:
        """List if necessary, and watch to the end; return the consecutive failures."""
        pace = self._followed.pace
        began = pace.clock()
        self._accepted = self._advanced = False
        error: ApiError | None = None
        try:
            await self._list_and_watch()
        except ApiError as raised:
            error = raised
        stable = pace.clock() - began >= pace.stable_seconds
        progress = self._accepted and (self._advanced or stable)
        if progress and error is None:
            if not stable:
                await self._pause(1)
            return 0
        failures = 1 if progress else failures + 1
        await self._report(error, failures)
        await self._pause(failures, retry_after=getattr(error, "retry_after", 0.0))
        return failures

    async def _list_and_watch(self) -> None:
        followed, pace = self._followed, self._followed.pace
        if not self._version:
            listed = await followed.api.list(
                followed.resource,
                self._namespace,
                label_selector=followed.label_selector,
                read=few_foreign(followed.read),
                timeout=LIST_SECONDS,
            )
            self._version = listed.resource_version
            await self._queue.put(Listed(self._namespace, listed.items, listed.resource_version))
        events = followed.api.watch(
            followed.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=followed.label_selector,
            timeout=pace.watch_seconds * (0.75 + pace.jitter() / 2),
            batch_seconds=followed.batch_seconds,
        )
        async with aclosing(events):
            async for event in events:
                self._accepted = True
                await self._forward(event)

    async def _forward(self, event: WatchEvent) -> None:
        metadata = event.object["metadata"]
        version = metadata["resourceVersion"]
        self._advanced = self._advanced or version != self._version
        if event.change is Change.DELETED:
            key = JobKey(metadata["namespace"], metadata["name"])
            uid = metadata.get("uid", "")
            await self._queue.put(Deleted(self._namespace, key, uid, version))
        elif event.change is not Change.BOOKMARK:
            await self._queue.put(Changed(self._namespace, self._followed.read(event.object)))
        self._version = version

    async def _report(self, error: ApiError | None, failures: int) -> None:
        """Decide whether to resume the watch, or to report the error and list again."""
        if isinstance(error, Expired):
            self._version = ""
        if failures == 1 and (self._accepted or isinstance(error, Expired)):
            return
        self._version = ""
        plural = self._followed.resource.plural
        reason = error or Unavailable(f"the API server ends watches of {plural} immediately")
        await self._queue.put(Failed(self._namespace, reason))

    async def _pause(self, failures: int, *, retry_after: float = 0.0) -> None:
        pace = self._followed.pace
        seconds = pace.backoff.delay(failures) * (0.5 + pace.jitter() / 2)
        await pace.sleep(max(seconds, retry_after))

"""Writes Events from a bounded queue that nothing waits for.

They are written one at a time, a few per second. A repetition within minutes is counted on the
Event that exists. If the queue is full, the oldest is lost; so is an Event that the API server
rejects. Both are counted and harmless.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import ApiError, NotFound, Throttled, Unavailable
from openfero_gitops.events.events import manifest, series

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from openfero_gitops.domain.event import Event, ObjectReference
    from openfero_gitops.ports import Counts, Events

_log = structlog.get_logger(__name__)

_MAX_QUEUED: Final = 2000
#: Written Events that a repetition is counted on; most are never repeated.
_MAX_REMEMBERED: Final = 1024
#: Time between two Events.
_INTERVAL_SECONDS: Final = 0.05
#: A repetition after this time is a new Event, as in client-go.
_SERIES_SECONDS: Final = 360.0
_BACKOFF: Final = Backoff(first_seconds=1.0, max_seconds=60.0)


@dataclass(slots=True)
class _Written:
    """An Event in the API server; `last` is when it last happened, by the event loop's clock."""

    name: str
    count: int
    last: float


class Recorder:
    """Queues events, and writes them when there is time."""

    def __init__(
        self,
        *,
        events: Events,
        counts: Counts,
        identity: str,
        now: Callable[[], datetime],
    ) -> None:
        """Take where they are written; nothing is started."""
        self._events = events
        self._counts = counts
        self._identity = identity
        self._now = now
        self._queue: OrderedDict[Event, int] = OrderedDict()
        self._transient: dict[ObjectReference, Event] = {}
        self._written: OrderedDict[Event, _Written] = OrderedDict()
        self._queued = asyncio.Event()
        self._failures = 0
        self._write_error = OnChange(_log.info, "cannot write an Event")

    def record(self, event: Event) -> None:
        """Queue an event; it replaces a transient one about the same object."""
        replaced = self._transient.pop(event.about, None)
        if replaced is not None and replaced != event:
            self._queue.pop(replaced, None)
        if event.transient:
            self._transient[event.about] = event
        self._queue[event] = self._queue.get(event, 0) + 1
        if len(self._queue) > _MAX_QUEUED:
            oldest, _ = self._queue.popitem(last=False)
            self._transient.pop(oldest.about, None)
            self._counts.event_recorded("lost")
        self._queued.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if not self._queue:
                self._queued.clear()
                await self._queued.wait()
            delay_seconds = await self._write_oldest()
            await asyncio.sleep(max(_INTERVAL_SECONDS, delay_seconds))

    async def flush(self, timeout_seconds: float) -> None:
        """Write what is queued, as far as possible within this time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._queue:
                    if await self._write_oldest():
                        return
        except TimeoutError:
            return

    async def _write_oldest(self) -> float:
        """Write the oldest; return the seconds to wait if the API server has a problem."""
        event, count = self._queue.popitem(last=False)
        if self._transient.get(event.about) == event:
            del self._transient[event.about]
        try:
            await self._write(event, count)
        except (Throttled, Unavailable) as error:
            self._log_once(error)
            if event not in self._queue:
                self._queue[event] = count
                self._queue.move_to_end(event, last=False)
            self._failures += 1
            retry_after = error.retry_after if isinstance(error, Throttled) else 0.0
            return _BACKOFF.delay(self._failures, retry_after=retry_after)
        except ApiError as error:
            self._log_once(error)
            self._counts.event_recorded("lost")
        else:
            self._write_error.clear()
            self._counts.event_recorded("sent")
        self._failures = 0
        return 0.0

    async def _write(self, event: Event, count: int) -> None:
        now = asyncio.get_running_loop().time()
        written = self._written.get(event)
        if written is not None and now - written.last < _SERIES_SECONDS:
            total = written.count + count
            patch = [{"op": "add", "path": "/series", "value": series(total, self._now())}]
            try:
                await self._events.patch(event.about.namespace, written.name, patch)
            except NotFound:
                pass  # it has expired: create a new one
            else:
                self._remember(event, _Written(written.name, total, now))
                return
        body = manifest(event, uuid.uuid4().hex[:16], self._identity, self._now())
        if count > 1:
            body["series"] = series(count, self._now())
        await self._events.create(body)
        self._remember(event, _Written(body["metadata"]["name"], count, now))

    def _remember(self, event: Event, written: _Written) -> None:
        self._written[event] = written
        self._written.move_to_end(event)
        while (
            len(self._written) > _MAX_REMEMBERED
            or self._oldest.last <= written.last - _SERIES_SECONDS
        ):
            self._written.popitem(last=False)

    @property
    def _oldest(self) -> _Written:
        return self._written[next(iter(self._written))]

    def _log_once(self, error: ApiError) -> None:
        """Log each kind of error once: its text may name the Event."""
        self._write_error.set(type(error).__name__, message=str(error))

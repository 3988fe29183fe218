"""Events on their way to the API server: a bounded queue that nothing waits for.

They go out one at a time and a few a second. What happens again within minutes is counted on
the Event that is there. A full queue loses its oldest; an Event that the API server does not
want is lost, too. Both are counted, and harmless.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.domain.errors import ApiError, NotFound, Throttled, Unavailable
from openfero_gitops.events.events import again, manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from openfero_gitops.domain.event import Event, Subject
    from openfero_gitops.ports import Counts, Events

_log = structlog.get_logger(__name__)

_WAITING_MOST: Final = 2000
_REMEMBERED: Final = 1024  # what comes again comes soon; most never do
# Seconds.
_PACE: Final = 0.05
_SERIES: Final = 360.0  # so long after the last one is the same a new Event, as in client-go
_FIRST_REST: Final = 1.0
_LONGEST_REST: Final = 60.0


@dataclass(slots=True)
class _Sent:
    """An Event that stands in the API server: how often it happened, and when last."""

    name: str
    count: int
    last: float


class Post:
    """Takes events from anywhere, and sends them when there is time."""

    def __init__(
        self,
        *,
        events: Events,
        counts: Counts,
        identity: str,
        now: Callable[[], datetime],
    ) -> None:
        """Take where they go; nothing is started."""
        self._events = events
        self._counts = counts
        self._identity = identity
        self._now = now
        self._queue: OrderedDict[Event, int] = OrderedDict()
        self._passing: dict[Subject, Event] = {}
        self._sent: OrderedDict[Event, _Sent] = OrderedDict()
        self._news = asyncio.Event()
        self._complained: type[ApiError] | None = None

    def tell(self, event: Event) -> None:
        """Take an event, at once; what is passing gives way to what came of it."""
        passed = self._passing.pop(event.about, None)
        if passed is not None and passed != event:
            self._queue.pop(passed, None)
        if event.passing:
            self._passing[event.about] = event
        self._queue[event] = self._queue.get(event, 0) + 1
        if len(self._queue) > _WAITING_MOST:
            oldest, _ = self._queue.popitem(last=False)
            self._passing.pop(oldest.about, None)
            self._counts.told("lost")
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        rest = 0.0
        while True:
            if not self._queue:
                self._news.clear()
                await self._news.wait()
            rest = await self._send(rest)
            await asyncio.sleep(max(_PACE, rest))

    async def flush(self, patience: float) -> None:
        """Send what is left, as far as that goes within so many seconds."""
        try:
            async with asyncio.timeout(patience):
                while self._queue:
                    if await self._send(0.0):
                        return
        except TimeoutError:
            return

    async def _send(self, rest: float) -> float:
        """Send the oldest; seconds to rest where the API server has trouble of its own."""
        event, count = self._queue.popitem(last=False)
        if self._passing.get(event.about) == event:
            del self._passing[event.about]
        try:
            await self._write(event, count)
        except (Throttled, Unavailable) as error:
            self._complain(error)
            if event not in self._queue:
                self._queue[event] = count
                self._queue.move_to_end(event, last=False)
            asked = error.retry_after if isinstance(error, Throttled) else 0.0
            return max(asked, min(max(_FIRST_REST, rest * 2), _LONGEST_REST))
        except ApiError as error:
            self._complain(error)
            self._counts.told("lost")
        else:
            self._complained = None
            self._counts.told("sent")
        return 0.0

    async def _write(self, event: Event, count: int) -> None:
        moment = asyncio.get_running_loop().time()
        known = self._sent.get(event)
        if known is not None and moment - known.last < _SERIES:
            total = known.count + count
            try:
                await self._events.patch(
                    event.about.namespace, known.name, again(total, self._now())
                )
            except NotFound:
                pass  # it has expired: the next one begins anew
            else:
                self._remember(event, _Sent(known.name, total, moment))
                return
        body = manifest(event, uuid.uuid4().hex[:16], self._identity, self._now())
        if count > 1:
            (series,) = again(count, self._now())
            body["series"] = series["value"]
        await self._events.create(body)
        self._remember(event, _Sent(body["metadata"]["name"], count, moment))

    def _remember(self, event: Event, sent: _Sent) -> None:
        self._sent[event] = sent
        self._sent.move_to_end(event)
        while len(self._sent) > _REMEMBERED or self._oldest.last <= sent.last - _SERIES:
            self._sent.popitem(last=False)

    @property
    def _oldest(self) -> _Sent:
        return self._sent[next(iter(self._sent))]

    def _complain(self, error: ApiError) -> None:
        """Log each kind of trouble once."""
        if self._complained is not type(error):
            self._complained = type(error)
            _log.info("an Event was not written", error=str(error))

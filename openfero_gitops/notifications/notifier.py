"""Keeps the alerts in Alertmanager current. Only the leader does.

Prometheus sends every alert to every Alertmanager of a cluster, again and again, each time with an
end in the near future. So does the notifier: an alert ends at once when the leader ends it, and by
itself if the controller crashes. A leader that hands over ends nothing, since the next one sends
the same alerts. It only ends alerts that it sent in its own term.

Each Alertmanager has a task of its own, which compares what must exist with what it last sent. So a
slow or absent Alertmanager delays nothing else, and nothing accumulates for it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.background import OnChange, wait_for_event
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import AlertmanagerError
from openfero_gitops.domain.text import plural
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.effects.incident_index import IncidentIndex
from openfero_gitops.notifications.alerts import (
    MAX_NOTIFICATIONS,
    Notifications,
    list_notifications,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.notification import Notification
    from openfero_gitops.jobs.view import View
    from openfero_gitops.notifications.alerts import Identity
    from openfero_gitops.ports import AlertReceiver, NotificationCounts, RunningTerm

_log = structlog.get_logger(__name__)

#: Changes within this time are sent together.
_BATCH_WINDOW_SECONDS: Final = 0.5
#: The catalog and effects change without an event of the view.
_POLL_SECONDS: Final = 2.0
#: Listing the alerts blocks the event loop: it gets a twentieth of the time at most.
_IDLE_PER_BUSY: Final = 19.0
#: Alerts that are due within this time are sent too, so that requests are few.
_EARLY_SECONDS: Final = 1.0
#: Time between two requests; an empty one checks that the Alertmanager accepts alerts.
_MAX_IDLE_SECONDS: Final = 60.0
#: OpenFeroRemediating is sent every 10 s and ends after 30 s by Alertmanager's clock.
_MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=20)
#: A difference that is reported is reported again once it has changed by this much.
_CLOCK_STEP: Final = timedelta(seconds=5)
_SECOND: Final = timedelta(seconds=1)
_NONE: Final = timedelta(0)
_BACKOFF: Final = Backoff(first_seconds=1.0, max_seconds=10.0)


@dataclass(slots=True)
class _Sent:
    """An alert as an Alertmanager last got it; times are by the event loop's clock."""

    notification: Notification
    due: float
    expires: float


class _Channel:
    """One Alertmanager, and whether it accepts alerts."""

    def __init__(self, receiver: AlertReceiver) -> None:
        self.receiver = receiver
        self.changed = asyncio.Event()
        self.error = OnChange(_log.warning, "people are not notified")
        self.clock = OnChange(_log.warning, "the clock of an Alertmanager is another one")
        self._reported_ahead = _NONE

    def compare_clocks(self, ahead: timedelta) -> None:
        """Report how much the Alertmanager's clock is ahead (or, below zero, behind), if too much.

        Each comparison has a slightly different result, so it is reported again, or as over, only
        once it has changed by more than that.
        """
        if self.clock.text and abs(ahead - self._reported_ahead) < _CLOCK_STEP:
            return
        if abs(ahead) <= _MAX_CLOCK_DIFFERENCE:
            self.clock.clear()
            return
        self._reported_ahead = ahead
        way, end = ("ahead of", "early") if ahead > _NONE else ("behind", "late")
        self.clock.set(
            f"{self.receiver.url}: its clock is {abs(ahead) // _SECOND} s {way} the controller's, "
            f"so OpenFeroRemediating ends too {end}; synchronize the clocks"
        )


class _Record:
    """What one Alertmanager was sent in a term, and may have accepted. `now` is the loop's time."""

    def __init__(self) -> None:
        self._sent: dict[Identity, _Sent] = {}

    def due(self, wanted: Mapping[Identity, Notification], now: float) -> list[Notification]:
        """Return what is new, has changed, or must be sent again."""
        return [
            notification
            for identity, notification in wanted.items()
            if (last := self._sent.get(identity)) is None
            or last.notification != notification
            or last.due <= now + _EARLY_SECONDS
        ]

    def over(self, wanted: Mapping[Identity, Notification], now: float) -> list[Notification]:
        """Return what must end, unless it has ended by itself."""
        for identity in [key for key, alert in self._sent.items() if alert.expires <= now]:
            del self._sent[identity]
        return [alert.notification for key, alert in self._sent.items() if key not in wanted]

    def sent(
        self,
        due: Iterable[Notification],
        over: Iterable[Notification],
        now: float,
        *,
        accepted: bool,
    ) -> None:
        """Record a request. Without an answer it may have been accepted, so it must end, too."""
        for notification in due:
            self._sent[_identity(notification)] = _Sent(
                notification,
                now + notification.kind.interval.total_seconds() if accepted else now,
                now + notification.kind.lifetime.total_seconds(),
            )
        if accepted:
            for notification in over:
                self._sent.pop(_identity(notification), None)

    def next_due(self) -> float:
        """Return when an alert must be sent again."""
        return min((alert.due for alert in self._sent.values()), default=math.inf)


class Notifier:
    """Keeps alerts in Alertmanagers while this replica leads."""

    def __init__(
        self,
        *,
        receivers: Iterable[AlertReceiver],
        view: View,
        catalog: Callable[[], Catalog | None],
        counts: NotificationCounts,
        now: Callable[[], datetime],
        external_url: str = "",
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take what is read, and who gets the alerts.

        `now` may raise ClockWrong, which ends `run`.
        """
        self._channels = [_Channel(receiver) for receiver in receivers]
        self._view = view
        self._incidents = IncidentIndex(view)
        self._catalog = catalog
        self._counts = counts
        self._now = now
        self._external_url = external_url
        self._stopwatch = stopwatch
        self._wanted: Notifications | None = None

    @property
    def configured(self) -> bool:
        """Whether there is an Alertmanager to send alerts to."""
        return bool(self._channels)

    @property
    def trouble(self) -> str:
        """Why people are not notified of everything; empty on a replica that does not lead."""
        texts = [
            text for channel in self._channels for text in (channel.error.text, channel.clock.text)
        ]
        errors = list(filter(None, texts))
        if self._wanted is not None and (left_out := self._wanted.left_out):
            errors.append(
                f"{plural(left_out, 'alert')} not sent to Alertmanager: the limit is "
                f"{MAX_NOTIFICATIONS} alerts or 2 MiB; the most urgent are sent"
            )
        return "; ".join(errors)

    async def run(self, term: RunningTerm) -> None:
        """Send alerts until cancelled; the next leader takes over what is open then.

        Raises:
            Exception: the one of `term.check`, if the term has ended.
        """
        work = [self._update(), *(self._keep_current(channel, term) for channel in self._channels)]
        tasks = [asyncio.create_task(coroutine, name="notify") for coroutine in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._wanted = None
            self._counts.notifications({})
            for channel in self._channels:
                channel.error.clear()
                channel.clock.clear()

    async def _update(self) -> None:
        """Keep up to date which alerts must exist."""
        changed = self._view.subscribe()
        try:
            while True:
                changed.clear()
                started = self._stopwatch()
                if self._view.complete:
                    self._list()
                busy_seconds = self._stopwatch() - started
                await wait_for_event(changed, self._seconds_until_change())
                await asyncio.sleep(max(_BATCH_WINDOW_SECONDS, busy_seconds * _IDLE_PER_BUSY))
        finally:
            self._view.unsubscribe(changed)

    def _list(self) -> None:
        catalog = self._catalog()
        before = self._wanted
        self._wanted = list_notifications(
            with_requirements(self._view, catalog),
            self._incidents.of,
            catalog=catalog,
            external_url=self._external_url,
            now=self._now(),
            before=before,
        )
        if before is None or before.alerts != self._wanted.alerts:
            kinds = Counter(alert.kind.value for alert in self._wanted.alerts.values())
            self._counts.notifications(kinds)
            for channel in self._channels:
                channel.changed.set()

    def _seconds_until_change(self) -> float:
        if self._wanted is None or self._wanted.next_change is None:
            return _POLL_SECONDS
        left = (self._wanted.next_change - self._now()).total_seconds()
        return max(0.0, min(left, _POLL_SECONDS))

    async def _keep_current(self, channel: _Channel, term: RunningTerm) -> None:
        """Send one Alertmanager what is new, what is due again, and the end of what is over."""
        record = _Record()
        failures = 0
        next_check = 0.0
        while True:
            channel.changed.clear()
            if self._wanted is None:
                await wait_for_event(channel.changed, None)
                continue
            wanted = self._wanted.alerts
            now = _loop_time()
            due, over = record.due(wanted, now), record.over(wanted, now)
            if due or over or next_check <= now:
                term.check()
                accepted = await self._send(channel, due, over)
                failures = 0 if accepted else failures + 1
                record.sent(due, over, now, accepted=accepted)
                next_check = now + _MAX_IDLE_SECONDS
            if failures:
                await asyncio.sleep(_BACKOFF.delay(failures))
                next_check = 0.0
                continue
            pause_seconds = min(next_check, record.next_due()) - _loop_time()
            await wait_for_event(channel.changed, max(_BATCH_WINDOW_SECONDS, pause_seconds))

    async def _send(
        self, channel: _Channel, due: Sequence[Notification], ended: Sequence[Notification]
    ) -> bool:
        """Send alerts, and the end of others; return whether they were accepted."""
        now = self._now()
        alerts = [alert_body(alert, now + alert.kind.lifetime) for alert in due]
        alerts += [alert_body(alert, now) for alert in ended]
        url = channel.receiver.url
        try:
            date = await channel.receiver.send(alerts)
        except AlertmanagerError as error:
            channel.error.set(f"cannot send alerts to {url}: {error}")
            self._counts.notified(url, "failed")
            return False
        if channel.error.text:
            channel.error.clear()
            _log.info("Alertmanager accepts alerts again", url=url)
        self._counts.notified(url, "sent")
        channel.compare_clocks(_certainly_ahead(now, date, self._now()))
        return True


def _certainly_ahead(before: datetime, date: datetime | None, after: datetime) -> timedelta:
    """How much a clock that said `date` between two times is certainly ahead; below zero: behind.

    A Date has no fractions, and a slow answer makes the comparison less precise.
    """
    if date is None:
        return _NONE
    return max(date - after, _NONE) - max(before - (date + _SECOND), _NONE)


def _identity(notification: Notification) -> Identity:
    return tuple(sorted(notification.labels.items()))


def alert_body(notification: Notification, ends_at: datetime) -> dict[str, Any]:
    """Return an alert as Alertmanager's API v2 reads it."""
    starts_at = notification.starts_at
    return {
        "labels": dict(notification.labels),
        "annotations": dict(notification.annotations),
        "startsAt": format_time(starts_at),
        # (An end before the start is refused: clocks may differ.)
        "endsAt": format_time(max(starts_at, ends_at)),
        "generatorURL": notification.url,
    }


def _loop_time() -> float:
    return asyncio.get_running_loop().time()

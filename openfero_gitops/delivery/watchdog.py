"""Notices when the watchdog's alert is not delivered any more.

The replica that receives the alert records the time in the ConfigMap `openfero-control`, in the
background: a delivery never waits for it. It is written at most once in a tenth of the time within
which the alert is expected, so another replica may believe that the alert is that much older.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.control import LABELS, NAME
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.watchdog import overdue, read_delivery, write_delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.watchdog import Watchdog
    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

#: Writes per time within which the alert is expected.
_WRITES_PER_PERIOD: Final = 10
_MIN_WRITE_INTERVAL: Final = timedelta(seconds=10)
_RETRY_SECONDS: Final = 10.0
#: How much the clocks of two replicas may differ.
_CLOCK_TOLERANCE: Final = timedelta(minutes=1)


class WatchdogMonitor:
    """Knows when the watchdog's alert was last delivered to any replica."""

    def __init__(
        self,
        *,
        store: ConfigMaps,
        catalog: Callable[[], Catalog | None],
        now: Callable[[], datetime],
        report: Callable[[str, datetime | None], None],
    ) -> None:
        """Take where to record deliveries, the active catalog, and the time in UTC.

        `report` is called with the name of the alert and when it was last delivered; the name is
        empty if there is no watchdog.
        """
        self._store = store
        self._catalog = catalog
        self._now = now
        self._report = report
        self._watchdog: Watchdog | None = None
        self._waiting_since = now()
        self._delivered_at: datetime | None = None
        self._recorded_at: datetime | None = None
        self._recorded = ""  # the member of the ConfigMap, as it was last read
        self._received = asyncio.Event()
        self._write_error = OnChange(_log.warning, "delivery of the watchdog not recorded")

    @property
    def configured(self) -> bool:
        """Whether the active catalog names a watchdog."""
        return self._watchdog is not None

    @property
    def trouble(self) -> str:
        """Why alerts probably do not arrive; empty if they do, or if there is no watchdog."""
        if self._watchdog is None:
            return ""
        return overdue(self._watchdog, self._delivered_at, self._waiting_since, self._now())

    def reload(self) -> None:
        """Expect the watchdog of the active catalog, from now on if it is another than before."""
        catalog = self._catalog()
        before, watchdog = self._watchdog, catalog.envelope.watchdog if catalog else None
        if watchdog == before:
            return
        self._watchdog = watchdog
        self._waiting_since = self._now()
        if before is None or watchdog is None or not watchdog.is_named(before.alertname):
            self._delivered_at = self._recorded_at = None
            self._report(watchdog.alertname if watchdog else "", None)
        self._take_recorded()

    def observe(self, members: Mapping[str, str]) -> None:
        """Read from the ConfigMap when the alert was delivered to another replica."""
        self._recorded = members.get("watchdog", "")
        self._take_recorded()

    def receive(self, alerts: Iterable[Alert]) -> None:
        """Note the alerts of a delivery."""
        watchdog = self._watchdog
        if watchdog is not None and any(
            alert.status is Status.FIRING and watchdog.is_named(alert.name) for alert in alerts
        ):
            self._set_delivered(watchdog, self._now())
            self._received.set()

    async def run(self) -> None:
        """Record deliveries until cancelled."""
        while True:
            await self._received.wait()
            self._received.clear()
            while (watchdog := self._watchdog) is not None and self._is_write_due(watchdog):
                try:
                    await self._write(watchdog)
                except ApiError as error:
                    self._write_error.set(str(error), configmap=NAME)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    self._write_error.clear()

    def _is_write_due(self, watchdog: Watchdog) -> bool:
        if self._delivered_at is None or self._recorded_at is None:
            return self._delivered_at is not None
        interval = max(watchdog.within / _WRITES_PER_PERIOD, _MIN_WRITE_INTERVAL)
        return self._delivered_at - self._recorded_at >= interval

    async def _write(self, watchdog: Watchdog) -> None:
        delivered_at = self._delivered_at
        if delivered_at is None:
            return
        member = write_delivery(watchdog.alertname, delivered_at)
        await self._store.merge(NAME, {"watchdog": member}, LABELS)
        self._recorded_at = delivered_at

    def _take_recorded(self) -> None:
        watchdog = self._watchdog
        at = read_delivery(self._recorded, watchdog) if watchdog else None
        # A time in the future, from a replica whose clock is wrong, must not hide an outage.
        if watchdog is None or at is None or at > self._now() + _CLOCK_TOLERANCE:
            return
        self._recorded_at = max(at, self._recorded_at or at)
        self._set_delivered(watchdog, at)

    def _set_delivered(self, watchdog: Watchdog, at: datetime) -> None:
        if self._delivered_at is None or at > self._delivered_at:
            self._delivered_at = at
            self._report(watchdog.alertname, at)

"""Reports this replica to the others, and reads which others there are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.catalog.replica_members import remove_members, stale_members
from openfero_gitops.domain.control import LABELS, NAME
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.replica import (
    REPORT_INTERVAL,
    ReplicaReport,
    read_replicas,
    report_key,
    write_replica,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 30.0
_MAX_REPORTS: Final = 50


class Presence:
    """Writes the report of this replica, and reads those of all."""

    def __init__(
        self,
        *,
        store: ConfigMaps,
        identity: str,
        version: str,
        catalog: Callable[[], Catalog | None],
        now: Callable[[], datetime],
    ) -> None:
        """Prepare; nothing is written yet."""
        self._store = store
        self._identity = identity
        self._version = version
        self._catalog = catalog
        self._now = now
        self._started_at = now()
        self._written: ReplicaReport | None = None
        #: The newest reports of all replicas, by name.
        self.replicas: Sequence[ReplicaReport] = ()

    async def run(self) -> None:
        """Report and read until cancelled."""
        while True:
            try:
                await self.update()
            except ApiError as error:
                _log.debug("replicas not read", error=str(error))
            await asyncio.sleep(_POLL_SECONDS)

    async def update(self) -> None:
        """Read the reports, and write one if it is time or the active commit changed.

        Raises:
            ApiError: the ConfigMap cannot be read or written.
        """
        reports = read_replicas(await self._store.get(NAME))
        own = self._report()
        written = self._written
        if (
            written is None
            or written.commit != own.commit
            or own.at - written.at >= REPORT_INTERVAL
        ):
            key = report_key(self._identity)
            await self._store.merge(NAME, {key: write_replica(own)}, LABELS)
            self._written = own
            times = {other: report.at if report else None for other, report in reports.items()}
            times.pop(key, None)
            await remove_members(self._store, stale_members(times, own.at, _MAX_REPORTS - 1))
            reports[key] = own
        read = (report for report in reports.values() if report is not None)
        self.replicas = sorted(read, key=lambda report: report.replica)

    def _report(self) -> ReplicaReport:
        catalog = self._catalog()
        commit = catalog.revision.commit if catalog else ""
        return ReplicaReport(self._identity, self._version, commit, self._started_at, self._now())

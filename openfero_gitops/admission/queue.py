"""Reads why Kueue has not started the Jobs that were passed to it.

Every replica does, and so do the commands of a user. Workloads are read only while Jobs are queued,
for a limited number of these, and not watched: a cluster may have many of them. Nothing depends on
the result but what people are shown. Where Kueue's API is absent or forbidden, a replica logs this
once, and shows nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain.errors import ApiError, Forbidden, NotFound
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.workload import is_stuck, without_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.jobs.workload import QueueStatus
    from openfero_gitops.ports import Workloads

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 10.0
#: Until Workloads are read again that are forbidden or unknown: an administrator changes that.
_DENIED_SECONDS: Final = 600.0
#: A Job that Kueue starts at once is not looked at.
_MIN_QUEUED: Final = timedelta(seconds=3)
#: Kueue has created the Workload of a Job after this time, if it manages the Job.
_MAX_UNNOTICED: Final = timedelta(minutes=1)
#: The Jobs that are looked at, the oldest first.
_MAX_JOBS: Final = 200


class QueueReader:
    """Keeps the status that Kueue gives of each queued Job."""

    def __init__(self, *, workloads: Workloads, view: View, now: Callable[[], datetime]) -> None:
        """Take the dependencies; nothing is started."""
        self._workloads = workloads
        self._view = view
        self._now = now
        self._error = OnChange(
            _log.info, "cannot read Kueue's Workloads; the reasons of queued Jobs are not shown"
        )
        self._statuses: Mapping[str, QueueStatus] = {}
        self._changes = -1  # of the view, when the queued Jobs were last looked for
        self._queued: Sequence[Remediation] = ()

    def status(self, remediation: Remediation) -> QueueStatus | None:
        """Return why Kueue has not started a Job; None if that is not known, or it has."""
        if remediation.phase is not Phase.QUEUED:
            return None
        return self._statuses.get(remediation.uid)

    @property
    def stuck(self) -> int:
        """Count the Jobs that Kueue starts only after somebody has changed something."""
        return sum(is_stuck(each.reason, each.message) for each in self._statuses.values())

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            seconds = await self.read()
            await asyncio.sleep(seconds)

    async def read(self) -> float:
        """Read the Workloads of the queued Jobs; return the seconds until they are read again."""
        now = self._now()
        if self._changes != self._view.changes:
            self._changes = self._view.changes
            self._queued = [job for job in self._view if job.phase is Phase.QUEUED]
        queued = [
            job
            for job in self._queued
            if not job.deleting
            and job.admitted_at is not None
            and now - job.admitted_at >= _MIN_QUEUED
        ]
        try:
            self._statuses = await read_statuses(self._workloads, queued, now)
        except (Forbidden, NotFound) as error:
            self._statuses = {}
            self._error.set(str(error))
            return _DENIED_SECONDS
        except ApiError as error:  # what was read before may still be so, of Jobs still queued
            still_queued = {job.uid for job in queued}
            self._statuses = {u: s for u, s in self._statuses.items() if u in still_queued}
            self._error.set(str(error))
            return _POLL_SECONDS
        if queued:
            self._error.clear()
        return _POLL_SECONDS


async def read_statuses(
    workloads: Workloads, queued: Iterable[Remediation], now: datetime
) -> dict[str, QueueStatus]:
    """Read why Kueue has not started these Jobs, by the uid of the Job; of very many, the oldest.

    Raises:
        ApiError: Forbidden by RBAC, or NotFound if the cluster does not have Kueue's API.
    """
    by_namespace: dict[str, list[Remediation]] = defaultdict(list)
    for job in sorted(queued, key=lambda job: job.order)[:_MAX_JOBS]:
        by_namespace[job.key.namespace].append(job)
    statuses: dict[str, QueueStatus] = {}
    for namespace, jobs in by_namespace.items():
        read = await workloads.of_jobs(namespace, [job.uid for job in jobs])
        for job in jobs:
            status = read.get(job.uid)
            if status is None and job.uid not in read and _is_unnoticed(job, now):
                status = without_workload(namespace)
            if status is not None:
                statuses[job.uid] = status
    return statuses


def _is_unnoticed(job: Remediation, now: datetime) -> bool:
    return job.admitted_at is not None and now - job.admitted_at >= _MAX_UNNOTICED

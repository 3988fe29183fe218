"""The Jobs of an incident, in the orders in which their effects need them.

An effect depends on the other Jobs of its incident. To assess many Jobs of one incident,
build the index once: otherwise the time grows with the square of their number.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openfero_gitops.domain.remediation import Remediation

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class LastDelivery(NamedTuple):
    """When an alert was last delivered as firing, and its startsAt, if it has one."""

    delivered_at: datetime
    starts_at: datetime | None


class _Sorted(NamedTuple):
    """Jobs in the order of `moments`, which has a moment of each."""

    moments: list[datetime]
    jobs: list[Remediation]


class Incident:
    """The Jobs of an incident, each order sorted when it is first needed.

    Only Jobs for firing alerts have effects; `newest`, `last_undo` and the length count all Jobs.
    """

    def __init__(self, jobs: Iterable[Remediation]) -> None:
        """Take the Jobs with the same `incident`, in any order."""
        self._all = list(jobs)

    def __len__(self) -> int:
        """Count the Jobs."""
        return len(self._all)

    @cached_property
    def newest(self) -> Remediation | None:
        """The newest Job; None if the incident has no Jobs."""
        return max(self._all, key=lambda job: job.order, default=None)

    @cached_property
    def last_undo(self) -> Remediation | None:
        """The newest Job for a resolved alert that succeeded; None if there is none."""
        undone = (
            job
            for job in self._all
            if job.status is Status.RESOLVED and job.phase is Phase.SUCCEEDED
        )
        return max(undone, key=lambda job: job.order, default=None)

    def began_after(self, moment: datetime) -> Iterator[Remediation]:
        """The Jobs whose startsAt is after a moment, the earliest first."""
        moments, jobs = self._dated
        for number in range(bisect_right(moments, moment), len(jobs)):
            yield jobs[number]

    def ran_after(self, moment: datetime, began_by: datetime | None) -> Iterator[Remediation]:
        """The Jobs that started after a moment, the earliest first.

        With `began_by`, those without a startsAt are left out, and the rest once none follows that
        began by then; without it, those that have a startsAt.
        """
        moments, jobs = self._undated_runs if began_by is None else self._dated_runs
        for number in range(bisect_right(moments, moment), len(jobs)):
            if began_by is not None and self._earliest[number] > began_by:
                return
            yield jobs[number]

    def last_delivery(self, began_by: datetime | None) -> LastDelivery | None:
        """The last delivery of an alert that began by a moment (None: whenever).

        One without a startsAt may have begun at any time. None if there is no such delivery.
        """
        moments = self._dated.moments
        dated = len(moments) if began_by is None else bisect_right(moments, began_by)
        deliveries = [*self._delivered[max(dated - 1, 0) : dated], *self._undated_delivery]
        return max(deliveries, key=lambda delivery: delivery.delivered_at, default=None)

    @cached_property
    def _jobs(self) -> list[Remediation]:
        return [job for job in self._all if job.status is Status.FIRING]

    @cached_property
    def _dated(self) -> _Sorted:
        return _sort(self._jobs, lambda job: job.starts_at)

    @cached_property
    def _dated_runs(self) -> _Sorted:
        jobs = (job for job in self._jobs if job.has_run and job.starts_at is not None)
        return _sort(jobs, lambda job: job.started_at)

    @cached_property
    def _undated_runs(self) -> _Sorted:
        jobs = (job for job in self._jobs if job.has_run and job.starts_at is None)
        return _sort(jobs, lambda job: job.started_at)

    @cached_property
    def _earliest(self) -> list[datetime]:
        """For each of the dated runs, the earliest startsAt from there on."""
        moments = [job.starts_at or _NEVER for job in reversed(self._dated_runs.jobs)]
        return list(accumulate(moments, min))[::-1]

    @cached_property
    def _delivered(self) -> list[LastDelivery]:
        """For each of the dated Jobs, the last delivery of those that began no later."""
        deliveries = (LastDelivery(job.delivered_at, job.starts_at) for job in self._dated.jobs)
        return list(accumulate(deliveries, _later))

    @cached_property
    def _undated_delivery(self) -> list[LastDelivery]:
        """The last delivery without a startsAt, if there is any."""
        moments = [job.delivered_at for job in self._jobs if job.starts_at is None]
        return [LastDelivery(max(moments), None)] if moments else []


def _sort(
    jobs: Iterable[Remediation], moment_of: Callable[[Remediation], datetime | None]
) -> _Sorted:
    """Sort the Jobs that have a moment by it, then by their order."""
    pairs = [(moment, job) for job in jobs if (moment := moment_of(job)) is not None]
    pairs.sort(key=lambda pair: (pair[0], pair[1].order))
    return _Sorted([moment for moment, _ in pairs], [job for _, job in pairs])


def _later(last: LastDelivery, delivery: LastDelivery) -> LastDelivery:
    return delivery if delivery.delivered_at > last.delivered_at else last

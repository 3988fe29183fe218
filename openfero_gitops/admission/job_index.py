"""Every Job, indexed for admission: what waits, runs, started and ended, and for which incident.

The index is kept while Jobs change, so that a decision reads the few Jobs that it depends on. It
depends on the Jobs alone: neither on the time nor on the order in which they were added.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeVar

from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation

_Key = TypeVar("_Key", bound="Hashable")
_ORDER: Final = attrgetter("order")


class JobIndex:
    """Jobs by what admission needs of them; the Jobs of one key are sorted by their `order`.

    Of a Job that is being deleted, or of an unknown incident, only the Pods count.

    Attributes:
        waiting: all that wait, by uid.
        started_by_other: those whose start must be recorded on them, by uid.
        starting: those that started a moment ago, or may have: without a time, by uid.
        by_incident: all Jobs of an incident.
        started: the Jobs of an incident that started.
        by_occurrence: all Jobs of an occurrence.
        started_on: the Jobs of an operario that started on a target.
        occupying: the Jobs that occupy a target.
        occupying_by_operario: how many do, by operario, and in all for None.
        queued_by_operario: how many of these are in a Kueue queue, in the same way.
        starts: when Jobs started, sorted.
        starts_by_operario: the same, by operario.
    """

    def __init__(self, remediations: Iterable[Remediation] = ()) -> None:
        """Index some Jobs."""
        self.waiting: dict[str, Remediation] = {}
        self.started_by_other: dict[str, Remediation] = {}
        self.starting: dict[str, Remediation] = {}
        self.by_incident: dict[str, list[Remediation]] = {}
        self.started: dict[str, list[Remediation]] = {}
        self.by_occurrence: dict[str, list[Remediation]] = {}
        self.started_on: dict[tuple[str, str], list[Remediation]] = {}
        self.occupying: dict[str, list[Remediation]] = {}
        self.occupying_by_operario: Counter[str | None] = Counter()
        self.queued_by_operario: Counter[str | None] = Counter()
        self.starts: list[datetime] = []
        self.starts_by_operario: dict[str, list[datetime]] = {}
        # In this order each is added at the end of its lists.
        for remediation in sorted(remediations, key=_ORDER):
            self.add(remediation)

    def add(self, remediation: Remediation) -> None:
        """Add a Job."""
        job = remediation
        if job.occupying:
            _insert(self.occupying, job.target, job)
            self._count_occupying(job, 1)
        if job.waiting:
            self.waiting[job.uid] = job
        if job.has_unrecorded_start:
            self.started_by_other[job.uid] = job
        if job.deleting or not job.incident:
            return
        _insert(self.by_incident, job.incident, job)
        _insert(self.by_occurrence, job.occurrence, job)
        if not job.started:
            return
        _insert(self.started, job.incident, job)
        _insert(self.started_on, (job.operario, job.target), job)
        if (start := start_of(job)) is not None:
            insort(self.starts, start)
            insort(self.starts_by_operario.setdefault(job.operario, []), start)
        elif job.occupying:
            self.starting[job.uid] = job

    def remove(self, remediation: Remediation) -> None:
        """Remove a Job, given as it was added."""
        job = remediation
        if job.occupying:
            _delete(self.occupying, job.target, job)
            self._count_occupying(job, -1)
        self.waiting.pop(job.uid, None)
        self.started_by_other.pop(job.uid, None)
        if job.deleting or not job.incident:
            return
        _delete(self.by_incident, job.incident, job)
        _delete(self.by_occurrence, job.occurrence, job)
        if not job.started:
            return
        _delete(self.started, job.incident, job)
        _delete(self.started_on, (job.operario, job.target), job)
        if (start := start_of(job)) is not None:
            _delete_start(self.starts, start)
            starts = self.starts_by_operario[job.operario]
            _delete_start(starts, start)
            if not starts:
                del self.starts_by_operario[job.operario]
        self.starting.pop(job.uid, None)

    def _count_occupying(self, job: Remediation, number: int) -> None:
        for operario in (job.operario, None):
            _count(self.occupying_by_operario, operario, number)
            if job.phase is Phase.QUEUED:
                _count(self.queued_by_operario, operario, number)


def start_of(job: Remediation) -> datetime | None:
    """Return from when the start of a Job counts; None if that is not known yet."""
    start = job.admitted_at or job.started_at
    if start and job.started_at and job.queue is None:
        # An admission may have been in flight for long: the Job counts from its real start.
        return max(start, job.started_at)
    return start


def _count(counter: Counter[str | None], operario: str | None, number: int) -> None:
    counter[operario] += number
    if not counter[operario]:
        del counter[operario]


def _insert(groups: dict[_Key, list[Remediation]], key: _Key, remediation: Remediation) -> None:
    jobs = groups.get(key)
    if jobs is None:
        groups[key] = [remediation]  # most have one: `append` would leave room for three more
    elif remediation.order < jobs[-1].order:
        insort(jobs, remediation, key=_ORDER)
    else:
        jobs.append(remediation)


def _delete(groups: dict[_Key, list[Remediation]], key: _Key, remediation: Remediation) -> None:
    jobs = groups[key]
    position = bisect_left(jobs, remediation.order, key=_ORDER)
    while jobs[position] is not remediation:
        position += 1  # past another of the same order
    del jobs[position]
    if not jobs:
        del groups[key]


def _delete_start(starts: list[datetime], start: datetime) -> None:
    del starts[bisect_left(starts, start)]

"""The Jobs as they count for the decisions of one pass, with what the pass decides."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.breaker import Breakers
from openfero_gitops.admission.job_index import start_of
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.labels import without
from openfero_gitops.domain.remediation import STARTS_AT_TOLERANCE, Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from openfero_gitops.admission.job_index import JobIndex
    from openfero_gitops.domain.remediation import JobKey, Remediation

HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Starts:
    """The starts within a window: those of indexed Jobs, sorted, and those of this pass."""

    indexed: Sequence[datetime]
    passed: Sequence[datetime]
    after: datetime

    def __len__(self) -> int:
        """How many there are."""
        return len(self.indexed) - self._first + len(self.passed)

    def latest(self, number: int) -> datetime:
        """Return the latest start of this number: 1 is the last."""
        if not self.passed:
            return self.indexed[-number]
        first = max(self._first, len(self.indexed) - number)
        return heapq.nlargest(number, (*self.indexed[first:], *self.passed))[-1]

    @property
    def _first(self) -> int:
        return bisect_right(self.indexed, self.after)


@dataclass(slots=True)
class AdmissionIndex:
    """Every Job at one moment; admissions and refusals of this pass are added.

    Of the `unconfirmed` (uids) it is unknown whether they started.
    """

    jobs: JobIndex
    now: datetime
    unconfirmed: Collection[str] = frozenset()
    breakers: Breakers = field(init=False)
    _admitted: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    _admitted_keys: set[JobKey] = field(default_factory=set)
    _refused: dict[JobKey, str] = field(default_factory=dict)
    # Of what is not in `jobs`: admissions of this pass, and Jobs that count as if they ran.
    _busy_targets: dict[str, Remediation] = field(default_factory=dict)
    _occupying: Counter[str | None] = field(default_factory=Counter)
    _starts: list[datetime] = field(default_factory=list)
    _starts_by_operario: dict[str, list[datetime]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _last_ends: dict[tuple[str, str], datetime | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count the Jobs that are starting, and make the breakers, which read the index."""
        jobs = self.jobs
        self.breakers = Breakers(self.now, jobs.by_incident, jobs.started_on, self.unconfirmed)
        for remediation in jobs.starting.values():
            self._count_start(remediation.operario, self.now)

    def assume(self, remediation: Remediation) -> None:
        """Count a Job as running, as it is given; it is indexed as one that waits."""
        self._occupy(remediation)
        if remediation.incident and not remediation.deleting:
            self._count_start(remediation.operario, start_of(remediation) or self.now)

    def admit(self, remediation: Remediation) -> None:
        """Record an admission of this pass."""
        self._admitted_keys.add(remediation.key)
        self._admitted[remediation.incident].append(remediation)
        self._occupy(remediation)
        self._count_start(remediation.operario, self.now)

    def refuse(self, remediation: Remediation, reason: str) -> None:
        """Record a refusal of this pass."""
        self._refused[remediation.key] = reason

    def is_admitted(self, remediation: Remediation) -> bool:
        """Whether this pass admitted a Job."""
        return remediation.key in self._admitted_keys

    def refusal(self, remediation: Remediation) -> str | None:
        """Why a Job was refused or cancelled, by this pass or before; None if it was not."""
        if remediation.phase in (Phase.REFUSED, Phase.CANCELLED):
            return remediation.reason
        return self._refused.get(remediation.key)

    def of_occurrence(self, remediation: Remediation) -> Sequence[Remediation]:
        """The Jobs of the same occurrence."""
        return self.jobs.by_occurrence.get(remediation.occurrence, ())

    def of_incident(self, remediation: Remediation) -> Sequence[Remediation]:
        """The Jobs of the same incident."""
        return self.jobs.by_incident.get(remediation.incident, ())

    def earlier_of_incident(
        self, remediation: Remediation, starts_at: datetime
    ) -> Iterator[Remediation]:
        """The Jobs that may be for the same incident: received before this one, or started.

        Those received long before `starts_at` are skipped by bisection: a scan of all of them would
        be slow if an alert fires again and again.
        """
        jobs = self.of_incident(remediation)
        first = bisect_left(
            jobs, starts_at, key=lambda other: other.received_at + STARTS_AT_TOLERANCE
        )
        last = bisect_left(jobs, remediation.order, key=lambda other: other.order)
        yield from jobs[first:last]
        yield from self.jobs.started.get(remediation.incident, ())
        yield from self._admitted.get(remediation.incident, ())

    def firing(self, remediation: Remediation) -> Sequence[Remediation]:
        """The Jobs of the firing alert with the same labels."""
        labels = without(remediation.labels, remediation.replica_labels)
        return self.jobs.by_incident.get(incident_digest(labels, Status.FIRING), ())

    def busy(self, target: str) -> Remediation | None:
        """The first of the Jobs that occupy a target."""
        first, *_ = self.jobs.occupying.get(target, (None,))
        other = self._busy_targets.get(target)
        if first is None or other is None:
            return first or other
        return min(first, other, key=lambda job: job.order)

    def last_end(self, operario: str, target: str) -> datetime | None:
        """When the last Job of an operario on a target ended."""
        key = operario, target
        if key not in self._last_ends:
            ends = (job.finished_at for job in self.jobs.started_on.get(key, ()))
            self._last_ends[key] = max((end for end in ends if end is not None), default=None)
        return self._last_ends[key]

    def occupying(self, operario: str | None = None) -> int:
        """How many Jobs occupy a target, of one operario or of all."""
        return self.jobs.occupying_by_operario[operario] + self._occupying[operario]

    def any_queued(self, operario: str | None = None) -> bool:
        """Whether one of these is in a Kueue queue."""
        return self.jobs.queued_by_operario[operario] > 0

    def last_hour(self, operario: str) -> Starts:
        """The starts of an operario in the last hour."""
        indexed = self.jobs.starts_by_operario.get(operario, ())
        passed = self._starts_by_operario.get(operario, ())
        return Starts(indexed, passed, self.now - HOUR)

    def last_minute(self) -> Starts:
        """All starts in the last minute."""
        return Starts(self.jobs.starts, self._starts, self.now - MINUTE)

    def _occupy(self, remediation: Remediation) -> None:
        other = self._busy_targets.get(remediation.target)
        if other is None or remediation.order < other.order:
            self._busy_targets[remediation.target] = remediation
        self._occupying[remediation.operario] += 1
        self._occupying[None] += 1

    def _count_start(self, operario: str, start: datetime) -> None:
        if start > self.now - HOUR:
            self._starts_by_operario[operario].append(start)
        if start > self.now - MINUTE:
            self._starts.append(start)

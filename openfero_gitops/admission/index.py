"""Every Job, indexed for the checks of admission: what runs, what started, and what ended."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.breaker import Breakers
from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.labels import without
from openfero_gitops.domain.remediation import STARTS_AT_TOLERANCE, Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from openfero_gitops.domain.remediation import JobKey, Remediation

HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)


@dataclass(slots=True)
class AdmissionIndex:
    """Every Job, indexed for the checks; admissions and refusals of this pass are added."""

    now: datetime
    unconfirmed: Collection[str] = frozenset()
    by_incident: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    started: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    by_occurrence: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    last_end: dict[tuple[str, str], datetime] = field(default_factory=dict)
    busy_targets: dict[str, Remediation] = field(default_factory=dict)
    occupying: int = 0
    occupying_by_operario: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    queued: set[str] = field(default_factory=set)  # operarios of Jobs in a Kueue queue
    last_minute: list[datetime] = field(default_factory=list)
    last_hour: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    admitted: set[JobKey] = field(default_factory=set)
    refused: dict[JobKey, str] = field(default_factory=dict)
    breakers: Breakers = field(init=False)

    def __post_init__(self) -> None:
        """Make the breakers, which read the index."""
        self.breakers = Breakers(self.now, self.by_incident, self.unconfirmed)

    def add(self, remediation: Remediation) -> None:
        """Add a Job; of one that is being deleted, or of an unknown incident, only Pods count."""
        if remediation.occupying:
            self._occupy(remediation)
        if remediation.deleting or not remediation.incident:
            return
        self.by_incident[remediation.incident].append(remediation)
        self.by_occurrence[remediation.occurrence].append(remediation)
        if remediation.phase in (Phase.REFUSED, Phase.CANCELLED):
            self.refused[remediation.key] = remediation.reason
        if not remediation.started:
            return
        self.started[remediation.incident].append(remediation)
        self.breakers.add(remediation)
        if (end := remediation.finished_at) is not None:
            key = remediation.operario, remediation.target
            self.last_end[key] = max(end, self.last_end.get(key, end))
        start = remediation.admitted_at or remediation.started_at
        if start and remediation.started_at and remediation.queue is None:
            # An admission may have been in flight for long: the Job counts from its real start.
            start = max(start, remediation.started_at)
        if start is None and remediation.occupying:
            start = self.now  # it started a moment ago, or may have
        if start is not None:
            self._count_start(remediation, start)

    def admit(self, remediation: Remediation) -> None:
        """Record an admission of this pass."""
        self.admitted.add(remediation.key)
        self.started[remediation.incident].append(remediation)
        self._occupy(remediation)
        self._count_start(remediation, self.now)

    def earlier_of_incident(
        self, remediation: Remediation, starts_at: datetime
    ) -> Iterator[Remediation]:
        """The Jobs that may be for the same incident: received before this one, or started.

        Those received long before `starts_at` are skipped by bisection, as the Jobs were added in
        order: a scan of all of them would be slow if an alert fires again and again.
        """
        jobs = self.by_incident[remediation.incident]
        first = bisect_left(
            jobs, starts_at, key=lambda other: other.received_at + STARTS_AT_TOLERANCE
        )
        last = bisect_left(jobs, remediation.order, key=lambda other: other.order)
        yield from jobs[first:last]
        yield from self.started[remediation.incident]

    def firing(self, remediation: Remediation) -> list[Remediation]:
        """The Jobs of the firing alert with the same labels."""
        labels = without(remediation.labels, remediation.replica_labels)
        return self.by_incident.get(incident_digest(labels, Status.FIRING), [])

    def _occupy(self, remediation: Remediation) -> None:
        self.busy_targets.setdefault(remediation.target, remediation)
        self.occupying += 1
        self.occupying_by_operario[remediation.operario] += 1
        if remediation.phase is Phase.QUEUED:
            self.queued.add(remediation.operario)

    def _count_start(self, remediation: Remediation, start: datetime) -> None:
        if start > self.now - HOUR:
            self.last_hour[remediation.operario].append(start)
        if start > self.now - MINUTE:
            self.last_minute.append(start)

"""Groups every alert by its name: those with a Job, which are remediations, and the others.

An alert fires until it was last received as resolved: by the record of alerts without a Job, by the
Job of the firing alert, or by a Job of the resolved one. An alert that cannot be read may fire.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from openfero_gitops.delivery.unanswered import (
    INCIDENT_CHARACTERS,
    RETENTION,
    incident_of,
    seconds_of,
)
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from openfero_gitops.delivery.unanswered import AlertKind, Unanswered, UnansweredRecord
    from openfero_gitops.domain.remediation import Remediation

#: Of the strip: half an hour each.
_CELLS: Final = 48
_CELL_SECONDS: Final = int(RETENTION.total_seconds()) // _CELLS
_BAD_EFFECTS: Final = frozenset({Effect.NOT_HEALED})


class GroupState(StrEnum):
    """What a group of alerts can be selected by."""

    FIRING = "firing"
    RESOLVED = "resolved"
    UNANSWERED = "unanswered"
    ANSWERED = "answered"
    HEALED = "healed"


class Tone(StrEnum):
    """How half an hour of the strip is drawn; later members hide earlier ones."""

    HEARD = "heard"
    DONE = "done"
    HEALED = "healed"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class NamedAlerts:
    """The alerts with one name. Most names are only counted, so the rest is computed when asked.

    Attributes:
        name: of the alerts.
        kinds: those without a Job, the most recently received first.
        jobs: the remediations of the others, in any order.
        last: when the last was received.
    """

    name: str
    kinds: Sequence[tuple[AlertKind, Unanswered]]
    jobs: Sequence[Remediation]
    last: datetime

    @property
    def first(self) -> datetime:
        """When the first was received."""
        times = [job.received_at for job in self.jobs]
        times += [datetime.fromtimestamp(kind.first, UTC) for _, kind in self.kinds]
        return min(times)

    @property
    def firing(self) -> int:
        """Count the alerts that fire now, as far as they are recorded."""
        return len(set(self._list_firing()))

    @property
    def is_firing(self) -> bool:
        """Whether an alert fires now, as far as they are recorded."""
        return next(self._list_firing(), None) is not None

    @property
    def is_unreadable(self) -> bool:
        """Whether alerts that cannot be read were received after the last resolved one."""
        unreadable = [each.last for kind, each in self.kinds if not kind.status]
        resolved = [each.last for kind, each in self.kinds if kind.status == Status.RESOLVED]
        return bool(unreadable) and max(unreadable) > max(resolved, default=0)

    def has_more_firing(self, now: datetime) -> bool:
        """Whether more alerts may fire than are recorded."""
        return any(_fires(kind) and not each.is_complete(now) for kind, each in self.kinds)

    def _list_firing(self) -> Iterator[str]:
        """Yield incidents that were last received as firing, some repeatedly."""
        resolved = _list_resolved(self.kinds, self.jobs)
        remaining = [
            (incident, at)
            for incident, at in _list_firing(self.kinds, self.jobs)
            if at > resolved.get(incident, 0)
        ]
        if remaining:  # (a digest for each Job is slow, and seldom needed)
            for job in self.jobs:
                if job.status is Status.RESOLVED and job.incident:
                    incident, at = _firing_incident(job), seconds_of(job.delivered_at)
                    resolved[incident] = max(at, resolved.get(incident, 0))
        return (incident for incident, at in remaining if at > resolved.get(incident, 0))

    def newest_jobs(self, count: int) -> list[Remediation]:
        """Return the newest remediations, newest first."""
        return nlargest(count, self.jobs, key=lambda job: job.order)

    @property
    def states(self) -> frozenset[GroupState]:
        """Everything that the group is selected by."""
        is_open = self.is_firing or self.is_unreadable
        states = {GroupState.FIRING if is_open else GroupState.RESOLVED}
        if any(needs_answer(kind) for kind, _ in self.kinds):
            states.add(GroupState.UNANSWERED)
        if self.jobs:
            states.add(GroupState.ANSWERED)
        if any(job.effect is Effect.HEALED for job in self.jobs):
            states.add(GroupState.HEALED)
        return frozenset(states)

    def texts(self) -> Iterator[str]:
        """Yield what is searched."""
        yield self.name
        for kind, unanswered in self.kinds:
            yield from kind
            yield unanswered.sample.message
            for values in (unanswered.sample.labels, unanswered.sample.annotations):
                yield from (f"{name}={text}" for name, text in values.items())
        for job in self.jobs:
            yield from (job.operario, str(job.key), job.phase.value, job.reason, job.message)
            yield from (f"{name}={text}" for name, text in job.labels.items())

    def strip(self, now: datetime) -> list[tuple[int, Tone]]:
        """The half hours of the last day in which something was received, from the oldest."""
        oldest = seconds_of(now - RETENTION)
        cells: dict[int, Tone] = {}

        def mark(first: int, last: int, tone: Tone) -> None:
            start = max((first - oldest) // _CELL_SECONDS, 0)
            end = min((last - oldest) // _CELL_SECONDS, _CELLS - 1)
            for cell in range(start, end + 1):
                cells[cell] = max(tone, cells.get(cell, tone), key=_ORDER.__getitem__)

        for kind, unanswered in self.kinds:
            if kind.status != Status.RESOLVED:
                for heard in unanswered.occurrences.values():
                    mark(heard.first, heard.last, Tone.HEARD)
        for job in self.jobs:
            end = job.finished_at or job.received_at
            if seconds_of(end) >= oldest:
                mark(seconds_of(job.received_at), seconds_of(end), _tone(job))
        return sorted(cells.items())


_ORDER: Final = {tone: number for number, tone in enumerate(Tone)}


def needs_answer(kind: AlertKind) -> bool:
    """Whether an alert should perhaps have got a Job; a resolved one seldom needs one."""
    return kind.status != Status.RESOLVED


def group_alerts(
    record: UnansweredRecord, remediations: Iterable[Remediation]
) -> list[NamedAlerts]:
    """Group alerts by name, the most recently received first."""
    kinds: dict[str, list[tuple[AlertKind, Unanswered]]] = {}
    jobs: dict[str, list[Remediation]] = {}
    for kind, unanswered in record.kinds.items():
        kinds.setdefault(kind.alertname, []).append((kind, unanswered))
    for remediation in remediations:
        jobs.setdefault(remediation.alertname, []).append(remediation)
    groups = [
        _group(name, kinds.get(name, []), jobs.get(name, [])) for name in kinds.keys() | jobs.keys()
    ]
    return sorted(groups, key=lambda group: (-group.last.timestamp(), group.name))


def time_of(seconds: int) -> datetime | None:
    """Return a time of the record; None for none."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _group(
    name: str, kinds: list[tuple[AlertKind, Unanswered]], jobs: list[Remediation]
) -> NamedAlerts:
    kinds.sort(key=lambda entry: (-entry[1].last, entry[0]))
    times = [job.delivered_at for job in jobs]
    times += [job.resolved_at for job in jobs if job.resolved_at]
    if kinds:
        times.append(datetime.fromtimestamp(kinds[0][1].last, UTC))
    return NamedAlerts(name, kinds, jobs, max(times))


def _list_firing(
    kinds: Iterable[tuple[AlertKind, Unanswered]], jobs: Iterable[Remediation]
) -> Iterator[tuple[str, int]]:
    """Yield incidents, and when they were received as firing."""
    for kind, unanswered in kinds:
        if _fires(kind):
            for key, heard in unanswered.occurrences.items():
                yield key.incident, heard.last
    for job in jobs:
        if job.status is Status.FIRING:
            yield job.incident[:INCIDENT_CHARACTERS], seconds_of(job.received_at)


def _fires(kind: AlertKind) -> bool:
    return kind.status == Status.FIRING and kind.reason != Reason.STILL_FIRING


def _firing_incident(job: Remediation) -> str:
    """Return the incident of the firing alert that a Job of a resolved one belongs to."""
    return incident_of(job.labels, frozenset(job.replica_labels))


def _list_resolved(
    kinds: Iterable[tuple[AlertKind, Unanswered]], jobs: Iterable[Remediation]
) -> dict[str, int]:
    """Return when incidents were last received as resolved."""
    resolved: dict[str, int] = {}
    for kind, unanswered in kinds:
        if kind.status == Status.RESOLVED and kind.reason != Reason.STILL_FIRING:
            for key, heard in unanswered.occurrences.items():
                resolved[key.incident] = max(heard.last, resolved.get(key.incident, 0))
    for job in jobs:
        if job.status is Status.FIRING and job.resolved_at is not None:
            incident = job.incident[:INCIDENT_CHARACTERS]
            resolved[incident] = max(seconds_of(job.resolved_at), resolved.get(incident, 0))
    return resolved


def _tone(job: Remediation) -> Tone:
    if job.phase is Phase.FAILED or job.effect in _BAD_EFFECTS:
        return Tone.BAD
    return Tone.HEALED if job.effect is Effect.HEALED else Tone.DONE

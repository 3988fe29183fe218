"""Groups every alert that came by its name: the answered ones, which are the Jobs, and the others.

An alert fires until it was last heard as resolved, by the record of alerts without a Job or by the
Job of the firing alert.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from openfero_gitops.delivery.unanswered import INCIDENT_CHARACTERS, RETENTION, seconds_of
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from openfero_gitops.delivery.unanswered import Kind, Unanswered, UnansweredRecord
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
        kinds: those without a Job, the most recently heard first.
        jobs: the remediations of the others, in any order.
        last: when the last was heard.
    """

    name: str
    kinds: Sequence[tuple[Kind, Unanswered]]
    jobs: Sequence[Remediation]
    last: datetime

    @property
    def first(self) -> datetime:
        """When the first was heard."""
        times = [job.received_at for job in self.jobs]
        times += [datetime.fromtimestamp(kind.first, UTC) for _, kind in self.kinds]
        return min(times)

    @property
    def firing(self) -> int:
        """Count the alerts that fire now, as far as it is known."""
        resolved = _list_resolved(self.kinds, self.jobs)
        heard = _list_firing(self.kinds, self.jobs)
        return len({incident for incident, at in heard if at > resolved.get(incident, 0)})

    @property
    def is_firing(self) -> bool:
        """Whether an alert fires now, as far as it is known."""
        resolved = _list_resolved(self.kinds, self.jobs)
        heard = _list_firing(self.kinds, self.jobs)
        return any(at > resolved.get(incident, 0) for incident, at in heard)

    def newest_jobs(self, count: int) -> list[Remediation]:
        """Return the newest remediations, newest first."""
        return nlargest(count, self.jobs, key=lambda job: job.order)

    @property
    def states(self) -> frozenset[GroupState]:
        """Everything that the group is selected by."""
        states = {GroupState.FIRING if self.is_firing else GroupState.RESOLVED}
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
            yield from (job.operario, str(job.key), job.phase.value)
            yield from (f"{name}={text}" for name, text in job.labels.items())

    def strip(self, now: datetime) -> list[tuple[int, Tone]]:
        """The half hours of the last day in which something was heard, counted from the oldest."""
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


def needs_answer(kind: Kind) -> bool:
    """Whether an alert should perhaps have got a Job; a resolved one seldom needs one."""
    return kind.status != Status.RESOLVED


def group_alerts(
    record: UnansweredRecord, remediations: Iterable[Remediation]
) -> list[NamedAlerts]:
    """Group alerts by name, the most recently heard first."""
    kinds: dict[str, list[tuple[Kind, Unanswered]]] = {}
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


def _group(name: str, kinds: list[tuple[Kind, Unanswered]], jobs: list[Remediation]) -> NamedAlerts:
    kinds.sort(key=lambda entry: (-entry[1].last, entry[0]))
    times = [job.delivered_at for job in jobs]
    times += [job.resolved_at for job in jobs if job.resolved_at]
    if kinds:
        times.append(datetime.fromtimestamp(kinds[0][1].last, UTC))
    return NamedAlerts(name, kinds, jobs, max(times))


def _list_firing(
    kinds: Iterable[tuple[Kind, Unanswered]], jobs: Iterable[Remediation]
) -> Iterator[tuple[str, int]]:
    """Yield incidents, and when they were heard as firing."""
    for kind, unanswered in kinds:
        if kind.status == Status.FIRING and kind.reason != Reason.STILL_FIRING:
            for key, heard in unanswered.occurrences.items():
                yield key.incident, heard.last
    for job in jobs:
        if job.status is Status.FIRING:
            yield job.incident[:INCIDENT_CHARACTERS], seconds_of(job.received_at)


def _list_resolved(
    kinds: Iterable[tuple[Kind, Unanswered]], jobs: Iterable[Remediation]
) -> dict[str, int]:
    """Return when incidents were last heard as resolved."""
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

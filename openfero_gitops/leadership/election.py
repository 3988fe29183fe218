"""Who may take the lease, and who must let go of it: client-go's rules, as pure functions.

Nobody's wall clock counts. A replica notes when, by its own clock, it first saw the record as
it is; the holder is gone when that lies further back than the record's own duration. Whether
the record is still so at the moment of writing, the API server says: every write carries the
resourceVersion that was read.

Four rules are stricter than client-go's:

* a lease that disappears is not free before its last known record has run out, so that deleting
  it does not make two leaders (a replica that never saw it may create it at once);
* a record is one's own by its acquisition, not by its name, so that two processes of one name
  do not lead together, and one that was restarted waits for its predecessor as for anybody;
* a record without a duration counts with the candidate's, not with none;
* a renewal changes the record even where the wall clock stands still.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from openfero_gitops.domain.lease import LeaseRecord

_TRANSITIONS: Final = 2**31  # the API's field is an int32
_RELEASED_FOR: Final = 1  # seconds; the API wants a duration above 0, client-go writes this one


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who stands: its name, and the duration in whole seconds that it would write."""

    identity: str
    duration: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one replica saw of the lease.

    `record` is the latest, None where there is no Lease. `held` is the last one that named a
    holder, unless it was released since, and `held_at` the moment (monotonic seconds) when it
    was first seen to say just that.
    """

    record: LeaseRecord | None = None
    held: LeaseRecord | None = None
    held_at: float = 0.0


class Because(StrEnum):
    """Why a replica does not lead, or no longer."""

    HELD = "another replica holds the lease"
    GONE = "the lease was deleted, and its holder may not know yet"
    TAKEN = "another replica took the lease"
    DELETED = "the lease was deleted"
    EXPIRED = "no renewal came through within the renew deadline"
    FAILED = "the guarded work failed"
    RETURNED = "the guarded work came to an end by itself"
    RESTING = "the guarded work failed here; others may lead first"
    STOPPING = "this replica stops"


@dataclass(frozen=True, slots=True)
class Create:
    """Store a new Lease that says this."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Acquire:
    """Replace the Lease of that resourceVersion, which nobody holds any more."""

    record: LeaseRecord
    resource_version: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Replace the Lease of that resourceVersion, which is one's own."""

    record: LeaseRecord
    resource_version: str


@dataclass(frozen=True, slots=True)
class Release:
    """Replace the Lease of that resourceVersion by one that names nobody."""

    record: LeaseRecord
    resource_version: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody may still lead, until that moment (monotonic seconds) if nothing is heard."""

    reason: Because
    holder: str
    until: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """The term is over."""

    reason: Because


def see(before: Sighting, record: LeaseRecord | None, now: float) -> Sighting:
    """Note what was read just now; the clock of a holder starts anew only if its record changed.

    `now` must not lie before the answer was read. A change of labels is no sign of life: only
    what the record says counts.
    """
    if record is None:
        return replace(before, record=None)
    if not record.holder:
        return Sighting(record)
    if record == before.held:
        return replace(before, record=record)
    return Sighting(record, record, now)


def runs_out(candidate: Candidate, seen: Sighting) -> float:
    """When (monotonic seconds) the last known holder is gone, if nothing more is heard of it."""
    if seen.held is None:
        return seen.held_at
    return seen.held_at + (seen.held.duration or candidate.duration)


def stand(
    candidate: Candidate, seen: Sighting, mine: LeaseRecord | None, *, now: float, wall: datetime
) -> Create | Acquire | Wait:
    """What a replica without a term may do.

    `mine` is the record with which this very process last took the lease, or tried to without
    hearing the answer: its work has ended, or never began, so that nobody need wait for it.
    """
    held = seen.held
    if held is not None and (mine is None or not held.same_term(mine)):
        until = runs_out(candidate, seen)
        if now < until:
            reason = Because.HELD if seen.record is not None else Because.GONE
            return Wait(reason, held.holder, until)
    last = seen.record or held
    taken = LeaseRecord(
        holder=candidate.identity,
        duration=candidate.duration,
        acquired_at=wall,
        renewed_at=wall,
        transitions=(last.transitions + 1) % _TRANSITIONS if last is not None else 0,
    )
    if seen.record is None:
        return Create(taken)
    return Acquire(taken, seen.record.resource_version)


def keep(record: LeaseRecord | None, mine: LeaseRecord, *, wall: datetime) -> Renew | StepDown:
    """What a leader does about the lease as it was last read; `mine` began its term."""
    if record is None:
        return StepDown(Because.DELETED)
    if not record.same_term(mine):
        return StepDown(Because.TAKEN)
    renewed_at = _unlike(record.renewed_at, wall)
    renewed = replace(record, duration=mine.duration, renewed_at=renewed_at)
    return Renew(renewed, record.resource_version)


def release(
    record: LeaseRecord | None, mine: LeaseRecord, *, wall: datetime, settled: bool = False
) -> Release | None:
    """How to hand a lease over; None where it is no longer one's own.

    `settled` is what the next holder is told: that nothing of anybody's is under way.
    """
    if record is None or not record.same_term(mine):
        return None
    free = replace(
        record,
        holder="",
        duration=_RELEASED_FOR,
        acquired_at=wall,
        renewed_at=wall,
        settled=settled,
    )
    return Release(free, record.resource_version)


def _unlike(before: datetime | None, wall: datetime) -> datetime:
    """Return the time of a renewal, which must differ from those of the last ones.

    To the API server a write that changes nothing is none, and to the others it is no sign of
    life: a wall clock that stands still would let them take a lease that was renewed.
    """
    if before is not None and timedelta(0) <= before - wall < timedelta(seconds=1):
        return before + timedelta(microseconds=1)
    return wall

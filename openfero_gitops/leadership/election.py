"""When a replica may take the lease, and when it must give it up: client-go's rules, as functions.

No wall clock counts. A replica notes when, by its own clock, it first read the record as it is
now. The lease has expired when that is longer ago than the record's own duration. The API server
detects whether the record changed before a write: every write carries the resourceVersion that was
read.

Five rules are stricter than client-go's:

* A deleted lease is not free before its last known record has expired, so that deleting it does
  not make two leaders. (A replica that never saw the record may create it at once.)
* A record is recognized as one's own by its acquisition, not by its holder's name. So two processes
  of one name do not lead together, and a restarted one waits for the lease to expire.
* A record without a duration counts with the candidate's duration, not with none.
* A record counts with a day at most, so that who can write the Lease once does not keep every
  replica from leading for years.
* A renewal changes the record even if the wall clock does not advance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from openfero_gitops.domain.lease import MAX_LEASE_SECONDS, LeaseRecord
from openfero_gitops.domain.text import quoted

_TRANSITIONS: Final = 2**31  # the API's field is an int32
#: In lease durations: silence of a holder that no replica with the same settings has.
_LONG_SILENCE: Final = 2
_MAX_HOLDER_CHARACTERS: Final = 100
_RELEASED_SECONDS: Final = 1  # the API requires a duration above 0; client-go writes this one


@dataclass(frozen=True, slots=True)
class LeaseCandidate:
    """A replica that wants to lead, and the duration in whole seconds that it writes."""

    identity: str
    duration: int


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """What one replica has read of the lease.

    `record` is the latest, None if there is no Lease. `held` is the last one that named a holder,
    unless it was released since. `held_at` is when it was first read like this, in seconds of a
    monotonic clock.
    """

    record: LeaseRecord | None = None
    held: LeaseRecord | None = None
    held_at: float = 0.0


class LeadershipReason(StrEnum):
    """Why a replica does not lead, or no longer."""

    HELD = "another replica holds the lease"
    GONE = "the lease was deleted, but its holder may not know yet"
    TAKEN = "another replica took the lease"
    DELETED = "the lease was deleted"
    EXPIRED = "the lease was not renewed before the renew deadline"
    FAILED = "the leader's work failed"
    RETURNED = "the leader's work ended by itself"
    BACKING_OFF = "the leader's work failed on this replica, another one may lead first"
    STOPPING = "this replica is stopping"


@dataclass(frozen=True, slots=True)
class Create:
    """Create the Lease with this record."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Acquire:
    """Replace the Lease of this resourceVersion, which nobody holds any more."""

    record: LeaseRecord
    resource_version: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Replace the Lease of this resourceVersion, which this replica holds."""

    record: LeaseRecord
    resource_version: str


@dataclass(frozen=True, slots=True)
class Release:
    """Replace the Lease of this resourceVersion by one without a holder."""

    record: LeaseRecord
    resource_version: str


@dataclass(frozen=True, slots=True)
class StandBy:
    """Another replica may lead; unless it renews, until this time of the monotonic clock."""

    reason: LeadershipReason
    holder: str
    until: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """The term is over."""

    reason: LeadershipReason


def observe_lease(before: ObservedLease, record: LeaseRecord | None, now: float) -> ObservedLease:
    """Add what was just read; the holder's time starts again only if its record changed.

    `now` must not be earlier than the answer. A change of labels does not count as a renewal.
    """
    if record is None:
        return replace(before, record=None)
    if not record.holder:
        return ObservedLease(record)
    if record == before.held:
        return replace(before, record=record)
    return ObservedLease(record, record, now)


def expires_at(candidate: LeaseCandidate, observed: ObservedLease) -> float:
    """When the last known holder's lease expires, unless it renews."""
    if observed.held is None:
        return observed.held_at
    duration = observed.held.duration or candidate.duration
    return observed.held_at + min(duration, MAX_LEASE_SECONDS)


def describe_silent_holder(candidate: LeaseCandidate, observed: ObservedLease, now: float) -> str:
    """Say who holds the lease without renewing it; empty if nobody does.

    A replica that died is followed when its lease expires, at most its lease duration later. So a
    holder that is silent for longer than this is no replica with the candidate's settings.
    """
    held = observed.held
    if held is None or now < observed.held_at + candidate.duration * _LONG_SILENCE:
        return ""
    holder = quoted(held.holder, _MAX_HOLDER_CHARACTERS)
    return (
        f"the Lease is held by {holder} for {held.duration} s, "
        f"and was not renewed for more than {candidate.duration} s: no Job is started; unless a "
        "replica has this name, delete the Lease and restart the replicas"
    )


def acquire_or_wait(
    candidate: LeaseCandidate,
    observed: ObservedLease,
    acquired: LeaseRecord | None,
    *,
    now: float,
    wall: datetime,
) -> Create | Acquire | StandBy:
    """The next step of a replica that does not lead.

    `acquired` is the record with which this process last took the lease, or tried to without an
    answer. Nobody has to wait for that one: its work has ended, or never began.
    """
    held = observed.held
    if held is not None and (acquired is None or not held.same_term(acquired)):
        until = expires_at(candidate, observed)
        if now < until:
            exists = observed.record is not None
            reason = LeadershipReason.HELD if exists else LeadershipReason.GONE
            return StandBy(reason, held.holder, until)
    last = observed.record or held
    record = LeaseRecord(
        holder=candidate.identity,
        duration=candidate.duration,
        acquired_at=wall,
        renewed_at=wall,
        transitions=(last.transitions + 1) % _TRANSITIONS if last is not None else 0,
    )
    if observed.record is None:
        return Create(record)
    return Acquire(record, observed.record.resource_version)


def renew_or_step_down(
    record: LeaseRecord | None, acquired: LeaseRecord, *, wall: datetime
) -> Renew | StepDown:
    """The next step of a leader whose term began with `acquired`; `record` was last read."""
    if record is None:
        return StepDown(LeadershipReason.DELETED)
    if not record.same_term(acquired):
        return StepDown(LeadershipReason.TAKEN)
    renewed_at = _different_from(record.renewed_at, wall)
    renewed = replace(record, duration=acquired.duration, renewed_at=renewed_at)
    return Renew(renewed, record.resource_version)


def release(
    record: LeaseRecord | None, acquired: LeaseRecord, *, wall: datetime, settled: bool = False
) -> Release | None:
    """How to release the lease; None if another replica holds it.

    `settled` tells the next leader that no admission of anybody is in flight.
    """
    if record is None or not record.same_term(acquired):
        return None
    free = replace(
        record,
        holder="",
        duration=_RELEASED_SECONDS,
        acquired_at=wall,
        renewed_at=wall,
        settled=settled,
    )
    return Release(free, record.resource_version)


def _different_from(before: datetime | None, wall: datetime) -> datetime:
    """The time of a renewal, different from that of the last one.

    The API server ignores a write that changes nothing, and other replicas would not see a
    renewal. If the wall clock did not advance, they would take over a lease that was renewed.
    """
    if before is not None and timedelta(0) <= before - wall < timedelta(seconds=1):
        return before + timedelta(microseconds=1)
    return wall

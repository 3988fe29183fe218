"""Which waiting Jobs may start now, which never will, and why: the heart of the controller.

A pure function over every Job of ours, so that a new leader, a page and a test come to the same
answer. It changes nothing; `workers.admit` carries it out.

A Job that waits keeps waiting until the clock or another Job changes something; `until` tells
when the clock will.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.alert import Status, incident_digest
from openfero_gitops.domain.operario import Mode, OnResolve
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import WOBBLE, Phase, same_incident

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import JobKey, Remediation

_HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Admit:
    """Start it."""

    reason: Reason = Reason.ADMITTED


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; `until` where the clock alone may change that."""

    reason: Reason
    until: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Never; final for the occurrence."""

    reason: Reason
    message: str = ""


Decision = Admit | Wait | Refuse


def decide(
    remediations: Iterable[Remediation],
    envelope: Envelope | None,
    *,
    pause: Pause | None,
    now: datetime,
    doubtful: Collection[str] = frozenset(),
) -> list[tuple[Remediation, Decision]]:
    """Decide on every waiting remediation, in the order in which they would be admitted.

    Refusals come first and by age, whatever the priority: a Job that is refused now must not
    have another refused that stands behind it. Those of firing alerts come before those of
    resolved ones, which depend on them. An `envelope` of None means that no catalog is in force:
    nothing starts. `doubtful` are the uids of Jobs that may not have started after all: they are
    given as running, which is right for limits, and nothing that is final may rest on it.
    """
    board = _Board(now, doubtful)
    waiting: list[Remediation] = []
    for remediation in sorted(remediations, key=lambda r: r.order):
        board.place(remediation)
        if remediation.waiting and not remediation.deleting:
            waiting.append(remediation)
    refusals: dict[JobKey, Refuse] = {}
    for remediation in sorted(waiting, key=lambda r: r.status is Status.RESOLVED):
        if (refusal := _refusal(remediation, board, envelope)) is not None:
            refusals[remediation.key] = refusal
            board.refuse(remediation, refusal.reason)
    decided: list[tuple[Remediation, Decision]] = []
    for remediation in sorted(waiting, key=lambda r: -r.options.priority):
        decision: Decision = (
            refusals.get(remediation.key)
            or _duplicate(remediation, board)  # of one that this pass admitted
            or _hold(remediation, board, envelope, pause)
            or Admit()
        )
        if isinstance(decision, Admit):
            board.admit(remediation)
        decided.append((remediation, decision))
    return decided


def next_look(decided: Sequence[tuple[Remediation, Decision]]) -> datetime | None:
    """When the clock alone may change a decision: the earliest end of a wait."""
    moments = []
    for remediation, decision in decided:
        if isinstance(decision, Wait):
            if decision.until is not None:
                moments.append(decision.until)
            if remediation.options.max_wait:
                moments.append(remediation.received_at + remediation.options.max_wait)
    return min(moments, default=None)


@dataclass(slots=True)
class _Board:
    """What exists, indexed by what decisions ask for; admissions of this pass are placed on it."""

    now: datetime
    doubtful: Collection[str] = frozenset()
    by_incident: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    started: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    by_occurrence: dict[str, list[Remediation]] = field(default_factory=lambda: defaultdict(list))
    last_end: dict[tuple[str, str], datetime] = field(default_factory=dict)
    busy_targets: dict[str, Remediation] = field(default_factory=dict)
    occupying: int = 0
    occupying_by_operario: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    last_minute: list[datetime] = field(default_factory=list)
    last_hour: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    admitted: set[JobKey] = field(default_factory=set)
    refused: dict[JobKey, str] = field(default_factory=dict)

    def place(self, remediation: Remediation) -> None:
        """Take note of a Job as it is; of one that is being deleted, that its Pods are there."""
        if remediation.occupying:
            self._occupy(remediation)
        if remediation.deleting:
            return
        self.by_incident[remediation.incident].append(remediation)
        self.by_occurrence[remediation.occurrence].append(remediation)
        if remediation.phase in (Phase.REFUSED, Phase.CANCELLED):
            self.refused[remediation.key] = remediation.reason
        if not remediation.started:
            return
        self.started[remediation.incident].append(remediation)
        if (end := remediation.finished_at) is not None:
            lane = remediation.operario, remediation.target
            self.last_end[lane] = max(end, self.last_end.get(lane, end))
        began = remediation.admitted_at or remediation.started_at
        if began and remediation.started_at and remediation.queue is None:
            # An admission may have been on its way for long: it counts from when it came.
            began = max(began, remediation.started_at)
        if began is None and remediation.occupying:
            began = self.now  # it was started a moment ago, or may have been
        if began is not None:
            self._count_start(remediation, began)

    def admit(self, remediation: Remediation) -> None:
        """Take note of an admission that is about to happen."""
        self.admitted.add(remediation.key)
        self.started[remediation.incident].append(remediation)
        self._occupy(remediation)
        self._count_start(remediation, self.now)

    def before(self, one: Remediation, starts_at: datetime) -> Iterator[Remediation]:
        """Of its incident what came before a Job, but not long before its start, and what started.

        (They were placed in order: a look at all of them for each would take long where an alert
        comes again and again with another start.)
        """
        jobs = self.by_incident[one.incident]
        first = bisect_left(jobs, starts_at, key=lambda other: other.received_at + WOBBLE)
        last = bisect_left(jobs, one.order, key=lambda other: other.order)
        yield from jobs[first:last]
        yield from self.started[one.incident]

    def refuse(self, remediation: Remediation, reason: Reason) -> None:
        """Take note of a refusal that is about to be written."""
        self.refused[remediation.key] = reason.value

    def _occupy(self, remediation: Remediation) -> None:
        self.busy_targets.setdefault(remediation.target, remediation)
        self.occupying += 1
        self.occupying_by_operario[remediation.operario] += 1

    def _count_start(self, remediation: Remediation, moment: datetime) -> None:
        if moment > self.now - _HOUR:
            self.last_hour[remediation.operario].append(moment)
        if moment > self.now - _MINUTE:
            self.last_minute.append(moment)


def _refusal(one: Remediation, board: _Board, envelope: Envelope | None) -> Refuse | None:
    """Why a Job must never start."""
    refusal = _duplicate(one, board) or (
        _refusal_of_firing(one) if one.status is Status.FIRING else _refusal_of_resolved(one, board)
    )
    if refusal is not None:
        return refusal
    if one.options.max_wait and board.now - one.received_at > one.options.max_wait:
        return Refuse(Reason.MAX_WAIT)
    if one.options.mode is Mode.DRY_RUN or (envelope and envelope.mode is Mode.DRY_RUN):
        return Refuse(Reason.DRY_RUN)
    return None


def _duplicate(one: Remediation, board: _Board) -> Refuse | None:
    """Whether another Job is there for the same occurrence, or for the same incident."""
    for other in board.by_occurrence[one.occurrence]:
        if other is not one and (_stands_before(other, one, board) or _settled(other, board)):
            return Refuse(Reason.SAME_OCCURRENCE, f"{other.key} is the Job of this occurrence")
    if one.starts_at is None:
        return None
    for other in board.before(one, one.starts_at):
        if (
            other is not one
            and other.attempt == one.attempt
            and same_incident(one, other)
            and _stands_before(other, one, board)
        ):
            return Refuse(Reason.SAME_INCIDENT, f"{other.key} heals, or healed, this incident")
    return None


def _settled(other: Remediation, board: _Board) -> bool:
    """Whether an occurrence was refused with `other`, for good.

    Not where `other` only gave way to a namesake, nor where it waited too long.
    """
    reason = board.refused.get(other.key, Reason.MAX_WAIT)
    return reason not in (Reason.SAME_OCCURRENCE, Reason.MAX_WAIT)


def _stands_before(other: Remediation, one: Remediation, board: _Board) -> bool:
    """Whether `other` has started, surely, or waits in front of `one`."""
    if other.uid in board.doubtful:
        return False
    if other.started or other.key in board.admitted:
        return True
    return other.waiting and other.order < one.order and other.key not in board.refused


def _refusal_of_firing(one: Remediation) -> Refuse | None:
    if one.resolved_at is not None and one.options.on_resolve is not OnResolve.KEEP:
        return Refuse(Reason.RESOLVED)
    return None


def _refusal_of_resolved(one: Remediation, board: _Board) -> Refuse | None:
    firing = _firing(one, board)
    if one.starts_at is not None and any(
        other.starts_at is not None
        and other.starts_at > one.starts_at
        and other.resolved_at is None
        # (A startsAt that wobbled is no new fire.)
        and board.refused.get(other.key) not in (Reason.SAME_INCIDENT, Reason.SAME_OCCURRENCE)
        for other in firing
    ):
        return Refuse(Reason.FIRING_AGAIN)
    if any(other.waiting or other.occupying for other in firing):
        return None  # whether there is something to undo is known when they have ended
    last_undone = max(
        (
            other.started_at
            for other in board.by_incident[one.incident]
            if other.phase is Phase.SUCCEEDED and other.started_at is not None
        ),
        default=None,
    )
    done = [other.started_at for other in firing if other.started and other.started_at is not None]
    if not done or (last_undone is not None and max(done) <= last_undone):
        return Refuse(Reason.NOTHING_TO_UNDO)
    return None


def _hold(
    one: Remediation, board: _Board, envelope: Envelope | None, pause: Pause | None
) -> Wait | None:
    """Why a Job must not start yet."""
    if envelope is None:
        return Wait(Reason.NO_CATALOG)
    if pause is not None:
        return Wait(Reason.PAUSED, message=pause.message)
    if one.phase is Phase.AWAITING_APPROVAL:
        return Wait(Reason.APPROVAL)
    return (
        _until_known(one, board)
        or _until_undoing(one, board)
        or _target(one, board)
        or _cooldown(one, board)
        or _limit(one, board, envelope)
    )


def _until_known(one: Remediation, board: _Board) -> Wait | None:
    """While it is not known whether another of its incident started, the rest of it waits."""
    for other in board.by_incident[one.incident] if board.doubtful else ():
        if other is not one and other.uid in board.doubtful:
            return Wait(Reason.TARGET_BUSY, message=f"{other.key} may have started")
    return None


def _until_undoing(one: Remediation, board: _Board) -> Wait | None:
    """A resolved alert's Job waits in case it fires again, and for the Job that it undoes."""
    if one.status is not Status.RESOLVED:
        return None
    ready = one.received_at + one.options.resolve_delay
    if board.now < ready:
        return Wait(Reason.RESOLVE_DELAY, ready)
    for other in _firing(one, board):
        if other.waiting or other.occupying:
            return Wait(Reason.FIRING_RUNS, message=f"{other.key} has not ended")
    return None


def _target(one: Remediation, board: _Board) -> Wait | None:
    busy = board.busy_targets.get(one.target)
    if busy is None:
        return None
    return Wait(Reason.TARGET_BUSY, message=f"{busy.key} works on the same target")


def _firing(one: Remediation, board: _Board) -> list[Remediation]:
    """The firing Jobs of a resolved alert's labels."""
    return board.by_incident.get(incident_digest(one.labels, Status.FIRING), [])


def _cooldown(one: Remediation, board: _Board) -> Wait | None:
    end = board.last_end.get((one.operario, one.target))
    if end is None or (until := end + one.options.cooldown) <= board.now:
        return None
    return Wait(Reason.COOLDOWN, until)


def _limit(one: Remediation, board: _Board, envelope: Envelope) -> Wait | None:
    options = one.options
    hour = board.last_hour[one.operario]
    if board.occupying_by_operario[one.operario] >= options.max_concurrent:
        return Wait(Reason.MAX_CONCURRENT)
    if len(hour) >= options.max_per_hour:
        return Wait(Reason.MAX_PER_HOUR, _room(hour, options.max_per_hour, board.now, _HOUR))
    if board.occupying >= envelope.limits.concurrent:
        return Wait(Reason.LIMIT_CONCURRENT)
    if len(board.last_minute) >= (limit := envelope.limits.per_minute):
        return Wait(Reason.LIMIT_PER_MINUTE, _room(board.last_minute, limit, board.now, _MINUTE))
    return None


def _room(starts: list[datetime], limit: int, now: datetime, window: timedelta) -> datetime:
    """When a full window has room for one more."""
    # (A limit is read from the Job, where somebody may have written one below 0.)
    return heapq.nlargest(limit, starts)[-1] + window if limit > 0 else now + window

"""Which Jobs are deleted, and why: a pure function over every Job of this controller.

Kubernetes deletes finished Jobs after their TTL, and no others. Ages count from the last delivery:
while an alert is repeated, its Jobs are kept. A Job is kept within `remember`, while it may have a
Pod, and if it lacks annotations that this controller always writes. One in a Kueue queue is kept
for at least seven times `remember` after it was passed to Kueue, was last started, or was stopped
by Kueue, which puts it back in the queue.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from openfero_gitops.domain.remediation import FINAL, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.remediation import Remediation

#: Jobs that wait for a person or for Kueue, or that somebody suspended, are kept this many times
#: `remember`.
_OPEN_FACTOR: Final = 7
#: Time that Kubernetes has to delete a finished Job after its TTL.
_TTL_GRACE: Final = timedelta(minutes=15)
_OPEN: Final = (Phase.WAITING, Phase.AWAITING_APPROVAL, Phase.HELD)


class Expiry(StrEnum):
    """Why a Job is deleted."""

    DECIDED = "it never started, and its alert did not come back within `remember`"
    ALERT_GONE = "it waits or is held, and its alert did not come back for seven times `remember`"
    STUCK_IN_QUEUE = "Kueue has not started it for seven times `remember`"
    HISTORY = "its operario has limits.history newer Jobs that ended"
    OVERDUE = "its TTL has passed, and Kubernetes has not deleted it"


class ExpiredJob(NamedTuple):
    """A Job to delete."""

    remediation: Remediation
    because: Expiry


def expired_jobs(
    remediations: Iterable[Remediation], envelope: Envelope, now: datetime
) -> list[ExpiredJob]:
    """List the Jobs to delete, the oldest last delivery first."""
    finished: dict[str, list[Remediation]] = defaultdict(list)
    expired: list[ExpiredJob] = []
    for remediation in remediations:
        # A Job without these was not made by this controller, whatever its labels say.
        if remediation.deleting or not remediation.occurrence or not remediation.operario:
            continue
        if remediation.finished:
            finished[remediation.operario].append(remediation)
        elif (because := _expiry_of_unfinished(remediation, envelope, now)) is not None:
            expired.append(ExpiredJob(remediation, because))
    for of_operario in finished.values():
        of_operario.sort(key=_last_activity, reverse=True)
        for position, remediation in enumerate(of_operario):
            last_activity = _last_activity(remediation)
            if last_activity + envelope.remember >= now:
                continue
            if position >= envelope.limits.history:
                expired.append(ExpiredJob(remediation, Expiry.HISTORY))
            elif last_activity + _ttl(remediation, envelope) + _TTL_GRACE < now:
                expired.append(ExpiredJob(remediation, Expiry.OVERDUE))
    expired.sort(key=lambda job: (job.remediation.delivered_at, job.remediation.order))
    return expired


def _expiry_of_unfinished(
    remediation: Remediation, envelope: Envelope, now: datetime
) -> Expiry | None:
    if not remediation.suspended or remediation.active:
        return None  # it has Pods, or will have
    age = now - remediation.delivered_at
    if remediation.phase in FINAL and age > envelope.remember:
        return Expiry.DECIDED
    if remediation.phase in _OPEN and age > envelope.remember * _OPEN_FACTOR:
        return Expiry.ALERT_GONE
    if remediation.phase is Phase.QUEUED:
        # If Kueue starts it in the meantime, the deletion fails: it tests the resourceVersion.
        moments = (
            remediation.delivered_at,
            remediation.admitted_at,
            remediation.started_at,
            remediation.suspended_at,
        )
        since = max(moment for moment in moments if moment is not None)
        if now - since > envelope.remember * _OPEN_FACTOR:
            return Expiry.STUCK_IN_QUEUE
    return None


def _last_activity(remediation: Remediation) -> datetime:
    return max(remediation.delivered_at, remediation.finished_at or remediation.delivered_at)


def _ttl(remediation: Remediation, envelope: Envelope) -> timedelta:
    """The TTL of a Job, at least `remember`; a Job may have none."""
    return max(timedelta(seconds=remediation.ttl_seconds or 0), envelope.remember)

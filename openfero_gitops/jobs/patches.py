"""Every change of a Job after its creation, as a JSON Patch.

Each patch first tests the fields on which its decision was based; the API server applies all of
it or nothing (if a test fails, it answers 422). A test of the resourceVersion would fail too often,
because the Job controller writes to a new Job at once. `test` with null succeeds if the member is
absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.remediation import Remediation

Patch = list[dict[str, Any]]

#: Stops a running Job: its deadline is exceeded at once, and its Pods are deleted.
_DEADLINE: Final = {"op": "add", "path": "/spec/activeDeadlineSeconds", "value": 0}


def stamp(job: Remediation, stamp_id: str) -> Patch:
    """Claim a waiting Job; patches that test the previous stamp fail from now on."""
    return [*_still_waiting(job), _set(keys.TERM, stamp_id)]


def admit(job: Remediation, stamp_id: str, by: str, now: datetime) -> Patch:
    """Start a waiting Job: unsuspend it, or add the label that makes Kueue start it.

    The patch fails if the alert was resolved, or an approval withdrawn, after the Job was read.
    """
    start = (
        {"op": "replace", "path": "/spec/suspend", "value": False}
        if job.queue is None
        else {
            "op": "add",
            "path": f"/metadata/labels/{keys.pointer(keys.KUEUE_QUEUE)}",
            "value": job.queue,
        }
    )
    preconditions = []
    if job.resolved_at is None:
        preconditions.append(_absent(keys.RESOLVED_AT))
    if job.options.approval or job.approved_by:
        approved = {"op": "test", "path": _path(keys.APPROVED_BY), "value": job.approved_by}
        preconditions.append(approved)
    return [
        *_still_waiting(job),
        *preconditions,
        _set(keys.TERM, stamp_id),
        _set(keys.ADMITTED_AT, format_time(now)),
        _set(keys.ADMITTED_BY, by),
        start,
    ]


def started_by_other(job: Remediation, now: datetime) -> Patch:
    """Record that a Job was started that no leader had admitted.

    Nothing else shows it once the Job is suspended again. The time is that of the start, if it is
    known.
    """
    return [
        _same(job),
        _absent(keys.ADMITTED_AT),
        _absent(keys.DECISION),
        _set(keys.ADMITTED_AT, format_time(job.started_at or now)),
        _set(keys.ADMITTED_BY, keys.SOMEBODY_ELSE),
    ]


def record_start(job: Remediation, moment: datetime) -> Patch:
    """Record the start of a Job that may be stopped and started again, and how often it was."""
    recorded = str(job.recorded_starts) if job.recorded_starts else None
    return [
        _same(job),
        {"op": "test", "path": _path(keys.START_COUNT), "value": recorded},
        _set(keys.START_COUNT, str(job.recorded_starts + 1)),
        _set(keys.STARTED_AT, format_time(moment)),
    ]


def refuse(job: Remediation, stamp_id: str, reason: Reason, message: str) -> Patch:
    """Refuse a waiting Job: it never starts."""
    return [
        *_still_waiting(job),
        _set(keys.TERM, stamp_id),
        _set(keys.DECISION, "refused"),
        _set(keys.REASON, reason.value),
        _set(keys.MESSAGE, message or reason.text),
    ]


def resolve(job: Remediation, moment: datetime) -> Patch:
    """Record that the alert of a firing Job was resolved; an earlier record is kept."""
    return [_same(job), _absent(keys.RESOLVED_AT), _set(keys.RESOLVED_AT, format_time(moment))]


def keep_alive(job: Remediation, now: datetime, ttl_seconds: int) -> Patch:
    """Extend the expiry of a Job whose alert was delivered again."""
    patch = [_same(job), _set(keys.LAST_DELIVERED_AT, format_time(now))]
    if job.finished:
        patch.append({"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": ttl_seconds})
    return patch


def still_firing(job: Remediation, moment: datetime) -> Patch:
    """Record that the alert was delivered as firing after the time in which it should have healed.

    An earlier record is kept.
    """
    return [
        _same(job),
        _absent(keys.STILL_FIRING_AT),
        _set(keys.STILL_FIRING_AT, format_time(moment)),
    ]


def settle(
    job: Remediation,
    effect: Effect,
    at: datetime,
    message: str,
    *,
    annotations: Mapping[str, str] | None = None,
) -> Patch:
    """Record the effect of a Job, unless what it depends on changed since it was read.

    A leader whose watch lags may not know the last news of the alert.

    Args:
        job: the Job as it was read.
        effect: what is recorded.
        at: since when the Job has it.
        message: why.
        annotations: those of the Job, which people may have written in another form; None means
            that they are as the controller writes them.
    """
    if annotations is None:
        annotations = _as_recorded(job)
    tested = (keys.EFFECT, keys.RESOLVED_AT, keys.STILL_FIRING_AT)
    return [
        _same(job),
        *({"op": "test", "path": _path(key), "value": annotations.get(key)} for key in tested),
        _set(keys.EFFECT, effect.value),
        _set(keys.EFFECT_AT, format_time(at)),
        _set(keys.EFFECT_MESSAGE, message),
    ]


def record_failure(job: Remediation, message: str) -> Patch:
    """Record why a Job failed, before its Pods are deleted."""
    return [_same(job), _absent(keys.MESSAGE), _set(keys.MESSAGE, message)]


def record_pod_waiting(job: Remediation, text: str) -> Patch:
    """Record why the Pod of a running Job waits."""
    return [_same(job), _set(keys.POD_WAITING, text)]


def clear_pod_waiting(job: Remediation) -> Patch:
    """Remove the record of why a Pod waited: it has started."""
    path = _path(keys.POD_WAITING)
    return [
        _same(job),
        {"op": "test", "path": path, "value": job.pod_waiting},
        {"op": "remove", "path": path},
    ]


def approve(job: Remediation, approver: str, reason: str = "") -> Patch:
    """Approve a Job: it starts as soon as its limits allow.

    The reason of an approval that was withdrawn is not kept.
    """
    patch = [*_undecided(job), _absent(keys.APPROVED_BY), _set(keys.APPROVED_BY, approver)]
    if reason:
        patch.append(_set(keys.APPROVAL_REASON, reason))
    elif job.approval_reason:
        patch.append({"op": "remove", "path": _path(keys.APPROVAL_REASON)})
    return patch


def refuse_by_hand(job: Remediation, user: str, reason: str = "") -> Patch:
    """Refuse a waiting Job for a user; a patch of the leader that would start it then fails."""
    return [
        *_undecided(job),
        _set(keys.DECISION, "refused"),
        _set(keys.REASON, Reason.REFUSED_BY_HUMAN.value),
        _set(keys.MESSAGE, _by("refused", user, reason)),
    ]


def cancel_by_hand(job: Remediation, user: str, reason: str = "") -> Patch:
    """Stop a running Job, or refuse a waiting job, for a user."""
    marks = _cancelled(Reason.CANCELLED_BY_HUMAN, _by("cancelled", user, reason))
    return [*_undecided(job), *marks] if job.waiting else [*_unfinished(job), *marks, _DEADLINE]


def cancel_resolved(job: Remediation) -> Patch:
    """Stop a running Job, or one in a Kueue queue, because its alert was resolved."""
    message = (
        "the alert was resolved, and on-resolve is cancel-running"
        if job.starts
        else "the alert was resolved before Kueue started the Job"
    )
    marks = _cancelled(Reason.RESOLVED, message)
    return [*_unfinished(job), *marks, _DEADLINE]


def _cancelled(reason: Reason, message: str) -> Patch:
    return [
        _set(keys.DECISION, "cancelled"),
        _set(keys.REASON, reason.value),
        _set(keys.MESSAGE, message),
    ]


def _by(done: str, user: str, reason: str) -> str:
    """Say who decided, and why; the chart's admission policy knows this wording."""
    return f"{done} by {user}: {reason}" if reason else f"{done} by {user}"


def _unfinished(job: Remediation) -> Patch:
    """Preconditions for stopping a started Job: it has not changed since it was read.

    That a Job has failed is only in its conditions, which a patch cannot test. So this job tests
    the resourceVersion.
    """
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": job.resource_version}
    return [_same(job), _absent(keys.DECISION), version]


def _undecided(job: Remediation) -> Patch:
    """Preconditions for the decision of a user, independent of the leader's term."""
    return [
        _same(job),
        {"op": "test", "path": "/spec/suspend", "value": True},
        _absent(keys.ADMITTED_AT),
        _absent(keys.DECISION),
    ]


def _still_waiting(job: Remediation) -> Patch:
    return [
        _same(job),
        {"op": "test", "path": "/spec/suspend", "value": True},
        {"op": "test", "path": _path(keys.TERM), "value": job.term},
        _absent(keys.ADMITTED_AT),
        _absent(keys.DECISION),
    ]


def _same(job: Remediation) -> dict[str, Any]:
    return {"op": "test", "path": "/metadata/uid", "value": job.uid}


def _absent(key: str) -> dict[str, Any]:
    return {"op": "test", "path": _path(key), "value": None}


def _as_recorded(job: Remediation) -> dict[str, str]:
    """The annotations on which an effect depends, as the controller writes them."""
    times = {keys.RESOLVED_AT: job.resolved_at, keys.STILL_FIRING_AT: job.still_firing_at}
    annotations = {key: format_time(moment) for key, moment in times.items() if moment is not None}
    if job.effect is not None:
        annotations[keys.EFFECT] = job.effect.value
    return annotations


def _set(key: str, value: str) -> dict[str, Any]:
    return {"op": "add", "path": _path(key), "value": value}


def _path(key: str) -> str:
    return f"/metadata/annotations/{keys.pointer(key)}"

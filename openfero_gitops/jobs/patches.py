"""Every change that we make to a Job after its creation, as a JSON Patch.

Each patch first tests what its decision rested on; the API server applies all of it or nothing
(a failed test answers 422). A resourceVersion would not do: the Job controller writes to a new
Job at once. `test` with null holds where the member is absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation

Patch = list[dict[str, Any]]

#: How a running Job is stopped: it fails of its deadline at once, and its Pods go.
_DEADLINE: Final = {"op": "add", "path": "/spec/activeDeadlineSeconds", "value": 0}


def stamp(one: Remediation, stamp_id: str) -> Patch:
    """Claim a waiting Job: whoever still acts on the stamp before fails from here on."""
    return [*_still_waiting(one), _set(keys.TERM, stamp_id)]


def admit(one: Remediation, stamp_id: str, by: str, now: datetime) -> Patch:
    """Start a waiting Job: unsuspend it, or hand it to Kueue by the label that was held back.

    A resolved alert, or an approval that was taken back, that came after the Job was read stops
    it.
    """
    start = (
        {"op": "replace", "path": "/spec/suspend", "value": False}
        if one.queue is None
        else {
            "op": "add",
            "path": f"/metadata/labels/{keys.pointer(keys.KUEUE_QUEUE)}",
            "value": one.queue,
        }
    )
    rested_on = []
    if one.resolved_at is None:
        rested_on.append(_absent(keys.RESOLVED_AT))
    if one.options.approval:
        approved = {"op": "test", "path": _path(keys.APPROVED_BY), "value": one.approved_by}
        rested_on.append(approved)
    return [
        *_still_waiting(one),
        *rested_on,
        _set(keys.TERM, stamp_id),
        _set(keys.ADMITTED_AT, format_time(now)),
        _set(keys.ADMITTED_BY, by),
        start,
    ]


def started_by_other(one: Remediation, now: datetime) -> Patch:
    """Write down that a Job runs, or ran, which no leader had admitted.

    Where it is suspended again at once, nothing else on it tells so; whether it is by now makes
    no difference. It counts from its start, as far as that is known.
    """
    return [
        _same(one),
        _absent(keys.ADMITTED_AT),
        _absent(keys.DECISION),
        _set(keys.ADMITTED_AT, format_time(one.started_at or now)),
        _set(keys.ADMITTED_BY, keys.SOMEBODY_ELSE),
    ]


def refuse(one: Remediation, stamp_id: str, reason: Reason, message: str) -> Patch:
    """Write down that a waiting Job never starts."""
    return [
        *_still_waiting(one),
        _set(keys.TERM, stamp_id),
        _set(keys.DECISION, "refused"),
        _set(keys.REASON, reason.value),
        _set(keys.MESSAGE, message or reason.text),
    ]


def resolve(one: Remediation, moment: datetime) -> Patch:
    """Record that the alert of a firing Job was resolved; the first record stays."""
    return [_same(one), _absent(keys.RESOLVED_AT), _set(keys.RESOLVED_AT, format_time(moment))]


def keep_alive(one: Remediation, now: datetime, ttl_seconds: int) -> Patch:
    """Remember a Job for longer: its alert was delivered again."""
    patch = [_same(one), _set(keys.LAST_DELIVERED_AT, format_time(now))]
    if one.finished:
        patch.append({"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": ttl_seconds})
    return patch


def explain(one: Remediation, message: str) -> Patch:
    """Keep the last words of a failed Job's container, which go with its Pod."""
    return [_same(one), _absent(keys.MESSAGE), _set(keys.MESSAGE, message)]


def approve(one: Remediation, who: str) -> Patch:
    """Let a Job that waits for a person be admitted when its limits allow."""
    return [*_undecided(one), _absent(keys.APPROVED_BY), _set(keys.APPROVED_BY, who)]


def refuse_by_hand(one: Remediation, who: str) -> Patch:
    """Let a waiting Job never start; the leader's own patch then fails its tests."""
    return [
        *_undecided(one),
        _set(keys.DECISION, "refused"),
        _set(keys.REASON, Reason.REFUSED_BY_HUMAN.value),
        _set(keys.MESSAGE, f"refused by {who}"),
    ]


def cancel_by_hand(one: Remediation, who: str) -> Patch:
    """Stop a Job that runs, or keep a waiting one from starting; it is not forgotten."""
    marks = _cancelled(Reason.CANCELLED_BY_HUMAN, f"cancelled by {who}")
    return [*_undecided(one), *marks] if one.waiting else [*_unfinished(one), *marks, _DEADLINE]


def cancel_resolved(one: Remediation) -> Patch:
    """Stop a Job that runs for an alert that is resolved."""
    marks = _cancelled(Reason.RESOLVED, "the alert was resolved: on-resolve is cancel-running")
    return [*_unfinished(one), *marks, _DEADLINE]


def _cancelled(reason: Reason, message: str) -> Patch:
    return [
        _set(keys.DECISION, "cancelled"),
        _set(keys.REASON, reason.value),
        _set(keys.MESSAGE, message),
    ]


def _unfinished(one: Remediation) -> Patch:
    """What must hold for a started Job to be stopped: that it is as it was when it was read.

    One that has ended in the meantime stays what it became; of a failed one nothing but its
    conditions tells, which no test of a patch can look into.
    """
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": one.resource_version}
    return [_same(one), _absent(keys.DECISION), version]


def _undecided(one: Remediation) -> Patch:
    """What must still hold for a person's word to count, whoever leads."""
    return [
        _same(one),
        {"op": "test", "path": "/spec/suspend", "value": True},
        _absent(keys.ADMITTED_AT),
        _absent(keys.DECISION),
    ]


def _still_waiting(one: Remediation) -> Patch:
    return [
        _same(one),
        {"op": "test", "path": "/spec/suspend", "value": True},
        {"op": "test", "path": _path(keys.TERM), "value": one.term},
        _absent(keys.ADMITTED_AT),
        _absent(keys.DECISION),
    ]


def _same(one: Remediation) -> dict[str, Any]:
    return {"op": "test", "path": "/metadata/uid", "value": one.uid}


def _absent(key: str) -> dict[str, Any]:
    return {"op": "test", "path": _path(key), "value": None}


def _set(key: str, value: str) -> dict[str, Any]:
    return {"op": "add", "path": _path(key), "value": value}


def _path(key: str) -> str:
    return f"/metadata/annotations/{keys.pointer(key)}"

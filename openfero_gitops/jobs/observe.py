"""Reads a Remediation from its Job as the API server returns it.

A remediation takes at most 25 KiB of memory, no matter who created the Job: texts are cut, and
texts that many Jobs share are held once. Where a patch tests a text that was cut, it fails.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from sys import intern
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import structs

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.labels import MAX_REPLICA_LABELS_CHARACTERS
from openfero_gitops.domain.remediation import Foreign, JobKey, Phase, Remediation
from openfero_gitops.domain.text import canonical_json, plural
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.jobs.foreign import RecordedAlert, recorded_alert, why_foreign
from openfero_gitops.jobs.options_annotation import read_options

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Selects the controller's Jobs; the label is set at creation and never changes.
SELECTOR: Final = f"{keys.MANAGED_BY}={keys.MANAGER}"
#: Characters of a text that is written by the controller, or by a person at its request.
_MAX_TEXT: Final = 1024
_MAX_MESSAGE: Final = 2048
_MAX_PATH: Final = 4096
#: What can be recorded: a pending effect is not.
_EFFECTS: Final = {effect.value: effect for effect in Effect if effect is not Effect.PENDING}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def observe(job: Mapping[str, Any]) -> Remediation | Foreign:
    """Read a Job that carries the controller's label, and check that the controller created it."""
    recorded = _recorded(job)
    remediation = _read(job, recorded)
    if why := why_foreign(job, remediation, recorded):
        return Foreign(remediation.key, remediation.uid, remediation.resource_version, why)
    if len(remediation.target) > _MAX_TEXT:
        return structs.replace(remediation, target=_digest_of(remediation.target))
    return remediation


def read_remediation(job: Mapping[str, Any]) -> Remediation:
    """Read a Job without checking who created it; a damaged annotation is not an error.

    It is treated as absent, except for those that prevent a start: `admitted-at` and `resolved-at`
    count even if they contain no time.
    """
    return _read(job, _recorded(job))


def find_contradiction(job: Mapping[str, Any]) -> str:
    """Why the controller cannot have created a Job, as a clause; empty if it can have."""
    observed = observe(job)
    return observed.why if isinstance(observed, Foreign) else ""


def _recorded(job: Mapping[str, Any]) -> RecordedAlert:
    return recorded_alert((job["metadata"].get("annotations") or {}).get(keys.ALERT, ""))


def _read(job: Mapping[str, Any], recorded: RecordedAlert) -> Remediation:
    metadata = job["metadata"]
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    job_labels: Mapping[str, str] = metadata.get("labels") or {}
    spec = job.get("spec") or {}
    status = job.get("status") or {}
    conditions = {
        condition["type"]: condition
        for condition in status.get("conditions") or ()
        if condition.get("status") == "True"
    }
    created = parse_time(metadata.get("creationTimestamp")) or _EPOCH
    received = parse_time(annotations.get(keys.RECEIVED_AT)) or created
    admitted = _mark(annotations, keys.ADMITTED_AT, received)
    started_at = parse_time(status.get("startTime"))
    ended = conditions.get("Complete") or conditions.get("Failed")
    suspended = spec.get("suspend") is True
    started = admitted is not None or started_at is not None or not suspended or _had_pods(status)
    options = read_options(annotations.get(keys.OPTIONS, ""))
    phase = _phase(
        decision=annotations.get(keys.DECISION),
        conditions=conditions,
        suspended=suspended,
        started=started,
        queued=admitted is not None and keys.KUEUE_QUEUE in job_labels,
        approval=options.approval and not annotations.get(keys.APPROVED_BY),
    )
    pod_waiting = _text(annotations, keys.POD_WAITING)
    reason = annotations.get(keys.REASON) or (ended or {}).get("reason", "")
    message = annotations.get(keys.MESSAGE) or (ended or {}).get("message", "")
    if phase is Phase.RUNNING and pod_waiting and not message:
        reason, _, message = pod_waiting.partition(": ")
    if keys.KUEUE_QUEUE in job_labels or keys.START_COUNT in annotations:
        starts = _starts(annotations, started_at, finished=ended is not None)
    else:
        # A person who suspended the Job may resume it, which will be another start.
        first = (started_at or admitted or created) if phase is Phase.HELD else None
        starts = _Starts(0, int(started), first)
    return Remediation(
        key=JobKey(metadata["namespace"], metadata["name"]),
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        phase=phase,
        reason=_cut(reason),
        message=_cut(message or _note_of_restart(phase, starts.total), _MAX_MESSAGE),
        operario=_text(annotations, keys.OPERARIUS) or job_labels.get(keys.OPERARIUS, ""),
        alertname=recorded.labels.get("alertname", ""),
        status=Status.RESOLVED
        if job_labels.get(keys.STATUS) == Status.RESOLVED.value
        else Status.FIRING,
        labels=recorded.labels,
        occurrence=job_labels.get(keys.OCCURRENCE, ""),
        incident="" if recorded.truncated else job_labels.get(keys.INCIDENT, ""),
        attempt=_integer(annotations.get(keys.ATTEMPT), 1),
        fingerprint=_text(annotations, keys.FINGERPRINT),
        starts_at=parse_time(annotations.get(keys.STARTS_AT)),
        received_at=received,
        delivered_at=parse_time(annotations.get(keys.LAST_DELIVERED_AT)) or received,
        resolved_at=_mark(annotations, keys.RESOLVED_AT, received),
        admitted_at=admitted,
        admitted_by=_text(annotations, keys.ADMITTED_BY),
        started_at=started_at or parse_time(annotations.get(keys.STARTED_AT)) or admitted,
        finished_at=parse_time(
            status.get("completionTime") or (ended or {}).get("lastTransitionTime")
        ),
        started=started,
        finished=ended is not None,
        has_message=keys.MESSAGE in annotations,
        deleting="deletionTimestamp" in metadata,
        suspended=suspended,
        active=_integer(status.get("active"), 0) + _integer(status.get("terminating"), 0),
        term=_text_or_none(annotations, keys.TERM),
        decision=_text_or_none(annotations, keys.DECISION),
        approved_by=_text_or_none(annotations, keys.APPROVED_BY),
        approval_reason=_text(annotations, keys.APPROVAL_REASON),
        # Kueue gives new Jobs its label if their namespace has a LocalQueue named `default`.
        queue=_text_or_none(annotations, keys.QUEUE) or _text_or_none(job_labels, keys.KUEUE_QUEUE),
        target=annotations.get(keys.TARGET, ""),
        options=options,
        ttl_seconds=spec.get("ttlSecondsAfterFinished"),
        repository=_text(annotations, keys.REPOSITORY),
        ref=_text(annotations, keys.REF),
        commit=_text(annotations, keys.COMMIT),
        path=_cut(annotations.get(keys.PATH, ""), _MAX_PATH),
        verified_signer=_text(annotations, keys.VERIFIED_SIGNER),
        replica_labels=recorded_replica_labels(annotations),
        starts=starts.total,
        recorded_starts=starts.recorded,
        unrecorded_start=starts.unrecorded,
        suspended_at=parse_time(conditions.get("Suspended", {}).get("lastTransitionTime")),
        pods_ready=0 < _integer(status.get("active"), 0) <= _integer(status.get("ready"), 0),
        pod_waiting=pod_waiting,
        spec_digest=_text(annotations, keys.SPEC_DIGEST),
        still_firing_at=_mark(annotations, keys.STILL_FIRING_AT, received),
        effect=_EFFECTS.get(annotations.get(keys.EFFECT, "")),
        effect_at=parse_time(annotations.get(keys.EFFECT_AT)),
        effect_message=_text(annotations, keys.EFFECT_MESSAGE),
    )


def recorded_replica_labels(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the replica labels that a Job records; none if the list is damaged.

    Without them the Job's identity does not follow from its alert, so that it counts as foreign.
    """
    text = annotations.get(keys.REPLICA_LABELS, "")
    if not text or len(text) > MAX_REPLICA_LABELS_CHARACTERS:
        return ()
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(map(intern, names))


def _text(annotations: Mapping[str, str], key: str) -> str:
    return _cut(annotations.get(key) or "")


def _text_or_none(annotations: Mapping[str, str], key: str) -> str | None:
    text = annotations.get(key)
    return None if text is None else _cut(text)


def _cut(text: str, max_characters: int = _MAX_TEXT) -> str:
    """Return the beginning of a text that other Jobs may have, too."""
    return intern(text if len(text) <= max_characters else text[:max_characters])


def _digest_of(target: str) -> str:
    """Return a short target that is equal for equal targets."""
    return canonical_json({"digest": hashlib.sha256(target.encode()).hexdigest()})


def _phase(
    *,
    decision: str | None,
    conditions: Mapping[str, Any],
    suspended: bool,
    started: bool,
    queued: bool,
    approval: bool,
) -> Phase:
    """Return the first phase whose condition holds."""
    states = (
        (decision == "cancelled", Phase.CANCELLED),
        (decision is not None, Phase.REFUSED),
        ("Complete" in conditions, Phase.SUCCEEDED),
        ("Failed" in conditions, Phase.FAILED),
        (suspended and queued, Phase.QUEUED),
        (suspended and started, Phase.HELD),
        (not suspended, Phase.RUNNING),
        (approval, Phase.AWAITING_APPROVAL),
    )
    return next((phase for holds, phase in states if holds), Phase.WAITING)


class _Starts(NamedTuple):
    """How many starts are recorded on a Job, how many there were, and one that must be recorded."""

    recorded: int
    total: int
    unrecorded: datetime | None


def _starts(
    annotations: Mapping[str, str], started_at: datetime | None, *, finished: bool
) -> _Starts:
    """Count the starts of a Job that may be stopped and started again.

    The first start must be recorded, too, as that alone shows later that a start is another one;
    but not if the Job has ended before.
    """
    recorded = max(_integer(annotations.get(keys.START_COUNT), 0), 0)
    if started_at is None or started_at == parse_time(annotations.get(keys.STARTED_AT)):
        return _Starts(recorded, recorded, None)
    is_only_start = finished and not recorded
    return _Starts(recorded, recorded + 1, None if is_only_start else started_at)


def _note_of_restart(phase: Phase, starts: int) -> str:
    """What a person must know about a Job that was stopped; else empty."""
    if phase is Phase.QUEUED and starts:
        return (
            f"Kueue stopped the Job after {plural(starts, 'start')}; its commands run again when "
            "Kueue starts it again"
        )
    if phase is Phase.RUNNING and starts > 1:
        return f"the Job was stopped and started again; it has been started {starts} times"
    return ""


def _mark(annotations: Mapping[str, str], key: str, default: datetime) -> datetime | None:
    """Return the time of an annotation; `default` if it contains no time, None if it is absent."""
    if key not in annotations:
        return None
    return parse_time(annotations[key]) or default


def _had_pods(status: Mapping[str, Any]) -> bool:
    """Whether the Job ever had Pods; also true after it was suspended again."""
    return any(status.get(kind) for kind in ("active", "terminating", "succeeded", "failed"))


def _integer(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default

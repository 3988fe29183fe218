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

import msgspec
from msgspec import Raw, structs

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.labels import MAX_REPLICA_LABELS_CHARACTERS
from openfero_gitops.domain.remediation import Foreign, JobKey, Phase, RecordedMarks, Remediation
from openfero_gitops.domain.text import canonical_json, plural
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.jobs.foreign import RecordedAlert, recorded_alert, why_foreign
from openfero_gitops.jobs.options_annotation import read_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Selects the controller's Jobs; the label is set at creation and never changes.
SELECTOR: Final = f"{keys.MANAGED_BY}={keys.MANAGER}"
#: Characters of a text that is written by the controller, or by a person at its request.
_MAX_TEXT: Final = 1024
_MAX_MESSAGE: Final = 2048
_MAX_PATH: Final = 4096
#: What can be recorded: a pending effect is not.
_EFFECTS: Final = {effect.value: effect for effect in Effect if effect is not Effect.PENDING}
_TEXTS: Final = msgspec.json.Decoder(dict[str, str] | None)
_NULL: Final = Raw(b"null")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def observe(
    job: Mapping[str, Any], current: Callable[[JobKey], Remediation | None] | None = None
) -> Remediation | Foreign:
    """Read a Job that carries the controller's label, and check that the controller created it.

    Its labels and annotations may be JSON. Most versions of a Job change neither, so that all that
    follows from them is taken from the known version, which `current` returns. The result is the
    same, except for what `current` has made of the incident.
    """
    metadata = job["metadata"]
    labels, annotations = metadata.get("labels", _NULL), metadata.get("annotations", _NULL)
    digest = b""
    if isinstance(labels, Raw) and isinstance(annotations, Raw):
        digest = hashlib.sha256(b"".join((labels, annotations))).digest()
        before = current(JobKey(metadata["namespace"], metadata["name"])) if current else None
        if before is not None and before.uid == metadata["uid"] and before.record.digest == digest:
            return structs.replace(before, **_state(job, before.record))
        texts = {"labels": _TEXTS.decode(labels), "annotations": _TEXTS.decode(annotations)}
        job = {**job, "metadata": {**metadata, **texts}}
    recorded = _recorded(job)
    remediation = _read(job, recorded, digest)
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
    return _read(job, _recorded(job), b"")


def find_contradiction(job: Mapping[str, Any]) -> str:
    """Why the controller cannot have created a Job, as a clause; empty if it can have."""
    observed = observe(job)
    return observed.why if isinstance(observed, Foreign) else ""


def _recorded(job: Mapping[str, Any]) -> RecordedAlert:
    return recorded_alert((job["metadata"].get("annotations") or {}).get(keys.ALERT, ""))


def _read(job: Mapping[str, Any], recorded: RecordedAlert, digest: bytes) -> Remediation:
    metadata = job["metadata"]
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    job_labels: Mapping[str, str] = metadata.get("labels") or {}
    created = parse_time(metadata.get("creationTimestamp")) or _EPOCH
    received = parse_time(annotations.get(keys.RECEIVED_AT)) or created
    options = read_options(annotations.get(keys.OPTIONS, ""))
    in_kueue = keys.KUEUE_QUEUE in job_labels
    record = RecordedMarks(
        # Whether a Job with a truncated alert is foreign also depends on its state.
        digest=b"" if recorded.truncated else digest,
        created_at=created,
        admitted_at=_mark(annotations, keys.ADMITTED_AT, received),
        decision=_text_or_none(annotations, keys.DECISION),
        reason=_text(annotations, keys.REASON),
        message=_cut(annotations.get(keys.MESSAGE) or "", _MAX_MESSAGE),
        pod_waiting=_text(annotations, keys.POD_WAITING),
        needs_approval=options.approval and not annotations.get(keys.APPROVED_BY),
        in_kueue=in_kueue,
        counts_starts=in_kueue or keys.START_COUNT in annotations,
        start_count=max(_integer(annotations.get(keys.START_COUNT), 0), 0),
        started_at=parse_time(annotations.get(keys.STARTED_AT)),
    )
    return Remediation(
        key=JobKey(intern(metadata["namespace"]), metadata["name"]),
        uid=metadata.get("uid", ""),
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
        admitted_at=record.admitted_at,
        admitted_by=_text(annotations, keys.ADMITTED_BY),
        has_message=keys.MESSAGE in annotations,
        term=_text_or_none(annotations, keys.TERM),
        decision=record.decision,
        approved_by=_text_or_none(annotations, keys.APPROVED_BY),
        approval_reason=_text(annotations, keys.APPROVAL_REASON),
        # Kueue gives new Jobs its label if their namespace has a LocalQueue named `default`.
        queue=_text_or_none(annotations, keys.QUEUE) or _text_or_none(job_labels, keys.KUEUE_QUEUE),
        target=annotations.get(keys.TARGET, ""),
        options=options,
        repository=_text(annotations, keys.REPOSITORY),
        ref=_text(annotations, keys.REF),
        commit=_text(annotations, keys.COMMIT),
        path=_cut(annotations.get(keys.PATH, ""), _MAX_PATH),
        verified_signer=_text(annotations, keys.VERIFIED_SIGNER),
        replica_labels=recorded_replica_labels(annotations),
        pod_waiting=record.pod_waiting,
        spec_digest=_text(annotations, keys.SPEC_DIGEST),
        still_firing_at=_mark(annotations, keys.STILL_FIRING_AT, received),
        effect=_EFFECTS.get(annotations.get(keys.EFFECT, "")),
        effect_at=parse_time(annotations.get(keys.EFFECT_AT)),
        effect_message=_text(annotations, keys.EFFECT_MESSAGE),
        traceparent=_text(annotations, keys.TRACEPARENT),
        record=record,
        **_state(job, record),
    )


def _state(job: Mapping[str, Any], record: RecordedMarks) -> dict[str, Any]:
    """Return the fields of a remediation that depend on the Job's version, spec or status."""
    metadata = job["metadata"]
    spec = job.get("spec") or {}
    status = job.get("status") or {}
    conditions = {
        condition["type"]: condition
        for condition in status.get("conditions") or ()
        if condition.get("status") == "True"
    }
    admitted = record.admitted_at
    started_at = parse_time(status.get("startTime"))
    ended = conditions.get("Complete") or conditions.get("Failed")
    suspended = spec.get("suspend") is True
    started = admitted is not None or started_at is not None or not suspended or _had_pods(status)
    phase = _phase(record, conditions, suspended=suspended, started=started)
    reason = record.reason or (ended or {}).get("reason", "")
    message = record.message or (ended or {}).get("message", "")
    if phase is Phase.RUNNING and record.pod_waiting and not message:
        reason, _, message = record.pod_waiting.partition(": ")
    if record.counts_starts:
        starts = _starts(record, started_at, finished=ended is not None)
    else:
        # A person who suspended the Job may resume it, which will be another start.
        first = (started_at or admitted or record.created_at) if phase is Phase.HELD else None
        starts = _Starts(0, int(started), first)
    active = _integer(status.get("active"), 0)
    return {
        "resource_version": metadata.get("resourceVersion", ""),
        "phase": phase,
        "reason": _cut(reason),
        "message": _cut(message or _note_of_restart(phase, starts.total), _MAX_MESSAGE),
        "started_at": started_at or record.started_at or admitted,
        "finished_at": parse_time(
            status.get("completionTime") or (ended or {}).get("lastTransitionTime")
        ),
        "started": started,
        "finished": ended is not None,
        "deleting": "deletionTimestamp" in metadata,
        "suspended": suspended,
        "active": active + _integer(status.get("terminating"), 0),
        "ttl_seconds": spec.get("ttlSecondsAfterFinished"),
        "starts": starts.total,
        "recorded_starts": starts.recorded,
        "unrecorded_start": starts.unrecorded,
        "suspended_at": parse_time(conditions.get("Suspended", {}).get("lastTransitionTime")),
        "pods_ready": 0 < active <= _integer(status.get("ready"), 0),
    }


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
    record: RecordedMarks, conditions: Mapping[str, Any], *, suspended: bool, started: bool
) -> Phase:
    """Return the first phase whose condition holds."""
    queued = record.admitted_at is not None and record.in_kueue
    states = (
        (record.decision == "cancelled", Phase.CANCELLED),
        (record.decision is not None, Phase.REFUSED),
        ("Complete" in conditions, Phase.SUCCEEDED),
        ("Failed" in conditions, Phase.FAILED),
        (suspended and queued, Phase.QUEUED),
        (suspended and started, Phase.HELD),
        (not suspended, Phase.RUNNING),
        (record.needs_approval, Phase.AWAITING_APPROVAL),
    )
    for holds, phase in states:
        if holds:
            return phase
    return Phase.WAITING


class _Starts(NamedTuple):
    """How many starts are recorded on a Job, how many there were, and one that must be recorded."""

    recorded: int
    total: int
    unrecorded: datetime | None


def _starts(record: RecordedMarks, started_at: datetime | None, *, finished: bool) -> _Starts:
    """Count the starts of a Job that may be stopped and started again.

    The first start must be recorded, too, as that alone shows later that a start is another one;
    but not if the Job has ended before.
    """
    recorded = record.start_count
    if started_at is None or started_at == record.started_at:
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

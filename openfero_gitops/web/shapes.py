"""Converts values to the JSON of the API, which is a public contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.operario import OPTIONS
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.answer import Item
    from openfero_gitops.domain.catalog import Revision
    from openfero_gitops.domain.health import About
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.domain.sync import ReplicaLag, SyncRecord, SyncStatus
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.effects.stats import CommitStats, RunStats, StatsReport


def item(value: Item) -> dict[str, Any]:
    """Convert one alert of the answer to a delivery."""
    return {
        "alertname": value.alert.name,
        "status": value.alert.status.value if value.alert.status else None,
        "fingerprint": value.alert.fingerprint,
        "outcome": value.outcome.value,
        "operario": value.operario or None,
        "namespace": value.job.namespace if value.job else None,
        "job": value.job.name if value.job else None,
        "reason": value.reason.value if value.reason else None,
        "message": value.message or None,
    }


def remediation(
    value: Remediation,
    decision: Decision | None = None,
    *,
    effect: Assessment | None,
    verified: bool | None = None,
) -> dict[str, Any]:
    """Convert a remediation; the reason of a waiting one is that of the current decision.

    `verified` says whether the cluster verified the approver's name; None if unknown.
    """
    reason, message = value.reason, value.message
    if decision is not None and value.waiting:
        reason = decision.reason.value
        message = getattr(decision, "message", "") or decision.reason.text
    return {
        "job": value.key.name,
        "namespace": value.key.namespace,
        "phase": value.phase.value,
        "reason": reason or None,
        "message": message or None,
        "operario": value.operario,
        "alert": value.alertname,
        "status": value.status.value,
        "fingerprint": value.fingerprint or None,
        "startsAt": _time(value.starts_at),
        "receivedAt": _time(value.received_at),
        "admittedAt": _time(value.admitted_at),
        "finishedAt": _time(value.finished_at),
        "resolvedAt": _time(value.resolved_at),
        "effect": effect.effect.value if effect else None,
        "effectAt": _time(effect.at) if effect else None,
        "effectMessage": effect.message if effect else None,
        "attempt": value.attempt,
        "starts": value.starts,
        "approvedBy": value.approved_by or None,
        "approvalVerified": verified if value.approved_by else None,
        "approvalReason": value.approval_reason or None,
        "repository": value.repository,
        "ref": value.ref,
        "commit": value.commit,
        "path": value.path,
        "verifiedSigner": value.verified_signer or None,
        "labels": dict(value.labels),
    }


def operario(value: Operario) -> dict[str, Any]:
    """Convert an operario of the active catalog, with its commit."""
    return {
        "name": value.name,
        "alert": value.alertname,
        "status": value.status.value,
        "form": value.form.value,
        "namespace": value.namespace,
        "path": value.origin.path,
        "commit": value.origin.commit,
        "blob": value.origin.blob,
        "author": value.origin.commit_author or None,
        "time": value.origin.commit_time or None,
        "verifiedSigner": value.origin.verified_signer or None,
        "stale": value.origin.stale,
        "specDigest": value.spec_digest,
        "options": {option.member: option.to_api(option.of(value.options)) for option in OPTIONS},
    }


def stats_report(value: StatsReport) -> dict[str, Any]:
    """Convert the statistics of operarios by commit, as `openfero-gitops stats` prints them."""
    return {
        "since": _time(value.oldest),
        "items": [
            {"operario": commit.operario, **_commit_stats(commit)} for commit in value.commits
        ],
    }


def operario_stats(name: str, value: StatsReport) -> dict[str, Any]:
    """Convert the statistics of one operario."""
    return {
        "operario": name,
        "since": _time(value.oldest),
        "total": _run_stats(value.total) if value.total else None,
        "commits": [_commit_stats(commit) for commit in value.commits],
    }


def _commit_stats(value: CommitStats) -> dict[str, Any]:
    """Convert the statistics of an operario's Jobs from one commit."""
    return {
        "commit": value.commit,
        "specDigest": value.spec_digest or None,
        **_run_stats(value.stats),
    }


def _run_stats(value: RunStats) -> dict[str, Any]:
    """Convert statistics; rates are from 0 to 1, and medians in seconds."""
    effects, dry_runs = value.effects, value.dry_runs
    return {
        "runs": value.runs,
        "succeeded": value.succeeded,
        "failed": value.failed,
        "healed": effects.healed,
        "notHealed": effects.not_healed,
        "unknown": effects.unknown,
        "pending": effects.pending,
        "healRate": None if effects.heal_rate is None else round(effects.heal_rate, 4),
        "medianSecondsToHeal": _in_seconds(effects.median_to_heal),
        "dryRuns": {
            "wouldHaveRun": dry_runs.total,
            "resolvedWithoutUs": dry_runs.healed,
            "notResolved": dry_runs.not_healed,
            "unknown": dry_runs.unknown,
            "pending": dry_runs.pending,
            "medianSecondsToResolve": _in_seconds(dry_runs.median_to_heal),
        },
        "firstReceivedAt": _time(value.first_received_at),
        "lastReceivedAt": _time(value.last_received_at),
    }


def _in_seconds(value: timedelta | None) -> float | None:
    return None if value is None else round(value.total_seconds(), 3)


def revision(value: Revision | None) -> dict[str, Any] | None:
    """Convert a commit of the repository."""
    if value is None:
        return None
    return {
        "repository": value.repository,
        "ref": value.ref,
        "commit": value.commit,
        "author": value.author or None,
        "time": value.time or None,
        "verifiedSigner": value.verified_signer or None,
    }


def sync(value: SyncStatus, lag: ReplicaLag | None = None) -> dict[str, Any]:
    """Convert the status of the last sync, and how this replica compares with the leader."""
    refused = value.refused
    return {
        "revision": revision(value.revision),
        "origin": value.origin or None,
        "inForceSince": _time(value.active_since),
        "lastAttempt": _time(value.last_attempt),
        "lastSuccess": _time(value.last_success),
        "seconds": round(value.seconds, 3),
        "error": value.error,
        "failingSince": _time(value.failing_since),
        "refused": {"commit": refused.commit, "reason": refused.reason, "time": refused.time}
        if refused
        else None,
        "unusedMirror": value.unused_mirror or None,
        "operarios": value.operarios,
        "problems": value.problems,
        "steps": _seconds(value.steps),
        "besideLeader": {
            "step": lag.state.value,
            "leader": lag.leader,
            "since": _time(lag.since),
        }
        if lag
        else None,
        "story": [_sync_record(record) for record in value.history],
    }


def _sync_record(value: SyncRecord) -> dict[str, Any]:
    """Convert a sync that changed the catalog, or consecutive syncs that failed with one error."""
    changes = value.changes
    return {
        "at": _time(value.at),
        "until": _time(value.until),
        "times": value.times,
        "from": value.before or None,
        "to": value.after or None,
        "origin": value.origin,
        "added": _names(changes.added),
        "changed": _names(changes.changed),
        "removed": _names(changes.removed),
        "quarantined": _names(changes.quarantined),
        "envelope": changes.envelope,
        "steps": _seconds(value.steps),
        "error": value.error,
    }


def _names(names: Sequence[str]) -> dict[str, Any]:
    """Return the number of names, and the first of them."""
    return {"count": len(names), "names": list(names[:_MAX_NAMES])}


def _seconds(steps: Mapping[str, float]) -> dict[str, float]:
    return {step: round(seconds, 3) for step, seconds in steps.items()}


def about(value: About, leadership: Leadership) -> dict[str, Any]:
    """Convert version, name and namespaces of a replica, and which replica leads."""
    return {
        "name": "openfero-gitops",
        "version": value.version,
        "identity": value.identity,
        "namespace": value.namespace,
        "jobsNamespace": value.jobs_namespace,
        "allowedNamespaces": list(value.allowed_namespaces),
        "cluster": value.cluster,
        "leading": leadership.leader,
        "leader": leadership.holder or None,
        "term": leadership.term or None,
    }


def pause(value: Pause | None) -> dict[str, Any] | None:
    """Convert a pause of admission; None if there is none."""
    if value is None:
        return None
    return {
        "cause": value.cause.value,
        "by": value.by or None,
        "since": _time(value.since),
        "until": _time(value.until),
        "reason": value.reason or None,
        "message": value.message,
    }


def openfero_job(value: Operario, namespace: str, runs: Sequence[Remediation]) -> dict[str, Any]:
    """Convert an operario to an item of OpenFero's `/api/jobs`; `runs` are its started Jobs.

    The count covers Jobs that still exist, while OpenFero counts since the definition was created.
    """
    containers = value.job.get("spec", {}).get("template", {}).get("spec", {}).get("containers")
    shape = {
        "configMapName": value.name,
        "jobName": value.alertname,
        "namespace": namespace,
        "image": containers[0].get("image", "unknown") if containers else "unknown",
        "executionCount": len(runs),
    }
    if runs:
        last = runs[-1]
        shape["lastExecutionTime"] = _time(last.started_at or last.received_at)
        shape["lastExecutedJobName"] = last.key.name
        shape["status"] = _OPENFERO_STATUS.get(last.phase, "Running")
    return shape


#: Names of changed operarios in one chapter.
_MAX_NAMES: Final = 100
#: OpenFero's status of a started Job, by phase.
_OPENFERO_STATUS: Final = {
    Phase.SUCCEEDED: "Successful",
    Phase.FAILED: "Failed",
    Phase.CANCELLED: "Failed",
    Phase.QUEUED: "Pending",
    Phase.HELD: "Pending",
}


def _time(value: datetime | None) -> str | None:
    return format_time(value) if value else None

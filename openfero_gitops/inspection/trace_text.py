"""A trace as text for a terminal, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.duration import format_age
from openfero_gitops.domain.operario import OPTIONS, changed_options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.domain.text import aligned, labels, printable
from openfero_gitops.domain.timestamp import format_seconds, format_time
from openfero_gitops.inspection.trace import exit_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from openfero_gitops.inspection.trace import ContainerState, Moment, PodState, Trace

_MAX_LINE_CHARACTERS: Final = 1000


def as_text(trace: Trace) -> str:
    """What is known about a remediation, and below it what happened when."""
    rows = [(head, printable(text, _MAX_LINE_CHARACTERS)) for head, text in _rows(trace)]
    return "\n".join([*aligned(rows), "", *_timeline(trace)])


def _rows(trace: Trace) -> Iterator[tuple[str, str]]:
    remediation = trace.remediation
    yield "Job", str(remediation.key)
    yield "Phase", _phase(trace)
    if trace.wait is not None and trace.wait.reason is Reason.NOT_HELPING:
        yield "", f"openfero-gitops approve {remediation.key}"
    assessment = trace.assessment
    if assessment is not None:
        yield "Effect", f"{assessment.effect}: {assessment.message}"
    yield from _alert_rows(trace)
    yield from _operario_rows(trace)
    if remediation.options.approval or remediation.approved_by:
        yield "Approval", _approval(trace)
    if remediation.queue:
        queued = f", for {format_age(trace.queued)} so far" if trace.queued is not None else ""
        yield "Kueue queue", f"{remediation.queue}{queued}"
    waited, ran = trace.waited, trace.ran
    if waited is not None:
        yield "Waited", format_age(waited)
    elif remediation.waiting:
        yield "Waited", f"{format_age(trace.at - remediation.received_at)} so far"
    if ran is not None:
        yield "Ran", format_age(ran)
    yield from _pod_rows(trace)


def _phase(trace: Trace) -> str:
    remediation = trace.remediation
    reason, message = _reason(trace)
    text = remediation.phase.value
    if remediation.phase is Phase.SUCCEEDED:
        return text  # its condition says the same in other words
    if message.startswith(reason):
        reason = ""
    details = ": ".join(filter(None, (reason, message)))
    return f"{text}: {details}" if details else text


def _reason(trace: Trace) -> tuple[str, str]:
    """Why a remediation is in its phase, and a message."""
    wait, remediation = trace.wait, trace.remediation
    if wait is None and remediation.phase is Phase.WAITING:
        return "", trace.instead_of_wait
    if wait is None:
        return remediation.reason, remediation.message
    message = wait.message or wait.reason.text
    # As in Events: the message of a pause has its end already; that of a breaker is only possible.
    if wait.until is not None and wait.reason not in (Reason.PAUSED, Reason.NOT_HELPING):
        message += f", until {format_seconds(wait.until)}"
    return wait.reason.value, message


def _alert_rows(trace: Trace) -> Iterator[tuple[str, str]]:
    remediation, alert = trace.remediation, trace.alert
    status = remediation.status.value
    yield "Alert", f"{remediation.alertname or 'without a name'} ({status})"
    rest = {name: text for name, text in remediation.labels.items() if name != "alertname"}
    if rest:
        yield "Labels", labels(rest)
    annotations = alert.get("annotations")
    for name, text in (annotations if isinstance(annotations, dict) else {}).items():
        yield "", f"{name}: {text}"
    if rule := alert.get("generatorURL"):
        yield "Rule", str(rule)
    if target := remediation.target_labels:
        yield "Target", labels(target)


def _operario_rows(trace: Trace) -> Iterator[tuple[str, str]]:
    remediation = trace.remediation
    priority = remediation.options.priority
    yield "Operario", f"{remediation.operario} (priority {priority})"
    options = ", ".join(f"{name}={text}" for name, text in changed_options(remediation.options))
    if options:
        yield "", f"options: {options}"
    yield "Commit", f"{remediation.commit}{_author(trace)}"
    yield "", f"{remediation.repository} {remediation.ref}, {remediation.path}"
    if command := git_show(remediation.commit, remediation.path):
        yield "", command
    signer = remediation.verified_signer
    yield "Signature", f"verified, by {signer}" if signer else "not verified"


def _author(trace: Trace) -> str:
    author, time = trace.annotation(keys.COMMIT_AUTHOR), trace.annotation(keys.COMMIT_TIME)
    return "".join(f", {text}" for text in (f"by {author}" if author else "", time[:10]) if text)


def _approval(trace: Trace) -> str:
    remediation = trace.remediation
    if not remediation.approved_by:
        if remediation.phase is Phase.AWAITING_APPROVAL:
            return f"required; run openfero-gitops approve {remediation.key}"
        return "required, but not given"
    notes = {
        True: " (name verified by the API server)",
        False: " (name not verified: no admission policy checks it)",
        None: " (name not checked: set --controller-namespace)",
    }
    reason = f": {remediation.approval_reason}" if remediation.approval_reason else ""
    return f"by {remediation.approved_by}{notes[trace.approval_verified]}{reason}"


def _pod_rows(trace: Trace) -> Iterator[tuple[str, str]]:
    remediation = trace.remediation
    if not trace.pods:
        if remediation.phase is Phase.QUEUED:
            yield "Pods", "none while the Job is in the queue"
        elif remediation.has_run:
            kept = "not created yet" if remediation.phase not in FINAL else "deleted"
            yield "Pods", kept
        return
    head = "Pods"
    for pod in trace.pods:
        states = "; ".join(map(_container_text, pod.containers))
        yield head, f"{pod.name} {pod.phase}" + (f": {states}" if states else "")
        head = ""


def _container_text(container: ContainerState) -> str:
    if container.state == "terminated":
        return f"{container.name} {exit_text(container)}"
    details = ": ".join(filter(None, (container.reason, container.message)))
    return f"{container.name} {container.state}" + (f" ({details})" if details else "")


def _timeline(trace: Trace) -> list[str]:
    received = trace.remediation.received_at
    rows = [("TIME", "AFTER", "WHAT")]
    rows += (
        (
            format_seconds(moment.at),
            _offset(moment, received),
            printable(moment.text, _MAX_LINE_CHARACTERS),
        )
        for moment in trace.timeline
    )
    return aligned(rows)


def _offset(moment: Moment, received: datetime) -> str:
    """How long after the delivery something happened; with a sign if it was before."""
    offset = moment.at.replace(microsecond=0) - received.replace(microsecond=0)
    return f"-{format_age(-offset)}" if offset.days < 0 else format_age(offset)


def as_members(trace: Trace) -> dict[str, Any]:
    """The members of the JSON."""
    remediation, assessment = trace.remediation, trace.assessment
    reason, message = _reason(trace)
    waited, ran = trace.waited, trace.ran
    return {
        "job": remediation.key.name,
        "namespace": remediation.key.namespace,
        "phase": remediation.phase.value,
        "reason": reason or None,
        "message": message or None,
        "effect": assessment.effect.value if assessment else None,
        "effectAt": _time(assessment.at) if assessment else None,
        "effectMessage": assessment.message if assessment else None,
        "alert": dict(trace.alert),
        "attempt": remediation.attempt,
        "target": remediation.target_labels,
        "operario": remediation.operario,
        "options": _options(trace),
        "repository": remediation.repository,
        "ref": remediation.ref,
        "commit": remediation.commit,
        "path": remediation.path,
        "blob": trace.annotation(keys.BLOB) or None,
        "revision": trace.annotation(keys.REVISION) or None,
        "commitAuthor": trace.annotation(keys.COMMIT_AUTHOR) or None,
        "commitTime": trace.annotation(keys.COMMIT_TIME) or None,
        "verifiedSigner": remediation.verified_signer or None,
        "specDigest": trace.annotation(keys.SPEC_DIGEST) or None,
        "queue": remediation.queue,
        "starts": remediation.starts,
        "approvedBy": remediation.approved_by or None,
        "approvedAt": _time(trace.approved_at),
        "approvalVerified": trace.approval_verified,
        "approvalReason": remediation.approval_reason or None,
        "startsAt": _time(remediation.starts_at),
        "receivedAt": _time(remediation.received_at),
        "receivedBy": trace.annotation(keys.RECEIVED_BY) or None,
        "admittedAt": _time(remediation.admitted_at),
        "admittedBy": remediation.admitted_by or None,
        "startedAt": _time(remediation.started_at) if remediation.has_run else None,
        "finishedAt": _time(remediation.finished_at),
        "stillFiringAt": _time(remediation.still_firing_at),
        "resolvedAt": _time(remediation.resolved_at),
        "waitedSeconds": waited.total_seconds() if waited is not None else None,
        "queuedSeconds": trace.queued.total_seconds() if trace.queued is not None else None,
        "ranSeconds": ran.total_seconds() if ran is not None else None,
        "pods": [_pod_members(pod) for pod in trace.pods],
        "events": [
            {
                "at": _time(event.at),
                "about": event.about,
                "reason": event.reason,
                "note": event.note,
                "type": "Warning" if event.warning else "Normal",
                "count": event.count,
            }
            for event in trace.events
        ],
        "timeline": [{"at": _time(moment.at), "what": moment.text} for moment in trace.timeline],
    }


def _options(trace: Trace) -> Mapping[str, Any]:
    options = trace.remediation.options
    return {
        option.member: option.to_api(option.of(options)) for option in OPTIONS if option.recorded
    }


def _pod_members(pod: PodState) -> dict[str, Any]:
    return {
        "name": pod.name,
        "phase": pod.phase,
        "createdAt": _time(pod.created_at),
        "containers": [
            {
                "name": container.name,
                "state": container.state,
                "exitCode": container.exit_code,
                "reason": container.reason or None,
                "message": container.message or None,
                "startedAt": _time(container.started_at),
                "finishedAt": _time(container.finished_at),
            }
            for container in pod.containers
        ],
    }


def _time(value: datetime | None) -> str | None:
    return format_time(value) if value else None

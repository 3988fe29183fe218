"""The state of a controller as text for a terminal, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.duration import format_age, format_duration
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.help import link
from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import aligned, plural, printable
from openfero_gitops.domain.timestamp import format_seconds, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.inspection.status import Action, ControllerStatus

_COMMIT_CHARACTERS: Final = 12
_MAX_LINE_CHARACTERS: Final = 500
#: Actions and files that are printed as text; the JSON has all.
_MAX_ACTIONS: Final = 20
_MAX_FILES: Final = 5
_EFFECT_TEXTS: Final = {
    Effect.HEALED: "healed",
    Effect.NOT_HEALED: "not healed",
    Effect.UNKNOWN: "unknown",
    Effect.PENDING: "pending",
}
_PHASE_TEXTS: Final = {
    Phase.SUCCEEDED: "succeeded",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
    Phase.RUNNING: "running",
    Phase.QUEUED: "in a Kueue queue",
    Phase.HELD: "held",
}


def as_text(status: ControllerStatus) -> str:
    """One screen: the controller, its Jobs, and which actions are needed."""
    lines = aligned([(head, printable(text, _MAX_LINE_CHARACTERS)) for head, text in _rows(status)])
    return "\n".join([*lines, "", *_action_lines(status)])


def _rows(status: ControllerStatus) -> Iterator[tuple[str, str]]:
    records, now = status.records, status.at
    leader = status.leader
    yield "Leader", f"{leader.holder}{_since(leader.acquired_at, now)}" if leader else "none"
    revision = records.revision
    if revision is None:
        yield "Commit", "none"
    else:
        author = f", by {revision.author}" if revision.author else ""
        signer = f", signed by {revision.verified_signer}" if revision.verified_signer else ""
        active = _active(records.active_since, now)
        yield "Commit", f"{revision.commit[:_COMMIT_CHARACTERS]}{active}{author}{signer}"
        yield "", f"{revision.repository} {revision.ref}"
    yield from _sync_rows(status)
    pause = records.pause
    if pause is None:
        yield "Admission", "not paused"
    else:
        yield "Admission", _pause_text(pause, now)
    if records.expected_watchdog is not None:
        name, delivered = records.expected_watchdog.alertname, records.watchdog_delivered_at
        when = f"delivered {format_age(now - delivered)} ago" if delivered else "not delivered yet"
        yield "Watchdog", f"{name}, {when}"
    yield "Jobs", _jobs_text(status)
    if records.queue_error:
        yield "", f"the reasons of Jobs in a Kueue queue cannot be read: {records.queue_error}"
    recent = status.recent
    counts = [(recent.phases.get(phase, 0), text) for phase, text in _PHASE_TEXTS.items()]
    yield "Last 24h", _counts_text(f"{recent.started} started", counts)
    if recent.effects:
        effects = [(recent.effects.get(effect, 0), text) for effect, text in _EFFECT_TEXTS.items()]
        yield "", "effects: " + ", ".join(f"{count} {text}" for count, text in effects if count)


def _pause_text(pause: Pause, now: datetime) -> str:
    """What pauses admission; for a pause by command by whom, since when and until when."""
    if pause.cause is not PauseCause.COMMAND:
        return f"paused: {pause.message}"
    since = f" {format_age(now - pause.since)} ago" if pause.since else ""
    until, reason = "", f": {pause.reason}" if pause.reason else ""
    if pause.until is not None:
        full = format_seconds(pause.until)
        until = f", until {full if pause.until.date() != now.date() else full.partition('T')[2]}"
    return f"paused by {pause.by}{since}{until}{reason}; run openfero-gitops resume to resume"


def _sync_rows(status: ControllerStatus) -> Iterator[tuple[str, str]]:
    records, now = status.records, status.at
    report, refused = records.report, records.refused
    if not report.error:
        yield "Sync", "ok" if records.revision else "unknown"
    elif refused is not None and refused.reason == report.error:
        commit = refused.commit[:_COMMIT_CHARACTERS]
        at = parse_time(refused.time)
        age = f" {format_age(now - at)} ago" if at else ""
        yield "Sync", f"commit {commit} was refused{age}: {refused.reason}"
    else:
        since = report.failing_since
        failing = f" for {format_age(now - since)}" if since else ""
        yield "Sync", f"failing{failing}: {report.error}"
    quarantined = plural(report.quarantined_files, "file") + " quarantined"
    yield "Operarios", f"{report.operarios} active, {quarantined}"
    for file in report.quarantined[:_MAX_FILES]:
        yield "", f"{file.path}: {file.message}"
    if (more := report.quarantined_files - _MAX_FILES) > 0:
        yield "", f"and {plural(more, 'more file')}"


def _jobs_text(status: ControllerStatus) -> str:
    phases = status.phases
    waiting = sum(status.waiting.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in status.waiting.items())
    parts = [
        f"{phases.get(Phase.RUNNING, 0)} running",
        f"{waiting} waiting" + (f" ({reasons})" if reasons else ""),
    ]
    parts += (
        f"{phases[phase]} {_PHASE_TEXTS[phase]}"
        for phase in (Phase.QUEUED, Phase.HELD)
        if phases.get(phase)
    )
    return ", ".join(parts)


def _counts_text(head: str, counts: Iterable[tuple[int, str]]) -> str:
    known = [f"{count} {text}" for count, text in counts if count]
    return f"{head}: {', '.join(known)}" if known else head


def _action_lines(status: ControllerStatus) -> Iterator[str]:
    actions = status.actions
    if not actions:
        yield "No action needed."
        return
    yield f"{plural(len(actions), 'action')} needed:"
    shown = actions[:_MAX_ACTIONS]
    heads = [(action.topic.value, _age_of(action, status.at)) for action in shown]
    topic_width = max(len(topic) for topic, _ in heads)
    age_width = max(len(age) for _, age in heads)
    indent = " " * (topic_width + age_width + 6)
    explained = set()
    for action, (topic, age) in zip(shown, heads, strict=True):
        message = printable(action.message, _MAX_LINE_CHARACTERS)
        yield f"  {topic:<{topic_width}}  {age:>{age_width}}  {message}"
        if action.command:
            yield indent + printable(action.command, _MAX_LINE_CHARACTERS)
        if topic not in explained:
            explained.add(topic)
            yield f"{indent}See {link(topic)}"
    if len(actions) > len(shown):
        yield f"  and {len(actions) - len(shown)} more; -o json lists all"


def _age_of(action: Action, now: datetime) -> str:
    return format_age(now - action.since) if action.since else ""


def _since(moment: datetime | None, now: datetime) -> str:
    return f", since {format_seconds(moment)} ({format_age(now - moment)})" if moment else ""


def _active(since: datetime | None, now: datetime) -> str:
    return f", active for {format_age(now - since)}" if since else ""


def as_members(status: ControllerStatus) -> dict[str, Any]:
    """The members of the JSON."""
    records, leader, revision = status.records, status.leader, status.records.revision
    report, refused, pause = records.report, records.refused, records.pause
    return {
        "at": _time(status.at),
        "namespace": records.namespace,
        "leader": {
            "identity": leader.holder,
            "since": _time(leader.acquired_at),
            "renewedAt": _time(leader.renewed_at),
        }
        if leader
        else None,
        "revision": {
            "repository": revision.repository,
            "ref": revision.ref,
            "commit": revision.commit,
            "author": revision.author or None,
            "time": revision.time or None,
            "verifiedSigner": revision.verified_signer or None,
            "activeSince": _time(records.active_since),
        }
        if revision
        else None,
        "sync": {
            "error": report.error or None,
            "failingSince": _time(report.failing_since),
            "refused": {"commit": refused.commit, "reason": refused.reason, "time": refused.time}
            if refused
            else None,
        },
        "operarios": report.operarios,
        "quarantined": {
            "count": report.quarantined_files,
            "files": [{"path": file.path, "message": file.message} for file in report.quarantined],
        },
        "pause": {
            "cause": pause.cause.value,
            "message": pause.message,
            "by": pause.by or None,
            "since": _time(pause.since),
            "until": _time(pause.until),
            "reason": pause.reason or None,
        }
        if pause
        else None,
        "watchdog": {
            "alertname": records.expected_watchdog.alertname,
            "within": format_duration(records.expected_watchdog.within),
            "deliveredAt": _time(records.watchdog_delivered_at),
        }
        if records.expected_watchdog
        else None,
        "phases": {phase.value: status.phases.get(phase, 0) for phase in Phase},
        "waiting": dict(status.waiting),
        "queueError": records.queue_error or None,
        "recent": {
            "started": status.recent.started,
            "phases": {phase.value: count for phase, count in status.recent.phases.items()},
            "effects": {effect.value: status.recent.effects.get(effect, 0) for effect in Effect},
        },
        "actions": [_action_members(action) for action in status.actions],
    }


def _action_members(action: Action) -> dict[str, Any]:
    remediation = action.remediation
    return {
        "topic": action.topic.value,
        "message": action.message,
        "since": _time(action.since),
        "command": action.command or None,
        "help": link(action.topic.value),
        "job": remediation.key.name if remediation else None,
        "namespace": remediation.key.namespace if remediation else None,
        "operario": remediation.operario if remediation else None,
        "alert": remediation.alertname if remediation else None,
    }


def _time(value: datetime | None) -> str | None:
    return format_seconds(value) if value else None

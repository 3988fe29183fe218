"""Which alerts must exist in Alertmanager now, as a function of the Jobs.

An alert has the labels of the alert that is remediated, without replica labels, so that people's
routes by team, cluster or namespace apply, and so that inhibition rules can compare the labels.
Its times are read from the Job. So every leader sends the same alerts, and a change of the leader
is not visible in Alertmanager.

`OpenFeroRemediating` lasts while a Job of a firing alert runs. If the Job succeeded, it lasts until
the effect is known: the rules of Prometheus need minutes to see that the cause is gone, and a page
for what was just healed would be sent in vain. It ends if the Job fails, if its Pod does not start,
if the alert fires longer than `heals-within`, and if the controller dies. A Job in a Kueue queue
does not remediate yet.

Two remediations with the same alert and operario are one alert, described by the newer one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from openfero_gitops.admission.decide import Wait
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.notification import (
    OPERARIO_LABEL,
    OWN_LABEL,
    REMEDIATED_LABEL,
    Notification,
    NotificationKind,
)
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import canonical_json, printable
from openfero_gitops.domain.timestamp import format_seconds
from openfero_gitops.effects.assess import assess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.remediation import JobKey, Remediation

    Identity = tuple[tuple[str, str], ...]
    Incidents = Callable[[Remediation], Iterable[Remediation]]

#: More are not kept in Alertmanager: people cannot read them, and a request must stay small.
MAX_NOTIFICATIONS: Final = 1000
MAX_BYTES: Final = 2 * 1024 * 1024
_MAX_TEXT_CHARACTERS: Final = 900
#: Alertmanager refuses other label names, unless it supports UTF-8 in them.
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_URGENCY: Final = list(NotificationKind)
_SHORT_COMMIT: Final = 12


@dataclass(frozen=True, slots=True)
class Notifications:
    """The alerts that must exist, by their labels.

    `left_out` counts those beyond the limits. At `next_change` time alone may change what exists.
    """

    alerts: Mapping[Identity, Notification]
    left_out: int = 0
    next_change: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """Why a remediation needs an alert: since when, and until when at most."""

    kind: NotificationKind
    remediation: Remediation
    since: datetime
    until: datetime | None
    summary: str
    description: str
    command: str


def list_notifications(
    remediations: Iterable[Remediation],
    decisions: Mapping[JobKey, Decision],
    incidents: Incidents,
    *,
    remember: timedelta,
    external_url: str,
    now: datetime,
) -> Notifications:
    """List the alerts that must exist in Alertmanager.

    Args:
        remediations: all of them, the waiting ones with what the active catalog requires.
        decisions: the leader's last ones on waiting Jobs.
        incidents: returns all remediations of the incident of one.
        remember: how long a failure is reported at most, after the end of its Job.
        external_url: the address of the pages, without a slash at its end; may be empty.
        now: the time.
    """
    findings: dict[Identity, _Finding] = {}
    moments: list[datetime] = []
    for remediation in remediations:
        if remediation.deleting:
            continue
        for finding in _findings(remediation, decisions, incidents, remember, now):
            if finding.until is not None:
                if finding.until <= now:
                    continue
                moments.append(finding.until)
            identity = tuple(sorted(_labels(finding).items()))
            other = findings.get(identity)
            if other is None or other.remediation.order < remediation.order:
                findings[identity] = finding
    urgent = sorted(findings.items(), key=lambda item: _order(item[1]))
    alerts: dict[Identity, Notification] = {}
    size = 0
    for identity, finding in urgent:
        notification = _notification(finding, dict(identity), external_url)
        size += len(canonical_json([notification.labels, notification.annotations]))
        if len(alerts) == MAX_NOTIFICATIONS or size > MAX_BYTES:
            break
        alerts[identity] = notification
    return Notifications(alerts, len(urgent) - len(alerts), min(moments, default=None))


def _order(finding: _Finding) -> tuple[int, datetime, str]:
    """The most urgent first, then the oldest: what is left out must not change all the time."""
    return (_URGENCY.index(finding.kind), finding.since, str(finding.remediation.key))


def _findings(
    remediation: Remediation,
    decisions: Mapping[JobKey, Decision],
    incidents: Incidents,
    remember: timedelta,
    now: datetime,
) -> Iterator[_Finding]:
    match remediation.phase:
        case Phase.WAITING | Phase.AWAITING_APPROVAL:
            decision = decisions.get(remediation.key)
            if isinstance(decision, Wait) and decision.reason is Reason.NOT_HELPING:
                yield _not_helping(remediation, decision)
            elif remediation.phase is Phase.AWAITING_APPROVAL:
                yield _approval_needed(remediation)
        case Phase.RUNNING:
            # (A Pod that does not start remediates nothing.)
            if remediation.status is Status.FIRING and not remediation.pod_waiting:
                yield _remediating(remediation, None)
        case Phase.FAILED:
            if not _is_failure_over(remediation, incidents):
                yield _failed(remediation, remember)
        case Phase.SUCCEEDED:
            yield from _of_effect(remediation, incidents, remember, now)


def _of_effect(
    remediation: Remediation, incidents: Incidents, remember: timedelta, now: datetime
) -> Iterator[_Finding]:
    if remediation.effect in (Effect.HEALED, Effect.UNKNOWN):
        return
    assessment = assess(remediation, incidents(remediation), now)
    if assessment is None:
        return
    if assessment.effect is Effect.PENDING and remediation.resolved_at is None:
        yield _remediating(remediation, _ended_at(remediation) + remediation.options.heals_within)
    elif assessment.effect is Effect.NOT_HEALED and _still_fires(remediation, incidents):
        yield _Finding(
            NotificationKind.NOT_HEALED,
            remediation,
            assessment.at or _ended_at(remediation),
            _ended_at(remediation) + remember,
            f"{_alert(remediation)}: the remediation did not help",
            f"{_job(remediation)} succeeded, but the alert was not healed: {assessment.message}",
            f"openfero-gitops trace {remediation.key}",
        )


def _approval_needed(remediation: Remediation) -> _Finding:
    description = f"{_job(remediation)} starts only if a person approves it"
    if remediation.options.max_wait:
        until = remediation.received_at + remediation.options.max_wait
        description += f"; it is refused at {format_seconds(until)} (max-wait)"
    return _Finding(
        NotificationKind.APPROVAL_NEEDED,
        remediation,
        remediation.received_at,
        None,
        f"{_alert(remediation)}: the remediation waits for approval",
        "; ".join(filter(None, (description, remediation.message))),
        f"openfero-gitops approve {remediation.key}",
    )


def _not_helping(remediation: Remediation, decision: Wait) -> _Finding:
    why = decision.message or Reason.NOT_HELPING.text
    return _Finding(
        NotificationKind.NOT_HELPING,
        remediation,
        remediation.received_at,
        None,
        f"{_alert(remediation)}: remediations do not help, so no further one starts",
        f"{why}; {_job(remediation)} starts only if a person approves it or the operario changes",
        f"openfero-gitops approve {remediation.key}",
    )


def _failed(remediation: Remediation, remember: timedelta) -> _Finding:
    why = f": {remediation.message}" if remediation.message else ""
    return _Finding(
        NotificationKind.FAILED,
        remediation,
        _ended_at(remediation),
        _ended_at(remediation) + remember,
        f"{_alert(remediation)}: the remediation failed",
        f"{_job(remediation)} failed{why}",
        f"openfero-gitops logs {remediation.key}",
    )


def _remediating(remediation: Remediation, until: datetime | None) -> _Finding:
    job = _job(remediation)
    if until is None:
        description = f"{job} is running"
    else:
        description = (
            f"{job} succeeded; the alert should be resolved by {format_seconds(until)} "
            "(heals-within)"
        )
    return _Finding(
        NotificationKind.REMEDIATING,
        remediation,
        remediation.admitted_at or remediation.started_at or remediation.received_at,
        until,
        f"{_alert(remediation)} is being remediated",
        description,
        f"openfero-gitops trace {remediation.key}",
    )


def _is_failure_over(remediation: Remediation, incidents: Incidents) -> bool:
    """Whether a failed Job needs nobody any more."""
    if remediation.status is Status.FIRING:
        return remediation.resolved_at is not None
    # What had to be undone is undone if a later Job for it succeeded.
    return any(
        other.phase is Phase.SUCCEEDED and remediation.order < other.order
        for other in incidents(remediation)
    )


def _still_fires(remediation: Remediation, incidents: Incidents) -> bool:
    """Whether the alert of a remediation that did not help still fires, or fires again."""
    resolved_at = remediation.resolved_at
    if resolved_at is None:
        return True
    newest = max((remediation, *incidents(remediation)), key=lambda job: job.order)
    # One that fires again much later is another incident.
    return (
        newest.resolved_at is None
        and newest.starts_at is not None
        and newest.starts_at <= resolved_at + remediation.options.heals_within
    )


def _ended_at(remediation: Remediation) -> datetime:
    return remediation.finished_at or remediation.received_at


def _alert(remediation: Remediation) -> str:
    return printable(remediation.alertname) or "Alert without a name"


def _job(remediation: Remediation) -> str:
    commit = f" at commit {remediation.commit[:_SHORT_COMMIT]}" if remediation.commit else ""
    return f"Job {remediation.key} of operario {printable(remediation.operario)}{commit}"


def _labels(finding: _Finding) -> dict[str, str]:
    remediation = finding.remediation
    labels = {
        name: value
        for name, value in remediation.labels.items()
        if value and name not in remediation.replica_labels and _LABEL_NAME.fullmatch(name)
    }
    own = {
        "alertname": finding.kind.value,
        OWN_LABEL: "true",
        OPERARIO_LABEL: remediation.operario,
        REMEDIATED_LABEL: remediation.alertname,
    }
    return labels | {name: value for name, value in own.items() if value}


def _notification(finding: _Finding, labels: Mapping[str, str], external_url: str) -> Notification:
    annotations = {
        "summary": printable(finding.summary, _MAX_TEXT_CHARACTERS),
        "description": printable(finding.description, _MAX_TEXT_CHARACTERS),
        "command": finding.command,
    }
    url = ""
    if external_url:
        key = finding.remediation.key
        url = f"{external_url}/?q={quote(key.name)}#{key.namespace}/{key.name}"
        annotations["remediation_url"] = url
    return Notification(finding.kind, labels, annotations, finding.since, url)

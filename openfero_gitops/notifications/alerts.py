"""Which alerts must exist in Alertmanager now, as a function of the Jobs.

An alert has the labels of the alert that is remediated, without replica labels, so that people's
routes by team, cluster or namespace apply, and so that inhibition rules can compare the labels.
Its times are read from the Job. So every leader sends the same alerts, and a change of the leader
is not visible in Alertmanager.

`OpenFeroRemediating` lasts while a Job of a firing alert runs. If the Job succeeded, it lasts until
the alert is resolved, for a few minutes at most: the rules of Prometheus need them to see that the
cause is gone, and a notification of what was just healed would be sent in vain. It ends if the Job
fails, if its Pod does not start, and if the controller crashes. A Job in a Kueue queue does not
remediate yet.

Two remediations with the same alert and operario are one alert, described by the newer one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from openfero_gitops.admission.not_helping import list_not_helping
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.notification import (
    OPERARIO_LABEL,
    OWN_LABEL,
    REMEDIATED_LABEL,
    Notification,
    NotificationKind,
)
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_seconds
from openfero_gitops.effects.assess import assess
from openfero_gitops.effects.unresolved import find_unresolved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.admission.not_helping import NotHelping
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.effects.incident import Incident
    from openfero_gitops.effects.unresolved import Unresolved

    Identity = tuple[tuple[str, str], ...]
    IncidentOf = Callable[[Remediation], Incident]

#: More are not kept in Alertmanager: people cannot read them, and a request must stay small.
MAX_NOTIFICATIONS: Final = 1000
MAX_BYTES: Final = 2 * 1024 * 1024
_MAX_TEXT_CHARACTERS: Final = 900
#: How long OpenFeroRemediating lasts at most after a success. An inhibition mutes the alert for the
#: controller's webhook too. That the alert was resolved is delivered only after the inhibition has
#: ended, when Prometheus sends it again, which it does for 15 minutes. So this leaves it time, also
#: if the Job took some minutes after the alert was resolved.
MAX_REMEDIATING_AFTER_SUCCESS: Final = timedelta(minutes=5)
#: Alertmanager refuses other label names, unless it supports UTF-8 in them.
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_URGENCY: Final = {kind: place for place, kind in enumerate(NotificationKind)}
_COMMIT_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class Notifications:
    """The alerts that must exist, by their labels.

    `left_out` counts those beyond the limits. At `next_change` time alone may change what exists.
    `listed` has what was found about each Job, by uid, and `chosen` which of it describes an alert.
    """

    alerts: Mapping[Identity, Notification]
    left_out: int = 0
    next_change: datetime | None = None
    listed: Mapping[str, _Candidate] = field(default_factory=dict)
    chosen: Mapping[Identity, _Candidate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Finding:
    """Why a remediation needs an alert: since when, until when at most, and in what words."""

    kind: NotificationKind
    remediation: Remediation
    since: datetime
    until: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A finding, and the labels of its alert."""

    finding: _Finding
    identity: Identity


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a finding depends on besides the remediation."""

    not_helping: Mapping[JobKey, NotHelping]
    incident_of: IncidentOf
    remember: timedelta
    now: datetime


def list_notifications(
    remediations: Sequence[Remediation],
    incident_of: IncidentOf,
    *,
    catalog: Catalog | None,
    external_url: str,
    now: datetime,
    before: Notifications | None = None,
) -> Notifications:
    """List the alerts that must exist in Alertmanager.

    Args:
        remediations: all of them, the waiting ones with what the active catalog requires.
        incident_of: returns the incident of a remediation.
        catalog: the active one. Its `remember` is how long a failure is reported at most, after
            the end of its Job.
        external_url: the address of the pages, without a slash at its end; may be empty.
        now: the time.
        before: the last result. It only saves building what did not change since.
    """
    not_helping = list_not_helping(remediations, catalog, now)
    remember = (catalog.envelope if catalog else Envelope()).remember
    facts = _Facts(not_helping, incident_of, remember, now)
    before = before or Notifications({})
    listed: dict[str, _Candidate] = {}
    chosen: dict[Identity, _Candidate] = {}
    moments: list[datetime] = []
    for remediation in remediations:
        rule = _RULES.get(remediation.phase)
        if rule is None or (finding := rule(remediation, facts)) is None or remediation.deleting:
            continue
        if finding.until is not None:
            if finding.until <= now:
                continue
            moments.append(finding.until)
        item = before.listed.get(remediation.uid)
        if item is None or item.finding != finding:
            item = _Candidate(finding, tuple(sorted(_labels(finding).items())))
        listed[remediation.uid] = item
        other = chosen.get(item.identity)
        if other is None or other.finding.remediation.order < remediation.order:
            chosen[item.identity] = item
    alerts = _within_limits(chosen, before, external_url)
    left_out = len(chosen) - len(alerts)
    return Notifications(alerts, left_out, min(moments, default=None), listed, chosen)


def _within_limits(
    chosen: Mapping[Identity, _Candidate], before: Notifications, external_url: str
) -> dict[Identity, Notification]:
    """Build the most urgent alerts."""
    alerts: dict[Identity, Notification] = {}
    size = 0
    for item in sorted(chosen.values(), key=_order):
        if len(alerts) == MAX_NOTIFICATIONS:
            break
        notification = before.alerts.get(item.identity)
        if notification is None or before.chosen[item.identity] is not item:
            notification = _build(item, external_url)
        size += _size(notification)
        if size > MAX_BYTES:
            break
        alerts[item.identity] = notification
    return alerts


def _size(notification: Notification) -> int:
    """The characters of an alert; JSON makes a few more of them."""
    texts = (notification.labels, notification.annotations)
    return sum(len(name) + len(value) for part in texts for name, value in part.items())


def _order(listed: _Candidate) -> tuple[int, datetime, str]:
    """The most urgent first, then the oldest: what is left out must not change all the time."""
    finding = listed.finding
    return (_URGENCY[finding.kind], finding.since, finding.remediation.uid)


def _find_held_back(remediation: Remediation, facts: _Facts) -> _Finding | None:
    if (state := facts.not_helping.get(remediation.key)) is not None:
        kind = NotificationKind.NOT_HELPING
        return _Finding(kind, remediation, state.since, state.until, state.message)
    if remediation.phase is Phase.AWAITING_APPROVAL:
        kind, since = NotificationKind.APPROVAL_NEEDED, remediation.received_at
        return _Finding(kind, remediation, since, detail=remediation.message)
    return None


def _find_running(remediation: Remediation, _: _Facts) -> _Finding | None:
    # (A Pod that does not start remediates nothing.)
    if remediation.status is not Status.FIRING or remediation.pod_waiting:
        return None
    return _Finding(NotificationKind.REMEDIATING, remediation, _began_at(remediation))


def _find_failed(remediation: Remediation, facts: _Facts) -> _Finding | None:
    unresolved = find_unresolved(remediation, facts.incident_of, facts.remember, facts.now)
    return None if unresolved is None else _finding(NotificationKind.FAILED, unresolved)


def _find_succeeded(remediation: Remediation, facts: _Facts) -> _Finding | None:
    settled = remediation.effect in (Effect.HEALED, Effect.UNKNOWN)
    if settled or remediation.status is not Status.FIRING:
        return None
    incident = facts.incident_of(remediation)
    if len(incident) == 1 and remediation.resolved_at is not None:
        return None  # whatever its effect is: it does not fire any more
    ended_at = _ended_at(remediation)
    heals_within = remediation.options.heals_within
    until = ended_at + min(heals_within, MAX_REMEDIATING_AFTER_SUCCESS)
    pending = _Finding(NotificationKind.REMEDIATING, remediation, _began_at(remediation), until)
    if len(incident) == 1 and remediation.effect is None and facts.now < ended_at + heals_within:
        return pending  # as below, but most remediations are like this
    unresolved = find_unresolved(remediation, facts.incident_of, facts.remember, facts.now)
    if unresolved is not None:
        return _finding(NotificationKind.NOT_HEALED, unresolved)
    if remediation.resolved_at is not None:
        return None
    assessment = assess(remediation, incident, facts.now)
    return pending if assessment is not None and assessment.effect is Effect.PENDING else None


def _finding(kind: NotificationKind, unresolved: Unresolved) -> _Finding:
    since, until = unresolved.since, unresolved.until
    return _Finding(kind, unresolved.remediation, since, until, unresolved.message)


_RULES: Final[Mapping[Phase, Callable[[Remediation, _Facts], _Finding | None]]] = {
    Phase.WAITING: _find_held_back,
    Phase.AWAITING_APPROVAL: _find_held_back,
    Phase.REFUSED: _find_held_back,
    Phase.RUNNING: _find_running,
    Phase.FAILED: _find_failed,
    Phase.SUCCEEDED: _find_succeeded,
}


def _began_at(remediation: Remediation) -> datetime:
    return remediation.admitted_at or remediation.started_at or remediation.received_at


def _ended_at(remediation: Remediation) -> datetime:
    return remediation.finished_at or remediation.received_at


def _build(listed: _Candidate, external_url: str) -> Notification:
    finding = listed.finding
    summary, description, command = _words(finding)
    key = finding.remediation.key
    annotations = {
        "summary": printable(summary, _MAX_TEXT_CHARACTERS),
        "description": printable(description, _MAX_TEXT_CHARACTERS),
        "command": f"openfero-gitops {command} {key}",
    }
    url = ""
    if external_url:
        url = f"{external_url}/remediations/{quote(key.namespace)}/{quote(key.name)}"
        annotations["remediation_url"] = url
    return Notification(finding.kind, dict(listed.identity), annotations, finding.since, url)


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


def _words(finding: _Finding) -> tuple[str, str, str]:
    """Return the summary, the description, and the command that helps next."""
    remediation, detail = finding.remediation, finding.detail
    name = printable(remediation.alertname) or "Alert without a name"
    job = f"Job {remediation.key} of operario {printable(remediation.operario)}"
    if remediation.commit:
        job += f" at commit {remediation.commit[:_COMMIT_CHARACTERS]}"
    match finding.kind:
        case NotificationKind.APPROVAL_NEEDED:
            description = f"{job} starts only if a person approves it"
            if max_wait := remediation.options.max_wait:
                refused_at = format_seconds(remediation.received_at + max_wait)
                description += f"; it is refused at {refused_at} (max-wait)"
            description = "; ".join(filter(None, (description, detail)))
            return f"{name}: the remediation waits for approval", description, "approve"
        case NotificationKind.NOT_HELPING:
            state, command = (
                ("waits", "approve") if remediation.waiting else ("was refused", "trace")
            )
            return (
                f"{name}: the next remediation {state}, because the last ones did not help",
                f"{job} {state}: {detail}",
                command,
            )
        case NotificationKind.FAILED:
            description = f"{job} failed: {detail}" if detail else f"{job} failed"
            return f"{name}: the remediation failed", description, "trace"
        case NotificationKind.NOT_HEALED:
            description = f"{job} succeeded, but the alert was not healed: {detail}"
            return f"{name}: the remediation did not help", description, "trace"
    description = f"{job} is running"
    if finding.until is not None:
        until = format_seconds(_ended_at(remediation) + remediation.options.heals_within)
        description = f"{job} succeeded; the alert should be resolved by {until} (heals-within)"
    return f"{name} is being remediated", description, "trace"

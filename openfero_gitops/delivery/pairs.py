"""Alerts of one delivery that are one alert: listed twice, or sent by both members of a pair.

The members of a high-availability pair of Prometheus servers evaluate their rules at different
moments, so that their alerts differ in replica labels and often in their start, too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.delivery.attempt import is_duplicate, is_just_resolved, resolved_before_start
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.labels import replica_labels_in, without
from openfero_gitops.domain.remediation import STARTS_AT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.remediation import Remediation

#: What is equal for alerts of one occurrence: status, start and sorted labels.
Identity = tuple[Status, "datetime | None", tuple[tuple[str, str], ...]]

#: In place of the starts of alerts that are one alert whenever they start.
_ANY_START: Final = datetime.min.replace(tzinfo=UTC)


def identity_of(alert: Alert) -> Identity:
    """Return what is equal for alerts of one occurrence."""
    return (alert.status, alert.starts_at, tuple(sorted(alert.labels.items())))


def start_of(identity: Identity) -> datetime:
    """Return the start, for comparison with that of an alert that also has one, or also none."""
    return identity[1] or _ANY_START


def common_identity(identity: Identity, alert: Alert, replica_labels: frozenset[str]) -> Identity:
    """Return what is equal for alerts that differ in replica labels, and in their start."""
    names = replica_labels_in(alert.labels, replica_labels)
    if not names:
        return identity
    start = None if alert.starts_at is None else _ANY_START
    return (alert.status, start, tuple(sorted(without(alert.labels, names).items())))


def still_firing(
    alerts: Mapping[Identity, Alert], replica_labels: frozenset[str]
) -> list[Identity]:
    """Find resolved alerts of one member of a pair that still fire from the other.

    One member may evaluate the rule later, or be restarting. The alert is resolved once both
    members have resolved it.
    """
    labels = {
        identity: common_identity(identity, alert, replica_labels)[-1]
        for identity, alert in alerts.items()
        if not replica_labels.isdisjoint(alert.labels)
    }
    firing = {common for (status, *_), common in labels.items() if status is Status.FIRING}
    return [
        identity
        for identity, common in labels.items()
        if identity[0] is Status.RESOLVED and common in firing
    ]


def earlier_starts(
    alerts: Iterable[Alert], still_firing: Collection[Alert], replica_labels: frozenset[str]
) -> dict[Identity, datetime]:
    """Find starts of `still_firing`, resolved alerts, that are earlier than those of firing alerts.

    A member that was resolved before the other one began to fire is another incident, and does not
    count. The result is by what is equal for the firing alerts of the pair.
    """
    if not still_firing:
        return {}
    first: dict[Identity, datetime] = {}
    for alert in alerts:
        common = common_identity(identity_of(alert), alert, replica_labels)
        if alert.starts_at is not None:
            first[common] = min(alert.starts_at, first.get(common, alert.starts_at))
    earlier: dict[Identity, datetime] = {}
    for alert in still_firing:
        _, start, labels = common_identity(identity_of(alert), alert, replica_labels)
        common = Status.FIRING, start, labels
        if alert.starts_at is None or common not in first:
            continue
        if alert.ends_at is None or alert.ends_at >= first[common]:
            earlier[common] = min(alert.starts_at, earlier.get(common, first[common]))
    return earlier


def known_start(starts_at: datetime, incident: Iterable[Remediation], now: datetime) -> datetime:
    """Return the start under which a firing alert of one member of a pair has its Job.

    It is that of the newest Job of `incident` (all Jobs of the same labels) that was delivered
    after the alert had begun, unless it was resolved before that; else `starts_at` itself. A Job
    that was resolved before it started counts once it gets another attempt.
    """
    known = [
        (job.order, job.starts_at)
        for job in incident
        if job.starts_at is not None
        and starts_at <= job.delivered_at + STARTS_AT_TOLERANCE
        and (job.resolved_at is None or starts_at <= job.resolved_at)
        and not (job.deleting or is_duplicate(job))
        and not (resolved_before_start(job) and is_just_resolved(job, now))
    ]
    return max(known)[1] if known else starts_at


def is_later_member(alert: Alert, job: Remediation, replica_labels: frozenset[str]) -> bool:
    """Whether a Job must record that it is also for an alert that began after its last delivery.

    Once the other member of the pair is resolved, nothing else shows that it is one incident.
    """
    return (
        alert.status is Status.FIRING
        and alert.starts_at is not None
        and not replica_labels.isdisjoint(alert.labels)
        and alert.starts_at > job.delivered_at + STARTS_AT_TOLERANCE
    )


def is_resolved_by(job: Remediation, moment: datetime) -> bool:
    """Whether an alert that was resolved at `moment` is that of a firing Job.

    Not if it began later. Nor if the Job is an attempt that was created after that because the
    other member of a pair still delivered the alert.
    """
    if job.starts_at is not None and job.starts_at > moment:
        return False
    later_attempt = job.attempt > 1 and bool(job.replica_labels)
    return not (later_attempt and job.received_at > moment + STARTS_AT_TOLERANCE)


def with_own_job(alerts: Iterable[Alert], replica_labels: frozenset[str]) -> list[Alert]:
    """Return those alerts of a delivery that have a Job of their own, in its order.

    Of alerts that are one alert, it is the one with the earliest start, as when Alertmanager merges
    equal alerts.
    """
    chosen: dict[Identity, tuple[datetime, Alert]] = {}
    for alert in alerts:
        identity = identity_of(alert)
        common = common_identity(identity, alert, replica_labels)
        start = start_of(identity)
        if common not in chosen or start < chosen[common][0]:
            chosen[common] = start, alert
    return [alert for _, alert in chosen.values()]


def with_status(alerts: Mapping[Identity, Alert], status: Status) -> dict[Identity, Alert]:
    """Return the alerts of a status."""
    return {identity: alert for identity, alert in alerts.items() if alert.status is status}

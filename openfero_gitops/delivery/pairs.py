"""Alerts of one delivery that are one alert: listed twice, or sent by both members of a pair.

The members of a high-availability pair of Prometheus servers evaluate their rules at different
moments, so that their alerts differ in replica labels and often in their start, too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.labels import replica_labels_in, without

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openfero_gitops.domain.alert import Alert

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

    One member may evaluate the rule later, or be restarting. The alert is resolved once the last
    member says so.
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

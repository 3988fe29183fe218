"""The watchdog: an alert that always fires, so that its absence shows that no alerts arrive.

`openfero.yaml` names it. When it was last delivered is in the ConfigMap `openfero-control`, so that
every replica knows of deliveries to any of them, also after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from openfero_gitops.domain.duration import format_age, format_duration
from openfero_gitops.domain.text import quoted
from openfero_gitops.domain.timestamp import format_seconds, format_time, parse_time


@dataclass(frozen=True, slots=True)
class Watchdog:
    """An alert that must be delivered, firing, at least once `within` this time.

    The defaults suit the alert of kube-prometheus.
    """

    alertname: str = "Watchdog"
    within: timedelta = timedelta(minutes=15)

    def is_named(self, alertname: str) -> bool:
        """Whether this is the alert's name, in which case does not count, as in operarios."""
        return alertname.lower() == self.alertname.lower()


def write_delivery(alertname: str, at: datetime) -> str:
    """Write when an alert was last delivered."""
    return f"{format_time(at)} {alertname}"


def read_delivery(text: str, watchdog: Watchdog) -> datetime | None:
    """Read when the watchdog's alert was last delivered; None if it was another alert."""
    at, _, alertname = text.partition(" ")
    return parse_time(at) if watchdog.is_named(alertname) else None


def overdue(
    watchdog: Watchdog, delivered_at: datetime | None, waiting_since: datetime, now: datetime
) -> str:
    """Why alerts probably do not arrive; empty if they do, or if it is too early to say.

    Args:
        watchdog: the alert to expect.
        delivered_at: when it was last delivered; None if it never was.
        waiting_since: since when it has been expected.
        now: the time.
    """
    latest = waiting_since if delivered_at is None else max(delivered_at, waiting_since)
    if now - latest <= watchdog.within:
        return ""
    within = format_duration(watchdog.within)
    name = quoted(watchdog.alertname)
    moment = waiting_since if delivered_at is None else delivered_at
    ago = format_age(now - moment)
    when = f"{format_seconds(moment)}, {ago} ago"
    what = (
        f"the watchdog alert {name} has never been delivered; it has been expected since"
        if delivered_at is None
        else f"the watchdog alert {name} was last delivered at"
    )
    return (
        f"{what} {when} (openfero.yaml expects it within {within}). Other alerts probably do not"
        " arrive either, so nothing is healed: check Prometheus, Alertmanager, and the route of"
        f" this alert to the controller, which must repeat it within {within}"
    )

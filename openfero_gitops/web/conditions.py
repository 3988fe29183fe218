"""How pages show conditions: what holds while all is well, and what each condition means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openfero_gitops.domain.health import Condition

#: By the name of a condition: what is so while it holds, and what it checks.
_TEXTS: Final = {
    "catalog": (
        "catalog active",
        "Checks that a catalog is active. Without one, no alert can be matched to an operario.",
    ),
    "jobs": ("Jobs watched", "Checks that the Jobs of all namespaces are listed and watched."),
    "serving": ("serving", "Checks that the replica is not about to stop."),
    "deliveries": (
        "Jobs can be created",
        "Checks that the API server accepts the Jobs of alerts.",
    ),
    "waiting jobs": (
        "room for Jobs",
        "Checks that fewer Jobs wait than --max-waiting. At the limit, alerts get no further Jobs.",
    ),
    "clock": ("clock right", "Checks that the clock agrees with that of the API server."),
    "control": (
        "pauses read",
        "Checks that the ConfigMap openfero-control, which has pauses, can be read.",
    ),
    "leader": ("leader election", "Checks that the lease can be read and renewed."),
    "in step": (
        "same commit as the leader",
        "Checks that the replica does not stay behind the active commit of the leader.",
    ),
    "alertmanager": (
        "notifications sent",
        "Checks that people can be notified through Alertmanager (--alertmanager-url).",
    ),
    "watchdog": (
        "alerts arrive",
        "Checks that an alert that always fires is delivered (watchdog in openfero.yaml).",
    ),
    "foreign jobs": (
        "no foreign Jobs",
        "Checks that the controller created each Job that has its label.",
    ),
    "job policy": (
        "Jobs protected",
        "Checks that an admission policy keeps users from changing Jobs of the controller.",
    ),
}


@dataclass(frozen=True, slots=True)
class ShownCondition:
    """A condition as a page shows it: a badge, what it means, and the error if it does not hold."""

    name: str
    text: str
    tone: str
    icon: str
    meaning: str
    message: str


def show_condition(condition: Condition) -> ShownCondition:
    """Choose the badge of a condition: green if it holds, grey if its part is not configured."""
    good, meaning = _TEXTS.get(condition.name, (condition.name, ""))
    if not condition.holds:
        tone, icon = ("warn", "warn") if condition.advice else ("bad", "fail")
        text = f"{condition.name}: no"
    elif not condition.configured:
        tone, icon, text = "idle", "refuse", f"{condition.name}: not configured"
    else:
        tone, icon, text = "ok", "ok", good
    return ShownCondition(condition.name, text, tone, icon, meaning, condition.message)

"""How pages show conditions: what holds while all is well, and what each condition means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from openfero_gitops.domain.health import Condition

#: By the name of a condition: what is so while it holds, and what it means.
_TEXTS: Final = {
    "catalog": ("catalog active", "A catalog is active, so alerts can be matched to operarios."),
    "jobs": ("Jobs watched", "The Jobs of all namespaces are listed and watched."),
    "serving": ("serving", "The replica is not about to stop."),
    "deliveries": ("Jobs can be created", "The API server accepts the Jobs of alerts."),
    "waiting jobs": (
        "room for Jobs",
        "Fewer Jobs wait than --max-waiting allows, so alerts get further ones.",
    ),
    "clock": ("clock right", "The clock agrees with the clock of the API server."),
    "control": ("pauses read", "The ConfigMap openfero-control, with pauses, can be read."),
    "leader": ("leader election", "The lease can be read and renewed."),
    "in step": ("same commit as the leader", "The replica has the active commit of the leader."),
    "alertmanager": (
        "notifications sent",
        "People are notified through Alertmanager (--alertmanager-url).",
    ),
    "watchdog": (
        "alerts arrive",
        "An alert that always fires is delivered regularly (watchdog in openfero.yaml).",
    ),
    "foreign jobs": (
        "no foreign Jobs",
        "No Job has the label of the controller without being created by it.",
    ),
    "job policy": (
        "Jobs protected",
        "An admission policy keeps users from changing Jobs of the controller.",
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

"""How pages show conditions: what holds while all is well, and what each condition means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.help import CONDITION_TOPICS, link

if TYPE_CHECKING:
    from openfero_gitops.domain.health import Condition


@dataclass(frozen=True, slots=True)
class _Texts:
    """What a badge says if a condition holds, and if it does not, and what the condition checks."""

    good: str
    bad: str
    meaning: str


#: By the name of a condition.
_TEXTS: Final = {
    "catalog": _Texts(
        "catalog active",
        "no active catalog",
        "Checks that a catalog is active. Without one, no alert can be matched to an operario.",
    ),
    "jobs": _Texts(
        "Jobs watched",
        "Jobs not watched",
        "Checks that the Jobs of all namespaces are listed and watched.",
    ),
    "serving": _Texts("serving", "stopping", "Checks that the replica is not about to stop."),
    "deliveries": _Texts(
        "Jobs can be created",
        "Jobs cannot be created",
        "Checks that the API server accepts the Jobs of alerts.",
    ),
    "waiting jobs": _Texts(
        "waiting Jobs below limit",
        "too many Jobs waiting",
        "Checks that fewer Jobs wait than --max-waiting. At the limit, alerts get no further Jobs.",
    ),
    "clock": _Texts(
        "clock in sync",
        "clock differs",
        "Checks that the clock agrees with that of the API server.",
    ),
    "control": _Texts(
        "pause state readable",
        "pause state unreadable",
        "Checks that the ConfigMap openfero-control, which has pauses, can be read.",
    ),
    "leader": _Texts(
        "leader election works",
        "leader election fails",
        "Checks that the lease can be read and renewed.",
    ),
    "in step": _Texts(
        "same commit as the leader",
        "not at the leader's commit",
        "Checks that the replica does not stay behind the active commit of the leader.",
    ),
    "alertmanager": _Texts(
        "notifications sent",
        "notifications fail",
        "Checks that people can be notified through Alertmanager (--alertmanager-url).",
    ),
    "watchdog": _Texts(
        "watchdog alert received",
        "no watchdog alert",
        "Checks that an alert that always fires is delivered (watchdog in openfero.yaml).",
    ),
    "foreign jobs": _Texts(
        "no foreign Jobs",
        "foreign Jobs found",
        "Checks that the controller created each Job that has its label.",
    ),
    "job policy": _Texts(
        "Jobs protected",
        "Jobs not protected",
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
    help: str = ""


def show_condition(condition: Condition) -> ShownCondition:
    """Choose the badge of a condition: green if it holds, grey if its part is not configured."""
    texts = _TEXTS.get(condition.name) or _Texts(condition.name, f"{condition.name} failed", "")
    if not condition.holds:
        tone, icon = ("warn", "warn") if condition.advice else ("bad", "fail")
        text = texts.bad
    elif not condition.configured:
        tone, icon, text = "idle", "refuse", f"{condition.name}: not configured"
    else:
        tone, icon, text = "ok", "ok", texts.good
    topic = "" if condition.holds else CONDITION_TOPICS.get(condition.name, "")
    return ShownCondition(
        condition.name, text, tone, icon, texts.meaning, condition.message, link(topic)
    )

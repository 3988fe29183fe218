"""What the log and the trace say about the result of an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.decision_log import Decided, log_decision
from openfero_gitops.delivery.match import NoMatch
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome

if TYPE_CHECKING:
    from openfero_gitops.delivery.match import Match
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.answer import Item
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.ports import Attributes

#: Results that are decisions; an alert that has its Job already is none.
_DECISIONS: Final = {
    Outcome.CREATED: Decided.CREATED,
    Outcome.REFUSED: Decided.REFUSED,
    Outcome.ERROR: Decided.NOT_CREATED,
}


def alert_attributes(alert: Alert) -> Attributes:
    """Return the attributes of a step for an alert."""
    return {"openfero.alert": alert.name, "openfero.status": alert.status.value}


def match_attributes(matched: Match | NoMatch) -> Attributes:
    """Return which operario matches an alert, or why none does."""
    if isinstance(matched, NoMatch):
        return {"openfero.reason": matched.reason.value}
    return {"openfero.operario": matched.operario.name}


def result_attributes(item: Item, operario: Operario) -> Attributes:
    """Return what became of an alert, as attributes of the step that submitted it."""
    attributes = {"openfero.outcome": item.outcome.value, "openfero.operario": item.operario}
    if item.outcome in _DECISIONS:
        attributes["openfero.commit"] = operario.origin.commit
    if item.reason is not None:
        attributes["openfero.reason"] = item.reason.value
    if item.job is not None:
        attributes["k8s.namespace.name"] = item.job.namespace
        attributes["k8s.job.name"] = item.job.name
    return attributes


def log_result(item: Item, operario: Operario, traceparent: str) -> None:
    """Log what was decided about an alert, if something was."""
    decision = _DECISIONS.get(item.outcome)
    # (While too many Jobs wait, that is logged once.)
    if decision is None or item.job is None or item.reason is Reason.TOO_MANY_WAITING:
        return
    log_decision(
        decision,
        alert=item.alert.name,
        operario=item.operario,
        job=item.job,
        commit=operario.origin.commit,
        reason=item.reason.value if item.reason is not None else "",
        message=item.message,
        traceparent=traceparent,
    )

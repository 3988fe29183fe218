"""The answer to a delivery, put together from the results of its alerts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from openfero_gitops.delivery.pairs import identity_of
from openfero_gitops.domain.answer import Answer, Item, Verdict
from openfero_gitops.domain.errors import Conflict, Forbidden, Invalid
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.delivery.pairs import Identity
    from openfero_gitops.domain.alert import Alert, AlertGroup, InvalidAlert
    from openfero_gitops.domain.errors import ApiError


class NameTaken(Conflict):
    """The name belongs to a Job that is being deleted, or to another alert."""


def failed(alert: Alert, reason: Reason, message: str) -> Item:
    """The result of an alert without a Job, whose delivery must be repeated."""
    return Item(alert, Outcome.ERROR, reason, message, verdict=Verdict.REPEAT)


def unmatched(alert: Alert, reason: Reason) -> Item:
    """The result of an alert that needs no Job."""
    return Item(alert, Outcome.NO_MATCH, reason, reason.text)


def all_failed(group: AlertGroup, reason: Reason) -> Answer:
    """The answer to a delivery of which no alert has a Job, for one reason."""
    return with_invalid(group, [failed(alert, reason, reason.text) for alert in group.alerts])


def answer_of(group: AlertGroup, items: Mapping[Identity, Item]) -> Answer:
    """The answer to a delivery; an alert without an item had no answer in time."""
    return with_invalid(
        group,
        [
            items.get(identity_of(alert))
            or failed(alert, Reason.API_UNAVAILABLE, "no answer in time")
            for alert in group.alerts
        ],
    )


def with_invalid(group: AlertGroup, items: list[Item]) -> Answer:
    """Answer a delivery in its order; `items` are those of the alerts that could be read."""
    answered = iter(items)
    invalid = {alert.index: alert for alert in group.invalid}
    return Answer(
        tuple(
            _unreadable(invalid[index]) if index in invalid else next(answered)
            for index in range(len(items) + len(invalid))
        )
    )


def of_other_member(item: Item, alert: Alert) -> Item:
    """The result of an alert that differs from that of `item` in replica labels alone."""
    outcome = Outcome.EXISTS if item.outcome is Outcome.CREATED else item.outcome
    return replace(item, alert=alert, outcome=outcome)


def _unreadable(alert: InvalidAlert) -> Item:
    message = f"{alert.pointer}: {alert.problem}" if alert.pointer else alert.problem
    return Item(
        alert,
        Outcome.INVALID,
        Reason.INVALID_ALERT,
        message,
        verdict=Verdict.UNPROCESSABLE,
    )


def reason_of(error: ApiError) -> Reason:
    """Return why an alert has no Job if a request for it failed."""
    match error:
        case Invalid():
            return Reason.API_REFUSED
        case NameTaken():
            return Reason.NAME_TAKEN
        case Forbidden():
            return Reason.API_FORBIDDEN
        case Conflict():
            return Reason.API_CONFLICT
        case _:
            return Reason.API_UNAVAILABLE

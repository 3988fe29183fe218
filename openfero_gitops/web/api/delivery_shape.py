"""The models of the answers to deliveries and push hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.web.api.problem_document import ProblemDocument
from openfero_gitops.web.api.shape import Shape, Text

if TYPE_CHECKING:
    from openfero_gitops.domain.answer import Item


class DeliveryItemShape(Shape):
    """What became of one alert of a delivery."""

    alertname: Text
    status: Status | None
    fingerprint: Text
    outcome: Outcome
    operario: Text | None
    """Name of the operario that answers."""
    namespace: Text | None
    """Namespace of the Job."""
    job: Text | None
    """Name of the Job."""
    reason: Reason | None
    message: Text | None


class DeliveryShape(Shape):
    """The answer to a delivery: every matched alert has its Job."""

    items: list[DeliveryItemShape]
    """Each alert, in the order of the delivery."""


class DeliveryProblem(ProblemDocument):
    """The answer to a delivery of which an alert has no Job."""

    items: list[DeliveryItemShape]
    """Each alert, in the order of the delivery; empty if the delivery was not read."""


class PushShape(Shape):
    """The answer to a push hook."""

    sync: bool
    """Whether a sync was requested."""
    message: Text


def delivery_item(value: Item) -> dict[str, str | None]:
    """Convert one alert of the answer to a delivery to what a `DeliveryItemShape` serialises to.

    (Without pydantic, because there may be thousands in an answer.)
    """
    job = value.job
    return {
        "alertname": value.alert.name,
        "status": value.alert.status,
        "fingerprint": value.alert.fingerprint,
        "outcome": value.outcome,
        "operario": value.operario or None,
        "namespace": job.namespace if job else None,
        "job": job.name if job else None,
        "reason": value.reason,
        "message": value.message or None,
    }

"""Serves `POST /api/explain`: what alerts would do, in the JSON of the command `explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.author.alert_file import read_alerts
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import TooLarge
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.web.api.operation import Operation, Reply, Tag, serve
from openfero_gitops.web.api.route import json_response, problem_replies
from openfero_gitops.web.api.shape import Shape, Text, encode
from openfero_gitops.web.bodies import Reservation, read_body
from openfero_gitops.web.explaining import (
    MAX_ALERTS,
    MAX_BODY_BYTES,
    MEMORY_FACTOR,
    explain_alerts,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from aiohttp import web

    from openfero_gitops.author.explain import Explanation
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.bodies import BodyBudget
    from openfero_gitops.web.ports import ReplicaState
    from openfero_gitops.web.turns import Turns


class ExplanationShape(Shape):
    """What one alert would do, if the cluster had no other Jobs."""

    alertname: Text
    status: Status
    fingerprint: Text
    outcome: Outcome
    """`created`, `refused` or `no-match`."""
    operario: Text | None
    """The operario that matches."""
    reason: Reason | None
    """Why there is no Job, why it is refused or what it waits for."""
    message: Text
    """The reason in words, the other operarios, and the conditions for the start, line by line."""


class ExplanationsShape(Shape):
    """What alerts would do."""

    alerts: list[ExplanationShape]


_EXPLAIN: Final = Operation(
    "POST",
    "/api/explain",
    "Explain which operario matches alerts, or why none does",
    Tag.ALERTS,
    {
        200: Reply("Each alert with what it would do.", ExplanationsShape),
        **problem_replies(400, 401, 403, 413, 415, 429, 500, 503),
    },
    "Nothing is stored or created. The body is a payload of Alertmanager, a single alert, the "
    "output of `amtool alert query -o json`, or an answer of the API of Alertmanager or "
    f"Prometheus, with at most {MAX_ALERTS} alerts. The answer is that of `openfero-gitops "
    "explain --format json`: it does not depend on the Jobs that exist.",
    body=Any,
)


def add_explain(
    app: web.Application,
    state: ReplicaState,
    guard: Guard,
    turns: Turns,
    *,
    now: Callable[[], datetime],
    budget: BodyBudget,
) -> None:
    """Serve the endpoint; `budget` is for bodies."""

    async def respond(request: web.Request) -> web.Response:
        guard.check(request)
        with Reservation(budget) as reservation:
            body = await read_body(request, MAX_BODY_BYTES, reservation)
            reservation.add(MEMORY_FACTOR * len(body))
            group = read_alerts(bytes(body))
            if len(group.alerts) > MAX_ALERTS:
                raise TooLarge(
                    f"the body has {len(group.alerts)} alerts, more than {MAX_ALERTS}",
                    "too-many-alerts",
                )
            async with turns.take(request):
                explanations = await explain_alerts(state, group, now())
            return json_response(request, encode(explanations_shape(explanations)))

    serve(app, _EXPLAIN, respond)


def explanations_shape(explanations: list[Explanation]) -> ExplanationsShape:
    """Convert what alerts would do."""
    return ExplanationsShape(
        alerts=[
            ExplanationShape(
                alertname=explanation.alert.name,
                status=explanation.alert.status,
                fingerprint=explanation.alert.fingerprint,
                outcome=explanation.outcome,
                operario=explanation.operario or None,
                reason=explanation.reason,
                message="\n".join((explanation.message, *explanation.details)),
            )
            for explanation in explanations
        ]
    )

"""Serves the Alertmanager webhook."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.decision_log import trace_fields
from openfero_gitops.delivery.alertmanager import PayloadLimits, read_delivery
from openfero_gitops.domain.answer import Verdict
from openfero_gitops.domain.errors import Overloaded, TooLarge
from openfero_gitops.domain.help import HTTP_TOPICS
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.tracing import NO_TRACES
from openfero_gitops.web.api.delivery_shape import delivery_item
from openfero_gitops.web.api.described import ALERTS_OK, DELIVER, DELIVER_TO_ALERT
from openfero_gitops.web.api.operation import serve
from openfero_gitops.web.bodies import BodyBudget, Reservation, read_body
from openfero_gitops.web.errors import CLIENT_ERRORS, problem_of, problem_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.ports import Traces
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import Deliveries, Exposition

_log = structlog.get_logger(__name__)

#: The page of alerts, if the application serves pages.
ALERTS_PAGE: Final[web.AppKey[Handler]] = web.AppKey("alerts page")

#: The memory of all deliveries in progress, by the size that one may have. The largest valid
#: delivery needs less than three quarters of it.
_BUDGET_FACTOR: Final = 16
#: Larger bodies take longer than 10 ms to parse if they are made for that, and are parsed in a
#: thread: one at a time, because the interpreter runs one thread at a time anyway.
_MAX_BYTES_PARSED_INLINE: Final = 16 * 1024
_TOO_LARGE_ADVICE: Final = (
    "set max_alerts for this receiver in Alertmanager, or raise --max-delivery-size"
)
#: From the header of a delivery to its answer, however slowly its body arrives. The submitter
#: times out earlier, so that the answer lists the outcome of each alert.
TIMEOUT_SECONDS: Final = 8.9


class Intake:
    """Reads deliveries: what one may contain, and the memory that all of them may use."""

    def __init__(
        self, limits: PayloadLimits, too_large: Callable[[str], None] = lambda _: None
    ) -> None:
        """Take the limits, and what is called with the cause if a delivery exceeds one."""
        self.budget = BodyBudget(_BUDGET_FACTOR * limits.size)
        self.too_large = too_large
        self._limits = limits
        self._parsing = asyncio.Lock()

    async def read(self, request: web.Request, reservation: Reservation) -> AlertGroup:
        """Read and parse a delivery; see `read_body` and `read_delivery` for what is raised."""
        limits = self._limits
        body = await read_body(request, limits.size, reservation, _TOO_LARGE_ADVICE)
        if len(body) <= _MAX_BYTES_PARSED_INLINE:
            return read_delivery(body, limits, reservation.add)
        async with self._parsing:
            return await asyncio.to_thread(read_delivery, body, limits, reservation.add)


def add_webhook(
    app: web.Application,
    deliveries: Deliveries,
    exposition: Exposition,
    guard: Guard,
    intake: Intake,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    traces: Traces = NO_TRACES,
) -> None:
    """Serve `POST /alerts` and `/alert`, also with a slash, and OpenFero's `GET /alerts`.

    Each answer to a POST has `items`; they are empty if the delivery could not be read.
    """

    async def deliver(request: web.Request) -> web.Response:
        started = time.perf_counter()
        try:
            guard.check(request)
        except CLIENT_ERRORS as error:
            response = refuse(request, error)
        else:
            with traces.delivery(request.method, request.path, request.headers) as step:
                response = await respond(request, started)
                step.set({"http.response.status_code": response.status})
                if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    step.fail("the delivery must be repeated")
        exposition.answered(response.status, time.perf_counter() - started)
        return response

    async def respond(request: web.Request, started: float) -> web.Response:
        try:
            async with asyncio.timeout(timeout_seconds):
                with Reservation(intake.budget) as reservation:
                    answer = await deliveries.deliver(await intake.read(request, reservation))
                    response = _response(answer)
        except CLIENT_ERRORS as error:
            return refuse(request, error)
        except TimeoutError:
            detail = f"the delivery was not processed within {timeout_seconds:g} s; repeat it"
            response = problem_response(503, detail, topics=HTTP_TOPICS, items=[])
            _log.warning(
                "delivery timed out",
                code=response.status,
                sender=request.remote,
                **trace_fields(traces.traceparent),
            )
            return response
        _log.info(
            "delivery",
            code=response.status,
            alerts=len(answer.items),
            seconds=round(time.perf_counter() - started, 3),
            **Counter(item.outcome.value for item in answer.items),
            **trace_fields(traces.traceparent),
        )
        return response

    def refuse(request: web.Request, error: Exception) -> web.Response:
        response = problem_of(error, request, topics=HTTP_TOPICS, items=[])
        _log_refusal(request, response.status, error)
        _count_refusal(exposition, intake, error)
        return response

    # People write a trailing slash.
    serve(app, DELIVER, deliver, also=[f"{DELIVER.path}/"])
    serve(app, DELIVER_TO_ALERT, deliver, also=[f"{DELIVER_TO_ALERT.path}/"])
    add_alerts_check(app, guard)


def add_alerts_check(app: web.Application, guard: Guard) -> None:
    """Serve OpenFero's `GET /alerts`, and to browsers the page of alerts if it is served here."""

    async def get(request: web.Request) -> web.StreamResponse:
        page = app.get(ALERTS_PAGE)
        if page is not None and "text/html" in request.headers.get("Accept", ""):
            return await page(request)
        guard.check(request)
        return web.json_response("OK")

    serve(app, ALERTS_OK, get, also=[f"{ALERTS_OK.path}/"])


def _log_refusal(request: web.Request, code: int, error: Exception) -> None:
    """Log a refused delivery. Alertmanager repeats none but 503, so nothing else may mention it."""
    if isinstance(error, web.HTTPServiceUnavailable):
        return  # a client that tries wrong credentials; the guard logged it
    _log.warning(
        "delivery refused",
        code=code,
        path=request.path,
        sender=request.remote,
        error=" ".join(str(error).split()),
    )


def _count_refusal(exposition: Exposition, intake: Intake, error: Exception) -> None:
    if isinstance(error, TooLarge):
        exposition.refused(error.cause)
        intake.too_large(error.cause)
    elif isinstance(error, Overloaded):
        exposition.refused(Reason.BUSY.value)


def _response(answer: Answer) -> web.Response:
    items = [delivery_item(item) for item in answer.items]
    verdict = answer.verdict
    if verdict is Verdict.ACCEPTED:
        return web.json_response({"items": items})
    worst = next(item for item in answer.items if item.verdict is verdict)
    if verdict is Verdict.REPEAT:
        advice = "repeat the delivery"
    elif worst.outcome is Outcome.INVALID:
        advice = "correct the alert"
    else:
        advice = "fix the operario"
    failed = answer.count(Outcome.ERROR, Outcome.INVALID)
    name = worst.alert.name or "an alert without a name"
    reason = worst.reason.value if worst.reason else ""
    job = f", Job {worst.job}" if worst.job else ""
    detail = (
        f"{failed} of {len(items)} alerts have no Job ({advice}): {name}{job}: "
        f"{reason}: {worst.message}"
    )
    return problem_response(verdict.value, detail, topics=HTTP_TOPICS, items=items)

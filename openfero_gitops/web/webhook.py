"""Serves the Alertmanager webhook."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.domain.answer import Verdict
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.web import shapes
from openfero_gitops.web.errors import CLIENT_ERRORS, problem_of, problem_response

if TYPE_CHECKING:
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import Deliveries, Exposition

_log = structlog.get_logger(__name__)

#: A thousand alerts with long annotations take a tenth of it.
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
#: From the header of a delivery to its answer, however slowly its body arrives. The submitter
#: times out earlier, so that the answer lists the outcome of each alert.
TIMEOUT_SECONDS: Final = 8.9


def add_webhook(
    app: web.Application,
    deliveries: Deliveries,
    exposition: Exposition,
    guard: Guard,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> None:
    """Serve `POST /alerts` and `/alert`, and OpenFero's `GET /alerts`.

    Each answer to a POST has `items`; they are empty if the delivery could not be read.
    """

    async def deliver(request: web.Request) -> web.Response:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_seconds):
                guard.check(request)
                _refuse_compressed(request)
                answer = await deliveries.deliver(read_payload(await request.read()))
        except CLIENT_ERRORS as error:
            response = problem_of(error, request, items=[])
            # Alertmanager does not repeat it, so this log entry is the only trace.
            reason = " ".join(str(error).split())
            _log.warning(
                "delivery refused", code=response.status, sender=request.remote, error=reason
            )
        except TimeoutError:
            detail = f"the delivery was not processed within {timeout_seconds:g} s; repeat it"
            response = problem_response(503, detail, items=[])
            _log.warning("delivery timed out", code=response.status, sender=request.remote)
        else:
            response = _response(answer)
            _log.info(
                "delivery",
                code=response.status,
                alerts=len(answer.items),
                seconds=round(time.perf_counter() - started, 3),
                **{outcome.value: n for outcome in Outcome if (n := answer.count(outcome))},
            )
        exposition.answered(response.status, time.perf_counter() - started)
        return response

    async def get(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response("OK")

    for path in ("/alerts", "/alert"):
        app.router.add_post(path, deliver)
    app.router.add_get("/alerts", get)


def _refuse_compressed(request: web.Request) -> None:
    """Refuse a compressed body: it may be huge when decompressed, and Alertmanager sends none.

    Raises:
        web.HTTPUnsupportedMediaType: the body is compressed.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise web.HTTPUnsupportedMediaType(
            text="Content-Encoding is not supported; send an uncompressed body",
            headers={"Accept-Encoding": "identity"},
        )


def _response(answer: Answer) -> web.Response:
    items = [shapes.item(item) for item in answer.items]
    if answer.verdict is Verdict.ACCEPTED:
        return web.json_response({"items": items})
    worst = next(item for item in answer.items if item.verdict is answer.verdict)
    advice = "repeat the delivery" if answer.verdict is Verdict.REPEAT else "fix the operario"
    failed = answer.count(Outcome.ERROR)
    name = worst.alert.name or "an alert without a name"
    reason = worst.reason.value if worst.reason else ""
    job = f", Job {worst.job}" if worst.job else ""
    detail = (
        f"{failed} of {len(items)} alerts have no Job ({advice}): {name}{job}: "
        f"{reason}: {worst.message}"
    )
    return problem_response(answer.verdict.value, detail, items=items)

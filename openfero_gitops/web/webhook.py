"""The Alertmanager webhook."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.domain.answer import Verdict
from openfero_gitops.domain.remediation import Outcome
from openfero_gitops.pipeline.payload import read_payload
from openfero_gitops.web import shapes
from openfero_gitops.web.errors import problem_response

if TYPE_CHECKING:
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.state import Deliveries, Exposition

_log = structlog.get_logger(__name__)

#: Bytes; a thousand alerts with long annotations are a tenth of it.
BODY_LIMIT: Final = 16 * 1024 * 1024


def add_webhook(
    app: web.Application, deliveries: Deliveries, exposition: Exposition, guard: Guard
) -> None:
    """Serve `POST /alerts` and `/alert`, and OpenFero's `GET /alerts`."""

    async def deliver(request: web.Request) -> web.Response:
        began = time.perf_counter()
        guard.check(request)
        answer = await deliveries.deliver(read_payload(await request.read()))
        seconds = time.perf_counter() - began
        exposition.answered(seconds)
        _log.info(
            "delivery",
            code=answer.verdict.value,
            alerts=len(answer.items),
            seconds=round(seconds, 3),
            **{outcome.value: n for outcome in Outcome if (n := answer.count(outcome))},
        )
        return _response(answer)

    async def here(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response("OK")

    for path in ("/alerts", "/alert"):
        app.router.add_post(path, deliver)
    app.router.add_get("/alerts", here)


def _response(answer: Answer) -> web.Response:
    items = [shapes.item(item) for item in answer.items]
    if answer.verdict is Verdict.ACCEPTED:
        return web.json_response({"items": items})
    worst = next(item for item in answer.items if item.verdict is answer.verdict)
    what = "repeat the delivery" if answer.verdict is Verdict.REPEAT else "mend the operario"
    failed = answer.count(Outcome.ERROR)
    name = worst.alert.name or "an alert without a name"
    reason = worst.reason.value if worst.reason else ""
    job = f", Job {worst.job}" if worst.job else ""
    detail = (
        f"{failed} of {len(items)} alerts have no Job ({what}): {name}{job}: "
        f"{reason}: {worst.message}"
    )
    return problem_response(answer.verdict.value, detail, items=items)

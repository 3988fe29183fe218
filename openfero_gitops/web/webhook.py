"""The Alertmanager webhook."""

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
from openfero_gitops.web.errors import CALLERS_FAULT, problem_of, problem_response

if TYPE_CHECKING:
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import Deliveries, Exposition

_log = structlog.get_logger(__name__)

#: Bytes; a thousand alerts with long annotations are a tenth of it.
BODY_LIMIT: Final = 16 * 1024 * 1024


#: Seconds from the head of a delivery to its answer, however slowly its body comes. Who takes
#: deliveries gives up earlier, and then says of each alert what became of it.
PATIENCE: Final = 8.9


def add_webhook(
    app: web.Application,
    deliveries: Deliveries,
    exposition: Exposition,
    guard: Guard,
    patience: float = PATIENCE,
) -> None:
    """Serve `POST /alerts` and `/alert`, and OpenFero's `GET /alerts`.

    Every answer to a POST has `items`; where nothing could be read they are empty.
    """

    async def deliver(request: web.Request) -> web.Response:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(patience):
                guard.check(request)
                _refuse_packed(request)
                answer = await deliveries.deliver(read_payload(await request.read()))
        except CALLERS_FAULT as error:
            response = problem_of(error, request, items=[])
            # Alertmanager does not send it again: this line is all that is left of it.
            why = " ".join(str(error).split())
            _log.warning("delivery refused", code=response.status, sender=request.remote, error=why)
        except TimeoutError:
            detail = f"the delivery was not taken within {patience:g} s: repeat it"
            response = problem_response(503, detail, items=[])
            _log.warning("delivery cut off", code=response.status, sender=request.remote)
        else:
            response = _response(answer)
            _log.info(
                "delivery",
                code=response.status,
                alerts=len(answer.items),
                seconds=round(time.perf_counter() - began, 3),
                **{outcome.value: n for outcome in Outcome if (n := answer.count(outcome))},
            )
        exposition.answered(response.status, time.perf_counter() - began)
        return response

    async def here(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response("OK")

    for path in ("/alerts", "/alert"):
        app.router.add_post(path, deliver)
    app.router.add_get("/alerts", here)


def _refuse_packed(request: web.Request) -> None:
    """Refuse a compressed body: Alertmanager sends none, and a small one may unpack to a huge one.

    Raises:
        web.HTTPUnsupportedMediaType: it is compressed.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise web.HTTPUnsupportedMediaType(
            text="send the body as it is: no Content-Encoding is taken",
            headers={"Accept-Encoding": "identity"},
        )


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

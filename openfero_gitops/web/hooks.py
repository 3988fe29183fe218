"""The push hook: a forge says that there is something new, so that nobody waits for the interval.

It is a way to ask for a sync and nothing else; which repository and ref are read stands in the
settings alone.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.web.errors import CALLERS_FAULT, problem_of
from openfero_gitops.web.forges import authenticate, concerns, read_push

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.web.auth import SecretLines

_log = structlog.get_logger(__name__)

#: Bytes; forges cut the commits of a large push, not its refs.
BODY_LIMIT: Final = 8 * 1024 * 1024
#: Seconds in which a body has to come.
PATIENCE: Final = 10.0
#: Bytes from which JSON is read beside the event loop.
_LARGE: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class PushHook:
    """What to do when a forge tells of a push to `ref`, and the secrets that prove a forge."""

    ask_for_sync: Callable[[], None]
    ref: str
    secrets: SecretLines | None


def add_push_hook(app: web.Application, push: PushHook) -> None:
    """Serve `POST /hooks/git`: 202 where a sync was asked for, 200 where the push is of no concern.

    Without secrets the hook is off: whoever could call it could keep the controller busy.
    """

    async def hook(request: web.Request) -> web.Response:
        try:
            return await _take(request, push)
        except CALLERS_FAULT as error:
            response = problem_of(error, request)
            _log.warning(
                "push hook refused",
                code=response.status,
                sender=request.remote,
                error=" ".join(str(error).split()),
            )
            return response

    app.router.add_post("/hooks/git", hook)


async def _take(request: web.Request, hook: PushHook) -> web.Response:
    if hook.secrets is None:
        raise web.HTTPForbidden(text="push hooks are off: start with --hook-secret-file")
    if (request.content_length or 0) > BODY_LIMIT:
        raise web.HTTPRequestEntityTooLarge(BODY_LIMIT, request.content_length or 0)
    try:
        async with asyncio.timeout(PATIENCE):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come in {PATIENCE:g} s") from None
    if len(body) > BODY_LIMIT:
        raise web.HTTPRequestEntityTooLarge(BODY_LIMIT, len(body))
    forge = authenticate(request.headers, body, hook.secrets.now(), time.time())
    if forge is None:
        raise web.HTTPUnauthorized(
            text="no signature of a forge that is known here, or a wrong one: give the hook the "
            "secret of --hook-secret-file"
        )
    if len(body) > _LARGE:
        push = await asyncio.to_thread(read_push, forge, request.headers, body)
    else:
        push = read_push(forge, request.headers, body)
    concerned = concerns(push, hook.ref)
    _log.info(
        "push hook",
        forge=forge.value,
        push=push.event[:80],
        refs=[one[:200] for one in push.refs[:20]],
        sync=concerned,
    )
    if not concerned:
        return web.json_response({"sync": False, "message": f"this does not move {hook.ref}"})
    hook.ask_for_sync()
    return web.json_response(
        {"sync": True, "message": "a sync was asked for: /api/sync tells of it"}, status=202
    )

"""Serves the push hook: a forge reports a push, and the controller syncs at once.

A hook can only request a sync. Which repository and ref are read depends on the settings alone.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.web.errors import CLIENT_ERRORS, problem_of
from openfero_gitops.web.forges import authenticate, may_move, read_push

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.web.auth import SecretLines

_log = structlog.get_logger(__name__)

#: Forges shorten the list of commits of a large push, but not its refs.
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
BODY_TIMEOUT_SECONDS: Final = 10.0
#: Larger bodies are parsed in a thread.
_MAX_BYTES_PARSED_INLINE: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class PushHook:
    """Requests a sync for pushes to `ref` that are signed with one of the secrets."""

    request_sync: Callable[[], None]
    ref: str
    secrets: SecretLines | None


def add_push_hook(app: web.Application, push: PushHook) -> None:
    """Serve `POST /hooks/git`: 202 if a sync was requested, 200 if the push is not relevant.

    Without secrets the hook is off, so that nobody can flood the controller with syncs.
    """

    async def hook(request: web.Request) -> web.Response:
        try:
            return await _handle(request, push)
        except CLIENT_ERRORS as error:
            response = problem_of(error, request)
            _log.warning(
                "push hook refused",
                code=response.status,
                sender=request.remote,
                error=" ".join(str(error).split()),
            )
            return response

    app.router.add_post("/hooks/git", hook)


async def _handle(request: web.Request, hook: PushHook) -> web.Response:
    if hook.secrets is None:
        raise web.HTTPForbidden(text="push hooks are off; set --hook-secret-file")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(
            text=f"the body was not received within {BODY_TIMEOUT_SECONDS:g} s"
        ) from None
    if len(body) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(body))
    forge = authenticate(request.headers, body, hook.secrets.now(), time.time())
    if forge is None:
        raise web.HTTPUnauthorized(
            text="missing or wrong signature; use a secret from --hook-secret-file for the hook"
        )
    if len(body) > _MAX_BYTES_PARSED_INLINE:
        push = await asyncio.to_thread(read_push, forge, request.headers, body)
    else:
        push = read_push(forge, request.headers, body)
    relevant = may_move(push, hook.ref)
    _log.info(
        "push hook",
        forge=forge.value,
        push=push.event[:80],
        refs=[ref[:200] for ref in push.refs[:20]],
        sync=relevant,
    )
    if not relevant:
        return web.json_response({"sync": False, "message": f"the push does not change {hook.ref}"})
    hook.request_sync()
    return web.json_response({"sync": True, "message": "sync requested; see /api/sync"}, status=202)

"""Serves the push hook: a forge reports a push, and the controller syncs at once.

A hook can only request a sync. Which repository and ref are read depends on the settings alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.web.api.described import PUSH
from openfero_gitops.web.api.operation import serve
from openfero_gitops.web.bodies import Reservation, receive
from openfero_gitops.web.errors import CLIENT_ERRORS, problem_of
from openfero_gitops.web.forges import begin_proof, may_move, read_push

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.web.auth import SecretLines
    from openfero_gitops.web.bodies import BodyBudget
    from openfero_gitops.web.forges import Proof

_log = structlog.get_logger(__name__)

#: GitHub sends at most 25 MB, and more than other forges.
MAX_BODY_BYTES: Final = 25 * 1024 * 1024
#: The beginning of a body, which is kept until the signature is verified. Forges write the refs
#: before the commits.
KEPT_BYTES: Final = 256 * 1024
BODY_TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class PushHook:
    """Requests a sync for pushes to `ref` that are signed with one of the secrets.

    `block_seconds` returns for how long the Git server wants no request, which a push does not
    change.
    """

    request_sync: Callable[[], None]
    ref: str
    secrets: SecretLines | None
    block_seconds: Callable[[], float] = float


def add_push_hook(app: web.Application, push: PushHook, budget: BodyBudget) -> None:
    """Serve `POST /hooks/git`: 202 if a sync was requested, 200 if the push is not relevant.

    Without secrets the hook is off, so that nobody can flood the controller with syncs.
    """

    async def hook(request: web.Request) -> web.Response:
        try:
            with Reservation(budget) as reservation:
                return await _handle(request, push, reservation)
        except CLIENT_ERRORS as error:
            response = problem_of(error, request)
            _log.warning(
                "push hook refused",
                code=response.status,
                sender=request.remote,
                error=" ".join(str(error).split()),
            )
            return response

    serve(app, PUSH, hook)


async def _handle(request: web.Request, hook: PushHook, reservation: Reservation) -> web.Response:
    if hook.secrets is None:
        raise web.HTTPForbidden(text="push hooks are off; set --hook-secret-file")
    # Nothing of the body is read if the headers alone show that it cannot be verified.
    proof = begin_proof(request.headers, hook.secrets.now(), time.time())
    if proof is None:
        raise _unauthorized()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            body, complete = await _read(request, proof, reservation)
    except TimeoutError:
        raise web.HTTPRequestTimeout(
            text=f"the body was not received within {BODY_TIMEOUT_SECONDS:g} s"
        ) from None
    if not proof.holds():
        raise _unauthorized()
    push = read_push(proof.forge, request.headers, body, complete=complete)
    relevant = may_move(push, hook.ref)
    _log.info(
        "push hook",
        forge=proof.forge.value,
        push=push.event[:80],
        refs=[ref[:200] for ref in push.refs[:20]],
        sync=relevant,
    )
    if not relevant:
        return web.json_response({"sync": False, "message": f"the push does not change {hook.ref}"})
    hook.request_sync()
    message = "sync requested; see /api/sync"
    if seconds := math.ceil(hook.block_seconds()):
        message = (
            f"sync requested; it starts in {seconds} s, because the Git server wants no request"
            " until then (Retry-After); see /api/sync"
        )
    return web.json_response({"sync": True, "message": message}, status=202)


async def _read(request: web.Request, proof: Proof, reservation: Reservation) -> tuple[bytes, bool]:
    """Sign a body as it arrives; return its beginning, and whether that is all of it."""
    kept = bytearray()
    complete = True

    def take(piece: bytes) -> None:
        nonlocal complete
        proof.update(piece)
        part = piece[: KEPT_BYTES - len(kept)]
        reservation.add(len(part))
        kept.extend(part)
        complete = complete and len(part) == len(piece)

    await receive(request, MAX_BODY_BYTES, take)
    return bytes(kept), complete


def _unauthorized() -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(
        text="missing or wrong signature; use a secret from --hook-secret-file for the hook"
    )

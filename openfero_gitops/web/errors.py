"""Every error as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from openfero_gitops.domain.errors import PayloadError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_log = structlog.get_logger(__name__)


def problem_response(
    status: int, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> web.Response:
    """A problem document; `members` are added to it."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return web.Response(
        status=status,
        text=json.dumps(body, ensure_ascii=False),
        content_type="application/problem+json",
        headers=headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what was raised into a problem document; a defect of ours is logged and is a 500."""
    try:
        return await handler(request)
    except PayloadError as error:
        return problem_response(400, str(error))
    except web.HTTPRequestEntityTooLarge:
        return problem_response(413, f"the body is larger than {request.client_max_size} bytes")
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        kept = {k: v for k, v in error.headers.items() if k in ("Allow", "WWW-Authenticate")}
        return problem_response(error.status, error.text or error.reason, kept)
    except Exception:  # noqa: BLE001 - the last line of defence, which logs what it caught
        _log.exception("a request failed", method=request.method, path=request.path)
        return problem_response(500, "this is a defect of openfero-gitops: its log says more")

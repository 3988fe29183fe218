"""Every error as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from openfero_gitops.domain.errors import PayloadError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_log = structlog.get_logger(__name__)

#: Headers of an error that say what to do instead.
_KEPT: Final = frozenset({"WWW-Authenticate", "Accept-Encoding"})
#: Characters of a path that are repeated.
_SHOWN: Final = 200


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
        # (Half a character, which UTF-8 cannot hold, becomes an escape that JSON knows.)
        body=json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace"),
        content_type="application/problem+json",
        headers=headers,
    )


def problem_of(error: Exception, request: web.Request, **members: Any) -> web.Response:
    """The problem document of a fault that is the caller's; `members` are added to it."""
    match error:
        case PayloadError():
            return problem_response(400, str(error), **members)
        case web.RequestPayloadError():
            return problem_response(400, "the body is not encoded as its headers say", **members)
        case web.HTTPRequestEntityTooLarge():
            detail = f"the body is larger than {request.client_max_size} bytes"
            return problem_response(413, detail, **members)
        case web.HTTPNotFound():
            return problem_response(404, f"nothing is served at {_path(request)}", **members)
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{_path(request)} is for {allowed}, not for {request.method}"
            return problem_response(405, detail, {"Allow": allowed}, **members)
        case web.HTTPException():
            kept = {k: v for k, v in error.headers.items() if k in _KEPT}
            return problem_response(error.status, error.text or error.reason, kept, **members)
    raise TypeError(f"{type(error).__name__} is no fault of a caller") from error


#: What `problem_of` takes.
CALLERS_FAULT: Final = (PayloadError, web.RequestPayloadError, web.HTTPException)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what was raised into a problem document; a defect of ours is logged and is a 500."""
    try:
        return await handler(request)
    except CALLERS_FAULT as error:
        if isinstance(error, web.HTTPException) and error.status < HTTPStatus.BAD_REQUEST:
            raise
        return problem_of(error, request)
    except Exception as error:  # noqa: BLE001 - the last line of defence, which logs what it caught
        if isinstance(error, ConnectionError) and request.transport is None:
            _log.info("a caller broke off", method=request.method, path=_path(request))
            return problem_response(400, "the request broke off")  # to nobody
        _log.exception("a request failed", method=request.method, path=_path(request))
        return problem_response(500, "this is a defect of openfero-gitops: its log says more")


def _path(request: web.Request) -> str:
    return request.path[:_SHOWN]

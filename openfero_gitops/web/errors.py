"""Answers errors with `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from openfero_gitops.domain.errors import Overloaded, PayloadError, TooLarge
from openfero_gitops.domain.help import link
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

_log = structlog.get_logger(__name__)

#: Headers of an aiohttp error that the answer keeps.
_KEPT_HEADERS: Final = frozenset({"WWW-Authenticate", "Accept-Encoding", "Retry-After"})
#: The text of an unexpected error.
INTERNAL_ERROR: Final = "internal error; see the controller's log"
_MAX_PATH_CHARACTERS: Final = 200
_DEFAULT_NOT_FOUND: Final = web.HTTPNotFound().text
_PATHS_OF_POST: Final = (
    "Alertmanager must send its deliveries to /alerts, and a forge its push hooks to /hooks/git, "
    "both on the address of --listen"
)


def problem_response(
    status: int,
    detail: str,
    headers: dict[str, str] | None = None,
    *,
    topics: Mapping[int, str] = MappingProxyType({}),
    **members: Any,
) -> web.Response:
    """Build a problem document; `members` are added to it.

    `topics` are those of the page that says what to do, by status.
    """
    body = {
        "type": link(topics.get(status, "")) or "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return web.Response(
        status=status,
        # (Lone surrogates, which UTF-8 cannot encode, become JSON escapes.)
        body=json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace"),
        content_type="application/problem+json",
        headers=headers,
    )


def detail_of(error: web.HTTPException, request: web.Request) -> str:
    """Say why a request is refused, and for a POST to a wrong path where to send it."""
    match error:
        case web.HTTPNotFound() if error.text == _DEFAULT_NOT_FOUND:
            detail = f"there is no {_path(request)}"
        case web.HTTPMethodNotAllowed():
            detail = f"{_path(request)} does not support {request.method}; use {_allowed(error)}"
        case _:
            return error.text or error.reason
    return f"{detail}; {_PATHS_OF_POST}" if request.method == "POST" else detail


def _allowed(error: web.HTTPMethodNotAllowed) -> str:
    return ", ".join(sorted(error.allowed_methods))


def problem_of(error: Exception, request: web.Request, **members: Any) -> web.Response:
    """Build the problem document of a client error; `members` are added to it."""
    match error:
        case TooLarge():
            return problem_response(413, str(error), reason=error.cause, **members)
        case Overloaded():
            return problem_response(503, str(error), reason=Reason.BUSY.value, **members)
        case PayloadError():
            return problem_response(400, str(error), **members)
        case web.RequestPayloadError():
            return problem_response(
                400, "the encoding of the body does not match its headers", **members
            )
        case web.HTTPException():
            kept = {k: v for k, v in error.headers.items() if k in _KEPT_HEADERS}
            if isinstance(error, web.HTTPMethodNotAllowed):
                kept["Allow"] = _allowed(error)
            return problem_response(error.status, detail_of(error, request), kept, **members)
    raise TypeError(f"{type(error).__name__} is not a client error") from error


#: The types that `problem_of` accepts.
CLIENT_ERRORS: Final = (PayloadError, Overloaded, web.RequestPayloadError, web.HTTPException)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn exceptions into problem documents; an unexpected one is logged and answered with 500."""
    try:
        return await handler(request)
    except CLIENT_ERRORS as error:
        if isinstance(error, web.HTTPException) and error.status < HTTPStatus.BAD_REQUEST:
            raise
        return problem_of(error, request)
    except Exception as error:  # noqa: BLE001 - logged below
        if isinstance(error, ConnectionError) and request.transport is None:
            _log.info("client disconnected", method=request.method, path=_path(request))
            return problem_response(400, "the client disconnected")  # nobody reads it
        log_internal_error(request)
        return problem_response(500, INTERNAL_ERROR)


def log_internal_error(request: web.Request) -> None:
    """Log the exception that is being handled."""
    _log.exception("internal error", method=request.method, path=_path(request))


def _path(request: web.Request) -> str:
    return printable(request.path, _MAX_PATH_CHARACTERS)

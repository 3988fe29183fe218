"""Counts requests with a body that are refused, and logs those that reach no handler.

Alertmanager retries a delivery only after 5xx. What is sent to a wrong path or listener, or is
refused for its headers, never arrives, and Alertmanager's own log is seldom read.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from openfero_gitops.domain.text import printable
from openfero_gitops.web.errors import detail_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

    from openfero_gitops.web.ports import Exposition

_log = structlog.get_logger(__name__)

_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
#: Of different paths that are counted by themselves; a scanner asks for thousands.
_MAX_PATHS: Final = 20
_MAX_PATH_CHARACTERS: Final = 100
_OTHER_PATHS: Final = "other"
#: A refused path is logged again after this time: a sender may be wrong for years.
_LOG_INTERVAL_SECONDS: Final = 60.0


class Refusals:
    """The refused requests of all listeners."""

    def __init__(self, exposition: Exposition, clock: Callable[[], float] = time.monotonic) -> None:
        """Take what counts; `clock` returns seconds."""
        self._exposition = exposition
        self._clock = clock
        self._logged: dict[str, float] = {}  # by path, when

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note a request whose answer is 4xx.

        The handlers of the webhook and of push hooks return their refusals and log them; what is
        raised never reached a handler.
        """
        if request.method not in _METHODS:
            return await handler(request)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            path = self._count(request, error.status)
            self._log(request, error, path)
            raise
        if response.status >= HTTPStatus.BAD_REQUEST:
            self._count(request, response.status)
        return response

    def _count(self, request: web.Request, status: int) -> str:
        """Count a refusal; return the path as it is counted."""
        path = printable(request.path, _MAX_PATH_CHARACTERS)
        if not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return path
        known = request.match_info.http_exception is None
        if not known and path not in self._logged:
            if len(self._logged) >= _MAX_PATHS:
                path = _OTHER_PATHS
            self._logged.setdefault(path, -_LOG_INTERVAL_SECONDS)
        self._exposition.refused_request(path, status)
        return path

    def _log(self, request: web.Request, error: web.HTTPException, path: str) -> None:
        now = self._clock()
        if now - self._logged.get(path, -_LOG_INTERVAL_SECONDS) < _LOG_INTERVAL_SECONDS:
            return
        self._logged[path] = now
        _log.warning(
            "delivery refused",
            code=error.status,
            path=printable(request.path, _MAX_PATH_CHARACTERS),
            sender=request.remote,
            error=detail_of(error, request),
        )

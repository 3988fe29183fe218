"""Serves the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from openfero_gitops.web.api.operation import Operation, Reply, Tag, serve
from openfero_gitops.web.api.route import json_response, problem_replies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiohttp import web

    from openfero_gitops.web.auth import Guard


def add_document(
    app: web.Application, guard: Guard, operations: Callable[[], Iterable[Operation]]
) -> None:
    """Serve `/openapi.json`, made at the first request: all routes are known then."""
    one_at_a_time = asyncio.Lock()

    @cache
    def document() -> bytes:
        # Few replicas ever serve it, and importing the library would slow down every start.
        from openfero_gitops.web.api.openapi import make_document  # noqa: PLC0415

        return json.dumps(make_document(operations())).encode()

    async def respond(request: web.Request) -> web.Response:
        guard.check(request)
        async with one_at_a_time:
            body = await asyncio.to_thread(document)
        return json_response(request, body)

    operation = Operation(
        "GET",
        "/openapi.json",
        "Show this document",
        Tag.CONTROLLER,
        {
            200: Reply("An OpenAPI 3.1 document.", dict[str, Any]),
            304: Reply("The document is still the one with the given ETag.", media_type=""),
            **problem_replies(
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.TOO_MANY_REQUESTS,
                HTTPStatus.INTERNAL_SERVER_ERROR,
            ),
        },
    )
    serve(app, operation, respond)

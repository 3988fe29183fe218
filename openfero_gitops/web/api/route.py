"""Declares the endpoints of the API. An endpoint cannot be added without its description.

To add one, write a module `web/api/NAME.py` with its models and its routes, and list its `routes`
in `add_api`:

    class RunsPath(PathParameters):
        name: Annotated[str, Field(description="Name of the operario.")]

    class RunsShape(Shape):          # an answer; see `shape` for `Text` and `Moment`
        runs: int

    def routes(state: ReplicaState) -> list[AnyRoute]:
        def build(call: Call[RunsPath, QueryParameters]) -> RunsShape:
            return RunsShape(runs=count(state, call.path.name))   # or raise web.HTTPNotFound

        return [Route("/api/operarios/{name}/runs", "Count the runs of an operario",
                      Tag.OPERARIOS, RunsShape, build, path_parameters=RunsPath, errors=(404,))]

A list derives its query from `PagingQuery` and its answer from `ListShape`, and uses `take_page`.
(`PlainPage` is for arrays that clients of OpenFero expect.)
An answer that is not JSON, or that streams, is served with `operation.serve` instead.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from aiohttp import ETag, web

from openfero_gitops.web.api.operation import JSON, PROBLEM, Operation, Reply, Tag, serve
from openfero_gitops.web.api.parameters import (
    PathParameters,
    QueryParameters,
    read_path,
    read_query,
)
from openfero_gitops.web.api.problem_document import ProblemDocument
from openfero_gitops.web.api.shape import ListShape, PlainPage, Shape, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.turns import Turns

#: Smaller answers are not compressed: they fit into one packet anyway.
_MIN_BYTES_COMPRESSED: Final = 1024
#: Larger answers are compressed in a thread.
_MAX_BYTES_COMPRESSED_INLINE: Final = 16 * 1024
#: A weight of 0 in Accept-Encoding: the client does not read that.
_NO_WEIGHT: Final = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")
_ERRORS: Final = {
    400: "A parameter is unknown or wrong; the detail names it.",
    401: "Credentials are missing or wrong.",
    403: "A page of another site caused the request.",
    404: "There is no such object.",
    429: "Too many requests with wrong credentials.",
    500: "Internal error; see the controller's log.",
    503: "Too many requests wait; repeat it later.",
}
#: Errors that every endpoint can answer with.
_COMMON_ERRORS: Final = (400, 401, 403, 429, 500, 503)

P_co = TypeVar("P_co", bound=PathParameters, covariant=True)
Q_co = TypeVar("Q_co", bound=QueryParameters, covariant=True)


@dataclass(frozen=True, slots=True)
class Call(Generic[P_co, Q_co]):
    """A request, with its parameters read.

    `loaded` is the result of the route's `load`; None if it has none.
    """

    request: web.Request
    path: P_co
    query: Q_co
    loaded: Any = None


@dataclass(frozen=True, slots=True)
class Route(Generic[P_co, Q_co]):
    """An endpoint that answers GET with JSON, and its description.

    Attributes:
        path: with variable parts such as `{name}`, which are fields of `path_parameters`.
        summary: what it returns, in a few words.
        tag: the group in which it is listed.
        shape: the model of the answer, or a list of it.
        build: makes the answer; fast, without I/O. May raise `web.HTTPException`.
        path_parameters: the model of the variable parts of the path.
        query: the model of the query.
        errors: statuses besides those that every endpoint has.
        description: what else a client should know.
        load: first waits for what other servers know; limits its own time.
    """

    path: str
    summary: str
    tag: Tag
    shape: Any
    build: Callable[[Call[Any, Any]], Shape | Sequence[Shape]]
    path_parameters: type[PathParameters] = PathParameters
    query: type[QueryParameters] = QueryParameters
    errors: tuple[int, ...] = ()
    description: str = ""
    load: Callable[[Call[Any, Any]], Awaitable[Any]] | None = None

    @property
    def operation(self) -> Operation:
        """Its description."""
        return Operation(
            "GET",
            self.path,
            self.summary,
            self.tag,
            {
                200: Reply("The answer.", self.shape),
                304: Reply("The answer is still the one with the given ETag.", media_type=""),
                **problem_replies(*_COMMON_ERRORS, *self.errors),
            },
            self.description,
            self.path_parameters,
            self.query,
        )


AnyRoute = Route[Any, Any]


def problem_replies(*statuses: int, model: Any = ProblemDocument) -> dict[int, Reply]:
    """Describe errors, each a problem document."""
    return {
        status: Reply(_ERRORS.get(status, HTTPStatus(status).phrase + "."), model, PROBLEM)
        for status in statuses
    }


def add_route(app: web.Application, route: AnyRoute, guard: Guard, turns: Turns) -> None:
    """Serve an endpoint."""

    async def respond(request: web.Request) -> web.Response:
        guard.check(request)
        call = Call(
            request,
            read_path(route.path_parameters, request.match_info),
            read_query(route.query, request.query),
        )
        if route.load is not None:
            call = replace(call, loaded=await route.load(call))
        async with turns.take(request):
            answer = route.build(call)
            body = encode(answer)
        return json_response(request, body, _links(request, answer))

    serve(app, route.operation, respond)


def json_response(
    request: web.Request, body: bytes, headers: dict[str, str] | None = None
) -> web.Response:
    """Answer with JSON, or with 304 if the client has it already."""
    headers = {**(headers or {}), "Vary": "Accept-Encoding"}
    # Weak, because a compressed answer has the same.
    tag = ETag(hashlib.blake2b(body, digest_size=12).hexdigest(), is_weak=True)
    known = request.if_none_match or ()
    readable = request.method in ("GET", "HEAD")  # the answer to a POST is not at its address
    if readable and any(other.value in (tag.value, "*") for other in known):
        response = web.Response(status=304, headers=headers)
    else:
        response = web.Response(
            body=body,
            content_type=JSON,
            charset="utf-8",
            headers=headers,
            zlib_executor_size=_MAX_BYTES_COMPRESSED_INLINE,
        )
        if len(body) >= _MIN_BYTES_COMPRESSED and accepts_gzip(request):
            response.enable_compression(web.ContentCoding.gzip)
    if readable:
        response.etag = tag
    return response


def accepts_gzip(request: web.Request) -> bool:
    """Whether a client reads gzip: it names it, or everything, with a weight above 0."""
    weights: dict[str, bool] = {}
    for part in ",".join(request.headers.getall("Accept-Encoding", ())).lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = _NO_WEIGHT.fullmatch(parameters) is None
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def _links(request: web.Request, answer: object) -> dict[str, str]:
    """Link to the next page of a list: relative, for proxies that serve the API under a path."""
    if not isinstance(answer, ListShape | PlainPage) or answer.continue_ is None:
        return {}
    following = request.rel_url.update_query({"continue": answer.continue_})
    return {"Link": f'<?{following.raw_query_string}>; rel="next"'}

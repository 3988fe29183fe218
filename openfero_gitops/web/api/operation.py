"""Describes what a path of the server does: the values from which the OpenAPI document is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp.typedefs import Handler
    from pydantic import BaseModel

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


class Tag(StrEnum):
    """The groups of operations in the document."""

    REMEDIATIONS = "remediations"
    ALERTS = "alerts"
    OPERARIOS = "operarios"
    CONTROLLER = "controller"
    OPENFERO = "openfero"
    DELIVERIES = "deliveries"
    PROBES = "probes"


@dataclass(frozen=True, slots=True)
class Reply:
    """One of the answers of an operation.

    `model` is a type that pydantic has a schema for; None where the media type says it all.
    """

    description: str
    model: Any = None
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of one path does.

    Attributes:
        method: GET or POST.
        path: with variable parts such as `{name}`.
        summary: what it does, in a few words.
        tag: the group in which it is listed.
        replies: the answers by HTTP status.
        description: what else a client should know.
        path_parameters: the model of the variable parts of the path.
        query: the model of the parameters of the query; None if there are none.
        body: the model of the body of a POST.
        guarded: whether credentials are needed, if the server has any.
        head: whether a GET includes HEAD.
    """

    method: str
    path: str
    summary: str
    tag: Tag
    replies: Mapping[int, Reply] = field(default_factory=dict)
    description: str = ""
    path_parameters: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    body: Any = None
    guarded: bool = True
    head: bool = True


OPERATIONS: Final = web.AppKey("operations", list[Operation])


def serve(
    app: web.Application, operation: Operation, handler: Handler, *, also: Iterable[str] = ()
) -> None:
    """Serve an operation, which is described with that; `also` at paths with a trailing slash."""
    app.setdefault(OPERATIONS, []).append(operation)
    for path in (operation.path, *also):
        if operation.method == "GET":
            app.router.add_get(path, handler, allow_head=operation.head)
        else:
            app.router.add_route(operation.method, path, handler)


def operations_of(apps: Iterable[web.Application]) -> list[Operation]:
    """List the operations of applications, without repetition: each listener has the probes."""
    return list(
        {
            (operation.method, operation.path): operation
            for app in apps
            for operation in app.get(OPERATIONS, [])
        }.values()
    )

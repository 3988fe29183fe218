"""Serves the event stream at `/api/events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.web.api.operation import Operation, Reply, Tag, serve
from openfero_gitops.web.api.parameters import QueryParameters, read_query
from openfero_gitops.web.api.route import problem_replies
from openfero_gitops.web.stream.history import EventFilter
from openfero_gitops.web.stream.models import EventType

if TYPE_CHECKING:
    from aiohttp import web
    from multidict import MultiMapping

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.stream.streams import EventStreams


class EventQuery(QueryParameters):
    """Which events a client wants; a repeated parameter matches any of its values."""

    type: tuple[EventType, ...] = ()
    """Only events of this type."""
    namespace: tuple[str, ...] = ()
    """Only remediations whose Job is in this namespace."""


_OPERATION: Final = Operation(
    "GET",
    "/api/events",
    "Stream what changes, as server-sent events",
    Tag.CONTROLLER,
    {
        200: Reply("The events, until the client disconnects.", str, "text/event-stream"),
        **problem_replies(400, 401, 403, 429, 500, 503),
    },
    "With the header Last-Event-ID, the events since that one come first, if they are still known; "
    "otherwise an event of type reset.",
    query=EventQuery,
    head=False,
)


def add_events(app: web.Application, streams: EventStreams, guard: Guard) -> None:
    """Serve the event stream."""

    async def respond(request: web.Request) -> web.StreamResponse:
        guard.check(request)
        return await streams.respond(request, read_filter(request.query))

    serve(app, _OPERATION, respond)


def read_filter(query: MultiMapping[str]) -> EventFilter:
    """Read which events a client wants; a repeated parameter matches any of its values."""
    parameters = read_query(EventQuery, query)
    return EventFilter(frozenset(parameters.type), frozenset(parameters.namespace))

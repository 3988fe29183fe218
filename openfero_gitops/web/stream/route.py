"""Serves the event stream at `/api/events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.web.api.operation import Operation, Reply, Tag, serve
from openfero_gitops.web.api.parameters import QueryParameters, read_query
from openfero_gitops.web.api.route import problem_replies
from openfero_gitops.web.stream.history import EventFilter
from openfero_gitops.web.stream.models import EventBody, EventType

if TYPE_CHECKING:
    from aiohttp import web

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.stream.streams import EventStreams

_EVENT_STREAM: Final = "text/event-stream"
_DESCRIPTION: Final = (
    "Server-sent events, without end. The schema is that of an event's `data`. An event says that "
    "something changed; read what it is now from the other paths. Several changes of one "
    "remediation within half a second are one event. A client that reconnects with the header "
    "`Last-Event-ID` receives what it missed, or an event `reset` if that is not known any more or "
    "the id is of another replica: read the lists again. A comment is sent every 15 s. The server "
    "ends a stream after ten minutes, when it stops, and when a client reads too slowly."
)


class EventQuery(QueryParameters):
    """Filters of events: both must match; a repeated one matches any of its values."""

    type: tuple[EventType, ...] = ()
    """Only events of this type; `reset` is always sent."""
    namespace: tuple[str, ...] = ()
    """Only remediations in this namespace. Other events have no namespace and are always sent."""


_OPERATION: Final = Operation(
    "GET",
    "/api/events",
    "Follow what changes, as server-sent events",
    Tag.CONTROLLER,
    {
        200: Reply("The stream of events.", EventBody, _EVENT_STREAM),
        **problem_replies(400, 401, 403, 429, 500, 503),
    },
    _DESCRIPTION,
    query=EventQuery,
    head=False,
)


def add_events(app: web.Application, streams: EventStreams, guard: Guard) -> None:
    """Serve the event stream; a stream holds no turn."""

    async def respond(request: web.Request) -> web.StreamResponse:
        guard.check(request)
        query = read_query(EventQuery, request.query)
        wanted = EventFilter(frozenset(query.type), frozenset(query.namespace))
        return await streams.respond(request, wanted)

    serve(app, _OPERATION, respond)

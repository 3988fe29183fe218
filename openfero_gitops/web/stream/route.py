"""Serves the event stream at `/api/events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from openfero_gitops.web.stream.history import EventFilter
from openfero_gitops.web.stream.models import EventType

if TYPE_CHECKING:
    from multidict import MultiMapping

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.stream.streams import EventStreams

EVENTS_PATH: Final = "/api/events"
_PARAMETERS: Final = ("type", "namespace")


def add_events(app: web.Application, streams: EventStreams, guard: Guard) -> None:
    """Serve the event stream."""

    async def respond(request: web.Request) -> web.StreamResponse:
        guard.check(request)
        return await streams.respond(request, read_filter(request.query))

    app.router.add_get(EVENTS_PATH, respond, allow_head=False)


def read_filter(query: MultiMapping[str]) -> EventFilter:
    """Read which events a client wants; a repeated parameter matches any of its values."""
    for name in query:
        if name not in _PARAMETERS:
            raise web.HTTPBadRequest(
                text=f"unknown parameter {name[:200]!r}; use {', '.join(_PARAMETERS)}"
            )
    types = frozenset(query.getall("type", []))
    for value in sorted(types - set(EventType)):
        raise web.HTTPBadRequest(text=f"unknown type {value[:200]!r}; use {', '.join(EventType)}")
    return EventFilter(types, frozenset(query.getall("namespace", [])))

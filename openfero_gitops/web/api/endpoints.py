"""Lists the endpoints of the API, and serves them with the document that describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.web.api import alerts, controller, operarios, remediations
from openfero_gitops.web.api.document import add_document
from openfero_gitops.web.api.operation import operations_of
from openfero_gitops.web.api.route import add_route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from aiohttp import web

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import ReplicaState
    from openfero_gitops.web.turns import Turns


def add_api(
    app: web.Application,
    state: ReplicaState,
    guard: Guard,
    turns: Turns,
    *,
    now: Callable[[], datetime],
    apps: Iterable[web.Application] = (),
) -> None:
    """Serve `/api/…` and `/openapi.json`, which also describes `apps`, of other listeners."""
    for route in (
        *remediations.routes(state),
        *alerts.routes(state, now),
        *operarios.routes(state, now),
        *controller.routes(state),
    ):
        add_route(app, route, guard, turns)
    add_document(app, guard, lambda: operations_of((app, *apps)))

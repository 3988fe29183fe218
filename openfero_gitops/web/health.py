"""Serves probes and metrics, on all listeners and without authentication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from openfero_gitops.domain.help import CONDITION_TOPICS, link
from openfero_gitops.web.api.described import ALIVE, METRICS, READY
from openfero_gitops.web.api.operation import serve

if TYPE_CHECKING:
    from openfero_gitops.web.ports import Exposition, ReplicaState


def add_health(app: web.Application, state: ReplicaState, exposition: Exposition) -> None:
    """Serve `/livez`, `/readyz`, `/metrics`, and the paths of OpenFero's probes."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        conditions = state.conditions()
        failing = [c for c in conditions if not c.holds and not c.advice]
        ready = not any(c.vital for c in failing)
        body = {
            "status": ("degraded" if failing else "ok") if ready else "not ready",
            "conditions": [
                {
                    "name": c.name,
                    "holds": c.holds,
                    "message": c.message or None,
                    "help": None if c.holds else link(CONDITION_TOPICS[c.name]),
                }
                for c in conditions
            ],
        }
        return web.json_response(body, status=200 if ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=exposition.expose(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    for operation in ALIVE:
        serve(app, operation, livez)
    for operation in READY:
        serve(app, operation, readyz)
    serve(app, METRICS, metrics)

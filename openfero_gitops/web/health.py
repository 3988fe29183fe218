"""Probes and metrics: on every listener, for everybody; they hold no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from openfero_gitops.web.ports import Exposition, ReplicaState


def add_health(app: web.Application, state: ReplicaState, exposition: Exposition) -> None:
    """Serve `/livez`, `/readyz`, OpenFero's three probes, and `/metrics`."""

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        conditions = state.conditions()
        lacking = [c for c in conditions if not c.holds]
        can_work = not any(c.vital for c in lacking)
        body = {
            "status": ("degraded" if lacking else "ok") if can_work else "not ready",
            "conditions": [
                {"name": c.name, "holds": c.holds, "message": c.message or None} for c in conditions
            ],
        }
        return web.json_response(body, status=200 if can_work else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=exposition.expose(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    for path in ("/livez", "/healthz", "/startupz"):
        app.router.add_get(path, live)
    for path in ("/readyz", "/readiness"):
        app.router.add_get(path, ready)
    app.router.add_get("/metrics", metrics)

"""The API that reads: what is in force, what ran, what is wrong."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.state import State

_PAGE: Final = 100
_LARGEST_PAGE: Final = 1000

T = TypeVar("T")


def add_api(app: web.Application, state: State, guard: Guard) -> None:
    """Serve `/api/…`."""

    async def remediations(request: web.Request) -> web.Response:
        guard.check(request)
        chosen = _filtered(state.remediations(), request.query)
        # Newest first; a token names the last one shown, so that new ones do not shift a page.
        chosen.sort(key=_newest_first, reverse=True)
        decisions = state.decisions()
        return _page(
            request,
            chosen,
            lambda one: shapes.remediation(one, decisions.get(one.key)),
            lambda one: f"{one.received_at.isoformat()} {one.key}",
            lambda one, token: f"{one.received_at.isoformat()} {one.key}" < token,
        )

    async def operarios(request: web.Request) -> web.Response:
        guard.check(request)
        catalog = state.catalog()
        values = sorted(catalog.operarios, key=lambda one: one.name) if catalog else []
        return _page(
            request, values, shapes.operario, lambda one: one.name, lambda one, t: one.name > t
        )

    async def problems(request: web.Request) -> web.Response:
        guard.check(request)
        catalog = state.catalog()
        values = sorted(catalog.problems) if catalog else []
        indexed = list(enumerate(values))
        return _page(
            request,
            indexed,
            lambda pair: shapes.problem(pair[1]),
            lambda pair: f"{pair[0]:09d}",
            lambda pair, token: f"{pair[0]:09d}" > token,
            ignored=[shapes.ignored(one) for one in catalog.ignored] if catalog else [],
        )

    async def sync(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response(shapes.sync(state.sync()))

    async def about(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response(shapes.about(state.about(), state.leadership()))

    app.router.add_get("/api/remediations", remediations)
    app.router.add_get("/api/operarios", operarios)
    app.router.add_get("/api/problems", problems)
    app.router.add_get("/api/sync", sync)
    app.router.add_get("/api/about", about)


def _newest_first(one: Remediation) -> tuple[str, str]:
    return (one.received_at.isoformat(), str(one.key))


def _filtered(every: Iterable[Remediation], query: Any) -> list[Remediation]:
    """Apply `phase`, `status`, `alert`, `operario`, `namespace`, `commit`; each may repeat."""
    known = {"phase", "status", "alert", "operario", "namespace", "commit", "limit", "continue"}
    for name in query:
        if name not in known:
            raise web.HTTPBadRequest(
                text=f"unknown parameter {name!r}: there are {', '.join(sorted(known))}"
            )
    _one_of("phase", query.getall("phase", []), Phase)
    _one_of("status", query.getall("status", []), Status)
    fields: dict[str, Callable[[Remediation], str]] = {
        "phase": lambda one: one.phase.value,
        "status": lambda one: one.status.value,
        "alert": lambda one: one.alertname,
        "operario": lambda one: one.operario,
        "namespace": lambda one: one.key.namespace,
        "commit": lambda one: one.commit,
    }
    wanted = {name: set(query.getall(name)) for name in fields if name in query}
    return [
        one for one in every if all(fields[name](one) in values for name, values in wanted.items())
    ]


def _one_of(name: str, given: Iterable[str], values: Iterable[str]) -> None:
    allowed = [str(value) for value in values]
    for value in given:
        if value not in allowed:
            raise web.HTTPBadRequest(
                text=f"{name} {value!r} does not exist: there are {', '.join(allowed)}"
            )


def _page(
    request: web.Request,
    values: Sequence[T],
    shape: Callable[[T], dict[str, Any]],
    token_of: Callable[[T], str],
    after: Callable[[T, str], bool],
    **members: Any,
) -> web.Response:
    """One page of a sorted list, and the token of the next."""
    limit = request.query.get("limit", str(_PAGE))
    if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_PAGE:
        raise web.HTTPBadRequest(text=f"limit must be a number from 1 to {_LARGEST_PAGE}")
    if token := request.query.get("continue"):
        try:
            last = base64.urlsafe_b64decode(token.encode()).decode()
        except (binascii.Error, ValueError):
            raise web.HTTPBadRequest(text="continue is not a token of this list") from None
        values = [value for value in values if after(value, last)]
    page = values[: int(limit)]
    following = None
    if len(values) > len(page):
        following = base64.urlsafe_b64encode(token_of(page[-1]).encode()).decode()
    items = [shape(value) for value in page]
    return web.json_response({"items": items, "continue": following, **members})

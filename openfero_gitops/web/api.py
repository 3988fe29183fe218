"""Serves the read-only JSON API."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.problem import ignored_members, problem_members
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.effects.stats import report_stats
from openfero_gitops.web import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from multidict import MultiMapping

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import ReplicaState

_DEFAULT_LIMIT: Final = 100
_MAX_LIMIT: Final = 1000
_LIMIT: Final = re.compile("[0-9]{1,4}")
_PAGING: Final = ("limit", "continue")

#: Filters of the list of remediations.
_FILTERS: Final[Mapping[str, Callable[[Remediation], str]]] = {
    "phase": lambda r: r.phase.value,
    "status": lambda r: r.status.value,
    "alert": lambda r: r.alertname,
    "operario": lambda r: r.operario,
    "namespace": lambda r: r.key.namespace,
    "commit": lambda r: r.commit,
}
#: A filter that depends on the other Jobs of the incident, and on the time.
_EFFECT: Final = "effect"

T = TypeVar("T")


def add_api(app: web.Application, state: ReplicaState, guard: Guard) -> None:
    """Serve `/api/…`."""

    async def remediations(request: web.Request) -> web.Response:
        guard.check(request)
        _refuse_unknown(request.query, *_FILTERS, _EFFECT, *_PAGING)
        chosen = _filtered(state.remediations(), request.query)
        if _EFFECT in request.query:
            effects = request.query.getall(_EFFECT)
            _check_values(_EFFECT, effects, Effect)
            chosen = [r for r in chosen if (e := state.effect(r)) and e.effect in effects]
        # Newest first. A token names the last item, so that new items do not shift the pages.
        chosen.sort(key=_arrival, reverse=True)
        decisions = state.decisions()
        return _page(
            request,
            chosen,
            lambda r: shapes.remediation(
                r,
                decisions.get(r.key),
                effect=state.effect(r),
                verified=state.is_approval_verified(r),
            ),
            _arrival,
            lambda r, token: _arrival(r) < token,
        )

    async def operarios(request: web.Request) -> web.Response:
        guard.check(request)
        _refuse_unknown(request.query, *_PAGING)
        catalog = state.catalog()
        values = sorted(catalog.operarios, key=lambda o: o.name) if catalog else []
        return _page(
            request, values, shapes.operario, lambda o: o.name, lambda o, token: o.name > token
        )

    async def stats(request: web.Request) -> web.Response:
        guard.check(request)
        _refuse_unknown(request.query)
        name = request.match_info["name"]
        report = report_stats(
            state.remediations(),
            datetime.now(UTC),
            lambda remediation: remediation.operario == name,
        )
        catalog = state.catalog()
        active = catalog.operarios if catalog else ()
        # One that was removed has statistics for as long as it has Jobs.
        if report.oldest is None and all(value.name != name for value in active):
            raise web.HTTPNotFound
        return web.json_response(shapes.operario_stats(name, report))

    async def problems(request: web.Request) -> web.Response:
        guard.check(request)
        _refuse_unknown(request.query, *_PAGING)
        catalog = state.catalog()
        values = sorted(catalog.problems) if catalog else []
        indexed = list(enumerate(values))
        return _page(
            request,
            indexed,
            lambda pair: problem_members(pair[1]),
            lambda pair: f"{pair[0]:09d}",
            lambda pair, token: f"{pair[0]:09d}" > token,
            ignored=[ignored_members(document) for document in catalog.ignored] if catalog else [],
        )

    async def sync(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response(shapes.sync(state.sync(), state.lag()))

    async def about(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response(
            {
                **shapes.about(state.about(), state.leadership()),
                "pause": shapes.pause(state.pause()),
            }
        )

    async def jobs(request: web.Request) -> web.Response:
        guard.check(request)
        catalog = state.catalog()
        runs = _runs(state.remediations())
        namespace = state.about().jobs_namespace
        return web.json_response(
            [
                shapes.openfero_job(o, o.namespace or namespace, runs.get(o.name, ()))
                for o in sorted(catalog.operarios if catalog else (), key=lambda o: o.name)
            ]
        )

    app.router.add_get("/api/remediations", remediations)
    app.router.add_get("/api/operarios", operarios)
    app.router.add_get("/api/operarios/{name}/stats", stats)
    app.router.add_get("/api/problems", problems)
    app.router.add_get("/api/sync", sync)
    app.router.add_get("/api/about", about)
    app.router.add_get("/api/jobs", jobs)


def _arrival(remediation: Remediation) -> str:
    """Return a unique text that sorts in order of arrival."""
    return f"{format_time(remediation.received_at)} {remediation.key}"


def _runs(remediations: Iterable[Remediation]) -> dict[str, list[Remediation]]:
    """Return the started remediations of each operario, in order of arrival."""
    runs: dict[str, list[Remediation]] = {}
    for remediation in sorted(remediations, key=_arrival):
        if remediation.started:
            runs.setdefault(remediation.operario, []).append(remediation)
    return runs


def _refuse_unknown(query: Iterable[str], *allowed: str) -> None:
    """Refuse parameters that would have no effect, such as a misspelled filter."""
    for name in query:
        if name not in allowed:
            use = (
                f"use {', '.join(sorted(allowed))}" if allowed else "this path takes no parameters"
            )
            raise web.HTTPBadRequest(text=f"unknown parameter {name[:200]!r}; {use}")


def _filtered(remediations: Iterable[Remediation], query: MultiMapping[str]) -> list[Remediation]:
    """Apply the filters; a repeated filter matches any of its values."""
    _check_values("phase", query.getall("phase", []), Phase)
    _check_values("status", query.getall("status", []), Status)
    filters = {name: set(query.getall(name)) for name in _FILTERS if name in query}
    return [
        remediation
        for remediation in remediations
        if all(_FILTERS[name](remediation) in values for name, values in filters.items())
    ]


def _check_values(name: str, values: Iterable[str], choices: Iterable[str]) -> None:
    allowed = [str(choice) for choice in choices]
    for value in values:
        if value not in allowed:
            raise web.HTTPBadRequest(
                text=f"unknown {name} {value[:200]!r}; use {', '.join(allowed)}"
            )


def _page(
    request: web.Request,
    values: Sequence[T],
    shape: Callable[[T], dict[str, Any]],
    token_of: Callable[[T], str],
    after: Callable[[T, str], bool],
    **members: Any,
) -> web.Response:
    """Return one page of a sorted list, and the token of the next page."""
    limit = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= _MAX_LIMIT:
        raise web.HTTPBadRequest(text=f"limit must be a number from 1 to {_MAX_LIMIT}")
    if token := request.query.get("continue"):
        last = _read_token(request.path, token)
        values = [value for value in values if after(value, last)]
    page = values[: int(limit)]
    following = None
    if len(values) > len(page):
        following = _make_token(request.path, token_of(page[-1]))
    items = [shape(value) for value in page]
    return web.json_response({"items": items, "continue": following, **members})


def _make_token(path: str, last: str) -> str:
    """Make an opaque token for a position in a list."""
    return base64.urlsafe_b64encode(f"{path} {last}".encode()).decode()


def _read_token(path: str, token: str) -> str:
    """Read a token; raise 400 if it was not made for this list."""
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    made_for, _, last = text.partition(" ")
    if made_for != path or not last:
        raise web.HTTPBadRequest(text="continue is not a token of this list")
    return last

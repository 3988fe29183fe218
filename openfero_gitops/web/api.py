"""The API that reads: what is in force, what ran, what is wrong."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.problem import ignored_members, problem_members
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.web import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from multidict import MultiMapping

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.ports import ReplicaState

_PAGE: Final = 100
_LARGEST_PAGE: Final = 1000
_LIMIT: Final = re.compile("[0-9]{1,4}")
_PAGING: Final = ("limit", "continue")
#: Of what a caller wrote, this many characters are repeated to it.
_SHOWN: Final = 200

#: What a list of remediations can be narrowed by.
_FILTERS: Final[Mapping[str, Callable[[Remediation], str]]] = {
    "phase": lambda one: one.phase.value,
    "status": lambda one: one.status.value,
    "alert": lambda one: one.alertname,
    "operario": lambda one: one.operario,
    "namespace": lambda one: one.key.namespace,
    "commit": lambda one: one.commit,
}

T = TypeVar("T")


def add_api(app: web.Application, state: ReplicaState, guard: Guard) -> None:
    """Serve `/api/…`."""

    async def remediations(request: web.Request) -> web.Response:
        guard.check(request)
        _refuse_unknown(request.query, *_FILTERS, *_PAGING)
        chosen = _filtered(state.remediations(), request.query)
        # Newest first; a token names the last one shown, so that new ones do not shift a page.
        chosen.sort(key=_arrival, reverse=True)
        decisions = state.decisions()
        return _page(
            request,
            chosen,
            lambda one: shapes.remediation(
                one, decisions.get(one.key), verified=state.is_approval_verified(one)
            ),
            _arrival,
            lambda one, token: _arrival(one) < token,
        )

    async def operarios(request: web.Request) -> web.Response:
        guard.check(request)
        _refuse_unknown(request.query, *_PAGING)
        catalog = state.catalog()
        values = sorted(catalog.operarios, key=lambda one: one.name) if catalog else []
        return _page(
            request, values, shapes.operario, lambda one: one.name, lambda one, t: one.name > t
        )

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
            ignored=[ignored_members(one) for one in catalog.ignored] if catalog else [],
        )

    async def sync(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response(shapes.sync(state.sync(), state.standing()))

    async def about(request: web.Request) -> web.Response:
        guard.check(request)
        return web.json_response(shapes.about(state.about(), state.leadership()))

    async def jobs(request: web.Request) -> web.Response:
        guard.check(request)
        catalog = state.catalog()
        runs = _runs(state.remediations())
        namespace = state.about().jobs_namespace
        return web.json_response(
            [
                shapes.openfero_job(one, one.namespace or namespace, runs.get(one.name, ()))
                for one in sorted(catalog.operarios if catalog else (), key=lambda one: one.name)
            ]
        )

    app.router.add_get("/api/remediations", remediations)
    app.router.add_get("/api/operarios", operarios)
    app.router.add_get("/api/problems", problems)
    app.router.add_get("/api/sync", sync)
    app.router.add_get("/api/about", about)
    app.router.add_get("/api/jobs", jobs)


def _arrival(one: Remediation) -> str:
    """A text that sorts as remediations arrived; no two are equal."""
    return f"{format_time(one.received_at)} {one.key}"


def _runs(every: Iterable[Remediation]) -> dict[str, list[Remediation]]:
    """Every remediation that started by its operario, as they arrived."""
    runs: dict[str, list[Remediation]] = {}
    for one in sorted(every, key=_arrival):
        if one.started:
            runs.setdefault(one.operario, []).append(one)
    return runs


def _refuse_unknown(query: Iterable[str], *known: str) -> None:
    """Refuse a parameter that would have no effect, such as a filter with a typing error."""
    for name in query:
        if name not in known:
            raise web.HTTPBadRequest(
                text=f"unknown parameter {name[:_SHOWN]!r}: there are {', '.join(sorted(known))}"
            )


def _filtered(every: Iterable[Remediation], query: MultiMapping[str]) -> list[Remediation]:
    """Apply the filters; each may repeat, and then any of its values fits."""
    _one_of("phase", query.getall("phase", []), Phase)
    _one_of("status", query.getall("status", []), Status)
    wanted = {name: set(query.getall(name)) for name in _FILTERS if name in query}
    return [
        one
        for one in every
        if all(_FILTERS[name](one) in values for name, values in wanted.items())
    ]


def _one_of(name: str, given: Iterable[str], values: Iterable[str]) -> None:
    allowed = [str(value) for value in values]
    for value in given:
        if value not in allowed:
            raise web.HTTPBadRequest(
                text=f"{name} {value[:_SHOWN]!r} does not exist: there are {', '.join(allowed)}"
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
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= _LARGEST_PAGE:
        raise web.HTTPBadRequest(text=f"limit must be a number from 1 to {_LARGEST_PAGE}")
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
    """A place in a list, to be handed back as it is."""
    return base64.urlsafe_b64encode(f"{path} {last}".encode()).decode()


def _read_token(path: str, token: str) -> str:
    """Read it back; one that was made up, or for another list, is refused."""
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    made_for, _, last = text.partition(" ")
    if made_for != path or not last:
        raise web.HTTPBadRequest(text="continue is not a token of this list")
    return last

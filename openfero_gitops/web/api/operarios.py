"""Serves the operarios of the active catalog, their statistics, and OpenFero's list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from openfero_gitops.domain.alert import Status
from openfero_gitops.effects.stats import report_stats
from openfero_gitops.web.api.openfero_shape import OpenferoJobShape, openfero_job_shape
from openfero_gitops.web.api.operario_detail_shape import (
    OperarioDetailShape,
    operario_detail_shape,
)
from openfero_gitops.web.api.operario_shape import (
    OperarioListShape,
    OperarioStatsShape,
    operario_shape,
    operario_stats_shape,
)
from openfero_gitops.web.api.operation import Tag
from openfero_gitops.web.api.paging import take_page
from openfero_gitops.web.api.parameters import PagingQuery, PathParameters, QueryParameters
from openfero_gitops.web.api.remediations import arrival
from openfero_gitops.web.api.route import AnyRoute, Call, Route
from openfero_gitops.web.operario_facts import read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.ports import ReplicaState


class OperarioQuery(PagingQuery):
    """Filters of operarios: all must match; a repeated one matches any of its values."""

    alert: tuple[str, ...] = ()
    """Only for the alert with this name."""
    status: tuple[Status, ...] = ()
    """Only for alerts with this status."""
    commit: tuple[str, ...] = ()
    """Only from this commit (all 40 characters)."""
    path: tuple[str, ...] = ()
    """Only from this file."""


class OperarioPath(PathParameters):
    """An operario."""

    name: str
    """Name of the operario."""


def routes(state: ReplicaState, now: Callable[[], datetime]) -> list[AnyRoute]:
    """Return `/api/operarios`, one operario, its statistics, and `/api/jobs`."""

    def operarios() -> Iterable[Operario]:
        catalog = state.catalog()
        return catalog.operarios if catalog else ()

    def build_list(call: Call[PathParameters, OperarioQuery]) -> OperarioListShape:
        query = call.query
        chosen = [
            operario
            for operario in operarios()
            if _matches(operario.alertname, query.alert)
            and _matches(operario.status, query.status)
            and _matches(operario.origin.commit, query.commit)
            and _matches(operario.origin.path, query.path)
        ]
        page, following = take_page(chosen, lambda operario: operario.name, call)
        return OperarioListShape(items=[operario_shape(o) for o in page], continue_=following)

    def build_detail(call: Call[OperarioPath, QueryParameters]) -> OperarioDetailShape:
        facts = read_facts(state, call.path.name, now())
        if facts is None or facts.operario is None or facts.usage is None:
            raise web.HTTPNotFound
        return operario_detail_shape(facts.operario, facts.usage, facts)

    def build_stats(call: Call[OperarioPath, QueryParameters]) -> OperarioStatsShape:
        name = call.path.name
        report = report_stats(
            state.remediations(), now(), lambda remediation: remediation.operario == name
        )
        # One that was removed has statistics for as long as it has Jobs.
        if report.oldest is None and all(operario.name != name for operario in operarios()):
            raise web.HTTPNotFound
        return operario_stats_shape(name, report)

    def build_jobs(_: Call[PathParameters, QueryParameters]) -> list[OpenferoJobShape]:
        runs = _runs(state.remediations())
        namespace = state.about().jobs_namespace
        return [
            openfero_job_shape(o, o.namespace or namespace, runs.get(o.name, ()))
            for o in sorted(operarios(), key=lambda operario: operario.name)
        ]

    return [
        Route(
            "/api/operarios",
            "List the operarios of the active catalog, by name",
            Tag.OPERARIOS,
            OperarioListShape,
            build_list,
            query=OperarioQuery,
            description="All filters must match; a repeated filter matches any of its values.",
        ),
        Route(
            "/api/operarios/{name}",
            "Show an operario: its file, limits, last runs, effects and problems",
            Tag.OPERARIOS,
            OperarioDetailShape,
            build_detail,
            path_parameters=OperarioPath,
            errors=(404,),
            description="One that is not in the active catalog has statistics only.",
        ),
        Route(
            "/api/operarios/{name}/stats",
            "Count the runs of an operario and their effects, by commit",
            Tag.OPERARIOS,
            OperarioStatsShape,
            build_stats,
            path_parameters=OperarioPath,
            errors=(404,),
            description="Only Jobs that still exist count.",
        ),
        Route(
            "/api/jobs",
            "List the operarios as OpenFero does",
            Tag.OPENFERO,
            list[OpenferoJobShape],
            build_jobs,
            description="For OpenFero's clients. Others use /api/operarios, which has pages.",
        ),
    ]


def _matches(value: str, values: tuple[str, ...]) -> bool:
    return not values or value in values


def _runs(remediations: Iterable[Remediation]) -> dict[str, list[Remediation]]:
    """Return the started remediations of each operario, in order of arrival."""
    runs: dict[str, list[Remediation]] = {}
    for remediation in sorted(remediations, key=arrival):
        if remediation.has_run:
            runs.setdefault(remediation.operario, []).append(remediation)
    return runs

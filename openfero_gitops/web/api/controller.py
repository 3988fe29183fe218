"""Serves the state of the controller: problems of the repository, the last sync, this replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.problem import Severity
from openfero_gitops.web.api.about_shape import AboutShape, about_shape
from openfero_gitops.web.api.operation import Tag
from openfero_gitops.web.api.paging import take_page
from openfero_gitops.web.api.parameters import PagingQuery, PathParameters, QueryParameters
from openfero_gitops.web.api.problem_shape import ProblemListShape, ignored_shape, problem_shape
from openfero_gitops.web.api.route import AnyRoute, Call, Route
from openfero_gitops.web.api.sync_shape import SyncShape, sync_shape

if TYPE_CHECKING:
    from openfero_gitops.web.ports import ReplicaState


class ProblemQuery(PagingQuery):
    """Filters of problems: all must match; a repeated one matches any of its values."""

    severity: tuple[Severity, ...] = ()
    """Only errors, or only warnings."""
    rule: tuple[str, ...] = ()
    """Only of this rule."""
    path: tuple[str, ...] = ()
    """Only in this file."""


def routes(state: ReplicaState) -> list[AnyRoute]:
    """Return `/api/problems`, `/api/sync` and `/api/about`."""

    def build_problems(call: Call[PathParameters, ProblemQuery]) -> ProblemListShape:
        query = call.query
        catalog = state.catalog()
        numbered = [
            (f"{number:09d}", problem)
            for number, problem in enumerate(sorted(catalog.problems if catalog else ()))
            if (not query.severity or problem.severity in query.severity)
            and (not query.rule or problem.rule in query.rule)
            and (not query.path or problem.path in query.path)
        ]
        page, following = take_page(numbered, lambda pair: pair[0], call)
        return ProblemListShape(
            items=[problem_shape(problem) for _, problem in page],
            continue_=following,
            ignored=[ignored_shape(document) for document in catalog.ignored] if catalog else [],
        )

    def build_sync(_: Call[PathParameters, QueryParameters]) -> SyncShape:
        return sync_shape(state.sync(), state.lag())

    def build_about(_: Call[PathParameters, QueryParameters]) -> AboutShape:
        return about_shape(state.about(), state.leadership(), state.pause(), state.replicas())

    return [
        Route(
            "/api/problems",
            "List the problems of the repository, by file",
            Tag.CONTROLLER,
            ProblemListShape,
            build_problems,
            query=ProblemQuery,
            description="All filters must match; a repeated filter matches any of its values.",
        ),
        Route(
            "/api/sync",
            "Show the last sync with Git, and recent ones",
            Tag.CONTROLLER,
            SyncShape,
            build_sync,
        ),
        Route(
            "/api/about",
            "Show the version of this replica, the leader, and a pause",
            Tag.CONTROLLER,
            AboutShape,
            build_about,
            description="OpenFero's clients read version, commit and buildDate.",
        ),
    ]

"""The page `/`: the active catalog, what ran, and what is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import changed_options
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.web.conditions import show_condition
from openfero_gitops.web.pages.day import build_day
from openfero_gitops.web.pages.phases import PHASES
from openfero_gitops.web.pages.remediation_rows import row_of, search_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from multidict import MultiMapping

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.pages.site import Site, Visit

#: Rows of a table. Drawing a remediation takes a millisecond; the filter reaches the others.
_MAX_REMEDIATIONS: Final = 50
_MAX_OTHERS: Final = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The reader's filter: remediations in these phases (none: all) that contain these words."""

    phases: tuple[Phase, ...]
    text: str

    def link(self, phase: Phase | None) -> str:
        """Build the address that shows one phase, or all, with the same words."""
        pairs = [("phase", phase.value)] if phase else []
        if self.text:
            pairs.append(("q", self.text))
        return f"./?{urlencode(pairs)}" if pairs else "./"

    def matches(self, texts: Iterable[str]) -> bool:
        """Whether each word occurs in one of the texts, ignoring case."""
        if not self.text:
            return True
        text = "\n".join(texts).casefold()
        return all(word in text for word in self.text.casefold().split())


def read_query(parameters: MultiMapping[str]) -> PageQuery:
    """Read `phase` (ignoring case, repeatable) and `q`; raise 400 for an unknown phase."""
    phases = {phase.value.lower(): phase for phase in PHASES}
    names = [name.lower() for name in parameters.getall("phase", []) if name]
    for name in names:
        if name not in phases:
            raise web.HTTPBadRequest(text=f"unknown phase {name!r}; use {', '.join(PHASES)}")
    return PageQuery(tuple(phases[name] for name in names), parameters.get("q", "").strip())


@dataclass(frozen=True, slots=True)
class OperarioRow:
    """A row of the operarios table: non-default options, and the latest remediation.

    `healed` of `decided` remediations healed their alert; the others did not.
    """

    operario: Operario
    options: tuple[tuple[str, str], ...]
    command: str
    latest: Remediation | None
    healed: int
    decided: int


@dataclass(frozen=True, slots=True)
class Table:
    """The first rows of a table, and how many match the filter in total."""

    rows: Sequence[Any]
    total: int


def add(site: Site) -> None:
    """Serve `/`."""
    site.add("/", "overview.html", build, title="Overview")


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    state, query = visit.state, read_query(visit.query)
    catalog = state.catalog()
    decisions = state.decisions()
    not_helping = state.not_helping()
    sync = state.sync()
    newest_first = sorted(state.remediations(), key=lambda r: r.order, reverse=True)
    matching = [
        r
        for r in newest_first
        if query.matches(
            search_texts(r, decisions.get(r.key), held_back=r.key in not_helping),
        )
    ]
    shown = [r for r in matching if not query.phases or r.phase in query.phases]
    latest = {r.operario: r for r in reversed(newest_first)}
    effects = Counter((r.operario, r.effect) for r in newest_first if r.started)
    pause = state.pause()
    operarios = sorted(catalog.operarios if catalog else (), key=lambda operario: operario.name)
    problems = sorted(catalog.problems if catalog else (), key=lambda p: (not p.is_error, p))

    def remediations(*, final: bool) -> Table:
        return _table(
            [r for r in shown if (r.phase in FINAL) is final],
            _MAX_REMEDIATIONS,
            lambda r: row_of(r, decisions.get(r.key), state),
        )

    return build_day(visit) | {
        "query": query,
        "conditions": [show_condition(condition) for condition in visit.attention.conditions],
        "catalog": catalog,
        "sync": sync,
        "pause": pause,
        "counts": Counter(r.phase for r in matching),
        "occupying": sum(r.occupying for r in newest_first),
        "total": len(newest_first),
        "matching": len(matching),
        "in_progress": remediations(final=False),
        "finished": remediations(final=True),
        "operarios": _table(
            [o for o in operarios if query.matches(_operario_texts(o))],
            _MAX_OTHERS,
            lambda o: _operario_row(o, latest.get(o.name), effects),
        ),
        "problems": _table(
            [p for p in problems if query.matches(_problem_texts(p))], _MAX_OTHERS, lambda p: p
        ),
        "ignored": _table(catalog.ignored if catalog else (), _MAX_OTHERS, lambda i: i),
    }


def _table(values: Sequence[T], limit: int, make_row: Callable[[T], Any]) -> Table:
    return Table([make_row(value) for value in values[:limit]], len(values))


def _operario_row(
    operario: Operario,
    latest: Remediation | None,
    effects: Mapping[tuple[str, Effect | None], int],
) -> OperarioRow:
    healed = effects.get((operario.name, Effect.HEALED), 0)
    return OperarioRow(
        operario,
        changed_options(operario.options),
        git_show(operario.origin.commit, operario.origin.path),
        latest,
        healed=healed,
        decided=healed + effects.get((operario.name, Effect.NOT_HEALED), 0),
    )


def _operario_texts(operario: Operario) -> tuple[str, ...]:
    origin = operario.origin
    alert = (operario.alertname, operario.status)
    return (operario.name, *alert, operario.form, origin.path, origin.commit)


def _problem_texts(problem: Problem) -> tuple[str, ...]:
    words = (problem.message, problem.suggestion)
    return (problem.path, problem.rule, problem.severity, *words, problem.commit)

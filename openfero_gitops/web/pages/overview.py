"""The page `/`: what needs a person, what runs, the last day, and the health."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import changed_options
from openfero_gitops.web.conditions import show_condition
from openfero_gitops.web.pages.day import build_day

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.pages.site import Site, Visit

#: Rows of a table.
_MAX_ROWS: Final = 200

T = TypeVar("T")


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
    """The first rows of a table, and how many there are in total."""

    rows: Sequence[Any]
    total: int


def add(site: Site) -> None:
    """Serve `/`."""
    site.add("/", "overview.html", build, title="Overview")


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    state = visit.state
    catalog = state.catalog()
    newest_first = sorted(state.remediations(), key=lambda r: r.order, reverse=True)
    latest = {r.operario: r for r in reversed(newest_first)}
    effects = Counter((r.operario, r.effect) for r in newest_first if r.started)
    operarios = sorted(catalog.operarios if catalog else (), key=lambda operario: operario.name)
    problems = sorted(catalog.problems if catalog else (), key=lambda p: (not p.is_error, p))
    return build_day(visit) | {
        "conditions": [show_condition(condition) for condition in visit.attention.conditions],
        "catalog": catalog,
        "sync": state.sync(),
        "pause": state.pause(),
        "occupying": sum(r.occupying for r in newest_first),
        "total": len(newest_first),
        "operarios": _table(operarios, lambda o: _operario_row(o, latest.get(o.name), effects)),
        "problems": _table(problems, lambda p: p),
        "ignored": _table(catalog.ignored if catalog else (), lambda i: i),
    }


def _table(values: Sequence[T], make_row: Callable[[T], Any]) -> Table:
    return Table([make_row(value) for value in values[:_MAX_ROWS]], len(values))


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

"""The page `/problems`: what validation and dry runs found in the files of the repository."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

import openfero_gitops.catalog.build  # noqa: F401 - it declares the rules
from openfero_gitops.domain.cluster_rule import CLUSTER_RULES
from openfero_gitops.domain.problem import Severity
from openfero_gitops.domain.rule import RULES
from openfero_gitops.web.pages.listing import ListFilter, Paging, contains_words, read_page
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from multidict import MultiMapping

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.rule import Rule
    from openfero_gitops.web.pages.site import Site, Visit

_ROWS: Final = 100
_MAX_IGNORED: Final = 200
_MAX_RULE_CHIPS: Final = 12


@dataclass(frozen=True, slots=True)
class ProblemFilter(ListFilter):
    """Which problems are shown; empty members select all.

    Attributes:
        severity: `error` or `warning`.
        rule: the id of a rule.
        path: of the file, or the beginning of it.
        q: words that all occur in the problem.
    """

    path_of_page: ClassVar = "problems"
    severity: str = ""
    rule: str = ""
    path: str = ""
    q: str = ""

    def matches(self, problem: Problem) -> bool:
        """Whether a problem is shown, whatever its severity."""
        return (
            (not self.rule or problem.rule == self.rule)
            and problem.path.startswith(self.path)
            and contains_words(self.q, _search_texts(problem))
        )


def read_filter(query: MultiMapping[str]) -> ProblemFilter:
    """Read the filter of an address.

    Raises:
        web.HTTPBadRequest: the severity is not known.
    """
    wanted = ProblemFilter(*(query.get(field.name, "").strip() for field in fields(ProblemFilter)))
    if wanted.severity not in ("", *Severity):
        raise web.HTTPBadRequest(
            text=f"unknown severity {wanted.severity[:60]!r}; use {', '.join(Severity)}"
        )
    return wanted


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """A row of the table.

    Attributes:
        problem: what is wrong.
        in_cluster: whether a dry run in the cluster found it, not the validation of the file.
        operarios: the active ones of the same file.
    """

    problem: Problem
    in_cluster: bool
    operarios: Sequence[Operario]

    @property
    def location(self) -> str:
        """`PATH:LINE:COLUMN`, as far as it is known."""
        problem = self.problem
        numbers = (problem.line, problem.column) if problem.line else ()
        return ":".join([problem.path, *(str(number) for number in numbers if number)])

    @property
    def stale_commit(self) -> str:
        """The commit of the older version that is active instead; empty if there is none."""
        return next((o.origin.commit for o in self.operarios if o.origin.stale), "")


def list_rows(problems: Iterable[Problem], catalog: Catalog) -> list[ProblemRow]:
    """Make the rows of problems."""
    by_path: dict[str, list[Operario]] = {}
    for operario in catalog.operarios:
        by_path.setdefault(operario.origin.path, []).append(operario)
    return [
        ProblemRow(problem, problem.rule in CLUSTER_RULES, by_path.get(problem.path, ()))
        for problem in problems
    ]


def find_rule(name: str) -> Rule | None:
    """Return the rule of a problem; None if it is not in a register."""
    return RULES.get(name) or CLUSTER_RULES.get(name)


def _search_texts(problem: Problem) -> tuple[str, ...]:
    words = (problem.message, problem.suggestion, problem.pointer)
    return (problem.path, problem.rule, problem.severity, *words, problem.commit)


def add(site: Site) -> None:
    """Serve `/problems`."""
    site.add(PageRoute("/problems", "problem_list.html", build, title="Problems"))


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    catalog, wanted = visit.state.catalog(), read_filter(visit.query)
    everything = catalog.problems if catalog else ()
    matching = [problem for problem in everything if wanted.matches(problem)]
    shown = [p for p in matching if wanted.severity in ("", p.severity)]
    shown.sort(key=lambda problem: (not problem.is_error, problem))
    paging = Paging(len(shown), _ROWS, read_page(visit.query))
    rows = list_rows(paging.cut(shown), catalog) if catalog else []
    ignored = catalog.ignored if catalog else ()
    return {
        "wanted": wanted,
        "catalog": catalog,
        "sync": visit.state.sync(),
        "total": len(everything),
        "rows": rows,
        "paging": paging,
        "severities": _severity_links(wanted, Counter(p.severity for p in matching)),
        "rule_links": _rule_links(wanted, everything),
        "rules": _rules_of(rows),
        "ignored": ignored[:_MAX_IGNORED],
        "ignored_total": len(ignored),
    }


def _severity_links(
    wanted: ProblemFilter, counts: Mapping[Severity, int]
) -> list[tuple[str, int, str, bool]]:
    """The name, count and address of each severity and of all, and whether it is shown."""
    links = [("All", sum(counts.values()), "")]
    links += [(f"{severity.value}s", counts.get(severity, 0), severity) for severity in Severity]
    return [
        (title, count, replace(wanted, severity=value).address(), wanted.severity == value)
        for title, count, value in links
    ]


def _rule_links(
    wanted: ProblemFilter, problems: Iterable[Problem]
) -> list[tuple[str, int, str, bool]]:
    """The same for the most frequent rules, and the one that is shown."""
    counts = Counter(problem.rule for problem in problems)
    names = [name for name, _ in counts.most_common(_MAX_RULE_CHIPS)]
    if wanted.rule and wanted.rule not in names:
        names.append(wanted.rule)
    return [
        (
            name,
            counts[name],
            replace(wanted, rule="" if name == wanted.rule else name).address(),
            name == wanted.rule,
        )
        for name in names
    ]


def _rules_of(rows: Iterable[ProblemRow]) -> list[Rule]:
    """The rules of the problems that are shown, by name."""
    names = sorted({row.problem.rule for row in rows})
    return [rule for rule in map(find_rule, names) if rule]

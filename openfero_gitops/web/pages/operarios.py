"""The page `/operarios`: the operarios of the active catalog, and how each did lately."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aiohttp import web

from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import changed_options
from openfero_gitops.web.pages.listing import ListFilter, Paging, contains_words, read_page
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from multidict import MultiMapping

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.pages.site import Site, Visit

_ROWS: Final = 100
_SORTS: Final = {"name": "Name", "last": "Last run", "healed": "Heal rate, lowest first"}


@dataclass(frozen=True, slots=True)
class OperarioFilter(ListFilter):
    """Which operarios are shown, and in which order."""

    path_of_page: ClassVar = "operarios"
    q: str = ""
    sort: str = "name"


def read_filter(query: MultiMapping[str]) -> OperarioFilter:
    """Read the filter of an address.

    Raises:
        web.HTTPBadRequest: the order is not known.
    """
    sort = query.get("sort", "") or "name"
    if sort not in _SORTS:
        raise web.HTTPBadRequest(text=f"unknown sort {sort[:60]!r}; use {', '.join(_SORTS)}")
    return OperarioFilter(query.get("q", "").strip(), sort)


@dataclass(slots=True)
class Record:
    """What is known of the remediations of one operario; `healed` of `decided` runs healed."""

    latest: Remediation | None = None
    runs: int = 0
    healed: int = 0
    decided: int = 0

    @property
    def heal_rate(self) -> float | None:
        """The share of healed ones, from 0 to 1; None if no effect is known."""
        return self.healed / self.decided if self.decided else None


def index_records(remediations: Iterable[Remediation]) -> Mapping[str, Record]:
    """Count the remediations of each operario."""
    records: dict[str, Record] = defaultdict(Record)
    for remediation in remediations:
        record = records[remediation.operario]
        if record.latest is None or remediation.order > record.latest.order:
            record.latest = remediation
        if not remediation.has_run:
            continue
        record.runs += 1
        record.healed += remediation.effect is Effect.HEALED
        record.decided += remediation.effect in (Effect.HEALED, Effect.NOT_HEALED)
    return records


@dataclass(frozen=True, slots=True)
class OperarioRow:
    """A row of the table; `command` shows its file."""

    operario: Operario
    record: Record = field(default_factory=Record)

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """The options that differ from their default."""
        return changed_options(self.operario.options)

    @property
    def command(self) -> str:
        """The command that shows the file; empty if it is not safe to paste."""
        return git_show(self.operario.origin.commit, self.operario.origin.path)


def choose(
    catalog: Catalog | None, records: Mapping[str, Record], wanted: OperarioFilter
) -> list[OperarioRow]:
    """Select the operarios that a filter matches, in its order."""
    rows = [
        OperarioRow(operario, records.get(operario.name) or Record())
        for operario in (catalog.operarios if catalog else ())
        if contains_words(wanted.q, _search_texts(operario))
    ]
    rows.sort(key=lambda row: row.operario.name)
    if key := _ORDERS.get(wanted.sort):
        rows.sort(key=key)
    return rows


def _since_last_run(row: OperarioRow) -> float:
    latest = row.record.latest
    return -latest.received_at.timestamp() if latest else 0.0


def _lowest_rate(row: OperarioRow) -> tuple[float, int]:
    """The lowest rate first; of equal ones, that with the most runs; unknown ones last."""
    rate = row.record.heal_rate
    return (2.0 if rate is None else rate, -row.record.decided)


_ORDERS: Final[Mapping[str, Callable[[OperarioRow], Any]]] = {
    "last": _since_last_run,
    "healed": _lowest_rate,
}


def _search_texts(operario: Operario) -> Iterator[str]:
    origin = operario.origin
    yield from (operario.name, operario.alertname, operario.status, operario.form)
    yield from (origin.path, origin.commit, origin.commit_author, operario.namespace or "")
    yield from (f"{name}={text}" for name, text in changed_options(operario.options))
    if origin.stale:
        yield "stale"


def add(site: Site) -> None:
    """Serve `/operarios`."""
    site.add(PageRoute("/operarios", "operario_list.html", build, title="Operarios"))


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    catalog, wanted = visit.state.catalog(), read_filter(visit.query)
    rows = choose(catalog, index_records(visit.state.remediations()), wanted)
    paging = Paging(len(rows), _ROWS, read_page(visit.query))
    broken = {problem.path for problem in catalog.problems if problem.is_error} if catalog else ()
    return {
        "wanted": wanted,
        "sorts": _sort_links(wanted),
        "catalog": catalog,
        "sync": visit.state.sync(),
        "rows": paging.cut(rows),
        "paging": paging,
        "broken": len(broken),
    }


def _sort_links(wanted: OperarioFilter) -> Sequence[tuple[str, str, bool]]:
    """The title and the address of each order, and whether it is the present one."""
    return [
        (title, replace(wanted, sort=sort).address(), sort == wanted.sort)
        for sort, title in _SORTS.items()
    ]

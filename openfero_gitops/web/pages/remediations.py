"""The page `/remediations`: every remediation, filtered by the address, in pages.

A page begins after the last row of another (`before`) or ends before the first one (`after`), so
that rows stay on their page while new remediations arrive.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from aiohttp import web

from openfero_gitops.domain.duration import parse_duration
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.web.pages.remediation_rows import EFFECTS, row_of, search_texts
from openfero_gitops.web.pages.site import PageRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from multidict import MultiMapping

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.web.pages.site import Site, Visit
    from openfero_gitops.web.ports import ReplicaState

_ROWS: Final = 50
_PATH: Final = "remediations"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which remediations are shown; empty members select all.

    Attributes:
        phases: any of them.
        effects: any of them.
        operario: its name.
        alert: the name of the alert, ignoring case.
        target: `NAME=VALUE` of the target, or a part of it.
        namespace: of the Job.
        commit: the beginning of a commit ID.
        since: received at most this long ago, such as `24h`.
        q: words that all occur, see `search_texts`.
    """

    phases: tuple[Phase, ...] = ()
    effects: tuple[Effect, ...] = ()
    operario: str = ""
    alert: str = ""
    target: str = ""
    namespace: str = ""
    commit: str = ""
    since: str = ""
    q: str = ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of an address with this filter."""
        repeated = [("phase", phase.value) for phase in self.phases]
        repeated += [("effect", effect.value) for effect in self.effects]
        single = [(field.name, getattr(self, field.name)) for field in fields(self)[2:]]
        return repeated + [(name, value) for name, value in single if value]

    @property
    def refined(self) -> bool:
        """Whether it has more than phases and words."""
        return replace(self, phases=(), q="") != Filter()

    def address(self, *cursor: tuple[str, str]) -> str:
        """The address of the page with this filter, relative to `/`."""
        pairs = [*self.pairs, *cursor]
        return f"{_PATH}?{urlencode(pairs)}" if pairs else _PATH

    def with_phase(self, phase: Phase | None) -> str:
        """The address that shows one phase, or all, and otherwise the same."""
        return replace(self, phases=(phase,) if phase else ()).address()


def read_filter(query: MultiMapping[str]) -> Filter:
    """Read the filter of an address.

    Raises:
        web.HTTPBadRequest: a value is not known.
    """
    names = [field.name for field in fields(Filter)[2:]]
    for name in query:
        if name not in {"phase", "effect", "before", "after", *names}:
            raise web.HTTPBadRequest(
                text=f"unknown parameter {name[:60]!r}; use phase, effect, {', '.join(names)}"
            )
    single = {name: query.get(name, "").strip() for name in names}
    if single["since"]:
        try:
            parse_duration(single["since"])
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"since: {error}; use for example 24h") from None
    return Filter(
        _known("phase", query.getall("phase", []), Phase),
        _known("effect", query.getall("effect", []), Effect),
        **single,
    )


def _known(name: str, values: Iterable[str], choices: Iterable[Any]) -> tuple[Any, ...]:
    by_name = {choice.value.lower(): choice for choice in choices}
    for value in filter(None, values):
        if value.lower() not in by_name:
            allowed = ", ".join(choice.value for choice in by_name.values())
            raise web.HTTPBadRequest(text=f"unknown {name} {value[:60]!r}; use {allowed}")
    return tuple(dict.fromkeys(by_name[value.lower()] for value in values if value))


def choose(
    remediations: Iterable[Remediation],
    wanted: Filter,
    state: ReplicaState,
    now: datetime,
) -> list[Remediation]:
    """Select the remediations of any phase that a filter matches, newest first."""
    since = now - parse_duration(wanted.since) if wanted.since else None
    words = wanted.q.casefold().split()
    target = wanted.target.casefold()
    decisions = state.decisions() if words else {}
    not_helping = state.not_helping() if words else {}
    chosen = [
        remediation
        for remediation in remediations
        if (not wanted.operario or remediation.operario == wanted.operario)
        and (not wanted.alert or remediation.alertname.casefold() == wanted.alert.casefold())
        and (not wanted.namespace or remediation.key.namespace == wanted.namespace)
        and remediation.commit.startswith(wanted.commit)
        and (since is None or remediation.received_at >= since)
        and (not target or target in _target_text(remediation))
        and (
            not words
            or _contains(remediation, words, decisions, held_back=remediation.key in not_helping)
        )
    ]
    if wanted.effects:
        chosen = [r for r in chosen if (e := state.effect(r)) and e.effect in wanted.effects]
    chosen.sort(key=lambda remediation: remediation.order, reverse=True)
    return chosen


def _target_text(remediation: Remediation) -> str:
    pairs = remediation.target_labels.items()
    return "\n".join(f"{name}={value}" for name, value in pairs).casefold()


def _contains(
    remediation: Remediation,
    words: Sequence[str],
    decisions: Mapping[JobKey, Decision],
    *,
    held_back: bool,
) -> bool:
    texts = search_texts(remediation, decisions.get(remediation.key), held_back=held_back)
    text = "\n".join(texts).casefold()
    return all(word in text for word in words)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one page, and the cursors of its neighbours; None if there is none.

    `newer` is empty if the neighbour is the first page, which has no cursor.
    """

    rows: Sequence[Remediation]
    first: int
    newer: str | None
    older: str | None


def cut(newest_first: Sequence[Remediation], *, before: str = "", after: str = "") -> Part:
    """Cut a page from a list.

    Args:
        newest_first: all that match the filter.
        before: the cursor of the row after which the page begins; empty for the newest.
        after: the cursor of the row before which the page ends; it is used without `before`.
    """
    start = 0
    if before:
        start = sum(cursor_of(remediation) >= before for remediation in newest_first)
    elif after:
        newer = sum(cursor_of(remediation) > after for remediation in newest_first)
        start = max(0, newer - _ROWS)
    rows = newest_first[start : start + _ROWS]
    newer_cursor = None
    if start:
        newer_cursor = cursor_of(newest_first[start]) if start > _ROWS and rows else ""
    older_cursor = cursor_of(rows[-1]) if start + _ROWS < len(newest_first) else None
    return Part(rows, start, newer_cursor, older_cursor)


def cursor_of(remediation: Remediation) -> str:
    """A unique text that sorts in the order of arrival."""
    key = remediation.key
    return f"{format_time(remediation.received_at)} {key.name} {key.namespace}"


def add(site: Site) -> None:
    """Serve `/remediations`."""
    site.add(PageRoute("/remediations", "remediation_list.html", build, title="Remediations"))


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    state, wanted = visit.state, read_filter(visit.query)
    everything = list(state.remediations())
    matching = choose(everything, wanted, state, visit.now)
    shown = [r for r in matching if not wanted.phases or r.phase in wanted.phases]
    part = cut(shown, before=visit.query.get("before", ""), after=visit.query.get("after", ""))
    decisions = state.decisions()
    return {
        "wanted": wanted,
        "effects": EFFECTS,
        "counts": Counter(r.phase for r in matching),
        "total": len(everything),
        "matching": len(matching),
        "shown": len(shown),
        "part": part,
        "rows": [row_of(r, decisions.get(r.key), state) for r in part.rows],
        "newer": None if part.newer is None else _neighbour(wanted, "after", part.newer),
        "older": None if part.older is None else _neighbour(wanted, "before", part.older),
        "periods": _PERIODS,
    }


def _neighbour(wanted: Filter, name: str, cursor: str) -> str:
    return wanted.address((name, cursor)) if cursor else wanted.address()


#: Choices of `since`.
_PERIODS: Final = ("1h", "6h", "24h", "7d")

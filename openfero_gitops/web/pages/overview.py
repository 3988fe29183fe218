"""The page `/`: the active catalog, what ran, and what is wrong."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from openfero_gitops.admission.decide import Admit, Refuse, Wait
from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import changed_options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.web.conditions import show_condition
from openfero_gitops.web.pages.phases import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from multidict import MultiMapping

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.web.pages.site import Site, Visit

#: Rows of a table. Drawing a remediation takes a millisecond; the filter reaches the others.
_MAX_REMEDIATIONS: Final = 50
_MAX_OTHERS: Final = 200
_EFFECTS: Final = {
    Effect.PENDING: "Effect pending",
    Effect.HEALED: "Healed",
    Effect.NOT_HEALED: "Not healed",
    Effect.UNKNOWN: "Effect unknown",
}
_REASON_TEXTS: Final = {reason.value: reason.text for reason in Reason}

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
class RemediationRow:
    """A row of the remediations table.

    `meaning` explains the `reason`; `until` is when a wait ends by itself; `commands` are pairs
    of a purpose and a shell command.
    """

    remediation: Remediation
    reason: str
    meaning: str
    why: tuple[str, ...]
    until: datetime | None
    approver_note: str
    target: Mapping[str, str]
    options: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]

    @property
    def ran(self) -> timedelta | None:
        """How long the Job ran; None if it has not finished or never started."""
        remediation = self.remediation
        started_at, finished_at = remediation.started_at, remediation.finished_at
        if not remediation.started or started_at is None or finished_at is None:
            return None
        return max(finished_at - started_at, timedelta(0))


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
            _search_texts(r, decisions.get(r.key), held_back=r.key in not_helping),
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
            lambda r: _remediation_row(
                r,
                decisions.get(r.key),
                state.effect(r),
                approval_verified=state.is_approval_verified(r),
            ),
        )

    return {
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


def _remediation_row(
    remediation: Remediation,
    decision: Decision | None,
    effect: Assessment | None,
    *,
    approval_verified: bool,
) -> RemediationRow:
    reason, message = remediation.reason, remediation.message
    why: list[str] = []
    until = None
    match decision if remediation.waiting else None:
        case Wait() as wait:
            reason, message, until = wait.reason.value, wait.message, wait.until
        case Refuse() as refusal:
            reason, message = refusal.reason.value, refusal.message
            why.append("The leader is about to refuse it")
        case Admit() as admission:
            reason, message = admission.reason.value, ""
            why.append("The leader is about to start it")
    meaning = _REASON_TEXTS.get(reason, "")
    if message:
        # A failed Job's message begins with its condition, which is the reason.
        why.append(message.removeprefix(f"{reason}: ") if reason else message)
    elif meaning:
        why.append(meaning[0].upper() + meaning[1:])
    approver_note = "" if approval_verified else "unverified: the cluster does not check this name"
    if remediation.approved_by:
        note = f" ({approver_note})" if approver_note else ""
        given = f": {remediation.approval_reason}" if remediation.approval_reason else ""
        why.append(f"Approved by {remediation.approved_by}{note}{given}")
    why.extend(_phase_details(remediation))
    if effect is not None and remediation.phase in FINAL:
        why.append(f"{_EFFECTS[effect.effect]}: {effect.message}")
    return RemediationRow(
        remediation=remediation,
        reason=reason,
        meaning=meaning,
        why=tuple(why),
        until=until,
        approver_note=approver_note,
        target=remediation.target_labels,
        options=changed_options(remediation.options),
        commands=tuple(_commands(remediation, reason)),
    )


def _phase_details(remediation: Remediation) -> Iterator[str]:
    match remediation.phase:
        case Phase.QUEUED if remediation.queue:
            yield f"Waits for Kueue, in queue {remediation.queue}"
        case Phase.QUEUED:
            yield "Waits for Kueue"
        case Phase.HELD:
            yield "Someone suspended it after it started; the controller does not restart it"
        case Phase.RUNNING if remediation.started_by_other:
            yield "Started by someone else, not by the controller"
    if remediation.starts > 1 and remediation.phase in FINAL:
        yield f"Started {remediation.starts} times: it was stopped and started again"
    if remediation.deleting:
        yield "It is being deleted"


def _commands(remediation: Remediation, reason: str) -> Iterator[tuple[str, str]]:
    """List commands that an operator may want to run next, quoted for a shell."""
    job = shlex.quote(str(remediation.key))
    name = shlex.quote(remediation.key.name)
    kubectl = f"kubectl -n {shlex.quote(remediation.key.namespace)}"
    if remediation.phase is Phase.AWAITING_APPROVAL or (
        remediation.phase is Phase.WAITING and reason == Reason.NOT_HELPING
    ):
        yield "Approve", f"openfero-gitops approve {job}"
        yield "Refuse", f"openfero-gitops refuse {job}"
    elif remediation.phase not in FINAL:
        yield "Cancel", f"openfero-gitops cancel {job}"
    if show := git_show(remediation.commit, remediation.path):
        yield "Reviewed file", show
    yield "Job", f"{kubectl} get job {name} -o yaml"
    yield "Events", f"{kubectl} describe job {name}"
    if remediation.started:
        yield "Logs", f"{kubectl} logs job/{name} --all-containers"


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


def _search_texts(
    remediation: Remediation, decision: Decision | None, *, held_back: bool
) -> Iterator[str]:
    """List the texts by which a reader may search for a remediation."""
    yield from (str(remediation.key), remediation.operario, remediation.alertname)
    yield from (remediation.status, remediation.phase, remediation.reason, remediation.message)
    yield from (remediation.commit, remediation.path, remediation.fingerprint)
    yield from (f"{name}={value}" for name, value in remediation.labels.items())
    if remediation.effect is not None:
        yield remediation.effect
    if decision is not None and remediation.waiting:
        yield decision.reason
    if held_back:
        yield Reason.NOT_HELPING


def _operario_texts(operario: Operario) -> tuple[str, ...]:
    origin = operario.origin
    alert = (operario.alertname, operario.status)
    return (operario.name, *alert, operario.form, origin.path, origin.commit)


def _problem_texts(problem: Problem) -> tuple[str, ...]:
    words = (problem.message, problem.suggestion)
    return (problem.path, problem.rule, problem.severity, *words, problem.commit)

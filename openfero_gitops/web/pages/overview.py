"""The page `/`: what needs a person, what runs, the last day, and the health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from openfero_gitops.admission.decide import Refuse, Wait
from openfero_gitops.domain.remediation import FINAL, Phase
from openfero_gitops.web.activations import list_activations
from openfero_gitops.web.conditions import show_condition
from openfero_gitops.web.pages.site import PageRoute
from openfero_gitops.web.pages.urgent import next_command
from openfero_gitops.web.timeline import LOOKS, SPAN, Grouping, draw, list_marks

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.pages.site import Site, Visit

_MAX_CURRENT: Final = 10


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """A remediation that is not over: what it waits for, and until when at most."""

    remediation: Remediation
    why: str
    until: datetime | None


def add(site: Site) -> None:
    """Serve `/`."""
    site.add(PageRoute("/", "overview.html", build, title="Overview"))


def build(visit: Visit) -> dict[str, Any]:
    """Compute the variables of the template."""
    by = _read_grouping(visit)
    state, now = visit.state, visit.now
    remediations = list(state.remediations())
    decisions = state.decisions()
    current = sorted(
        (r for r in remediations if r.phase not in FINAL),
        # What runs is first, then what has started otherwise, then what waits; the oldest first.
        key=lambda r: (r.waiting, r.phase is not Phase.RUNNING, r.order),
    )

    def effect_of(remediation: Remediation) -> Effect | None:
        if remediation.effect is not None:
            return remediation.effect
        assessment = state.effect(remediation)
        return assessment.effect if assessment else None

    activations = list_activations(state.sync(), state.revisions())
    marks = list_marks(remediations, activations, state.leadership(), state.pause(), now)
    return {
        "conditions": [show_condition(condition) for condition in visit.attention.conditions],
        "catalog": state.catalog(),
        "sync": state.sync(),
        "pause": state.pause(),
        "occupying": sum(r.occupying for r in remediations),
        "total": len(remediations),
        "timeline": draw(remediations, effect_of, marks, now, by=by),
        "groupings": list(Grouping),
        "looks": LOOKS,
        "span_hours": int(SPAN.total_seconds() // 3600),
        "current_jobs": [_current(r, decisions.get(r.key)) for r in current[:_MAX_CURRENT]],
        "current_total": len(current),
        "next_command": next_command,
        "held_back": frozenset(state.not_helping()),
    }


def _read_grouping(visit: Visit) -> Grouping:
    text = visit.query.get("by", Grouping.ALERT)
    try:
        return Grouping(text)
    except ValueError:
        raise web.HTTPBadRequest(
            text=f"by={text[:40]!r} is not known; use {' or '.join(Grouping)}"
        ) from None


def _current(remediation: Remediation, decision: Decision | None) -> CurrentJob:
    if remediation.waiting:
        if isinstance(decision, Wait):
            return CurrentJob(remediation, decision.message or decision.reason.text, decision.until)
        if isinstance(decision, Refuse):
            why = f"about to be refused: {decision.message or decision.reason.text}"
            return CurrentJob(remediation, why, None)
    return CurrentJob(remediation, remediation.pod_waiting or remediation.message, None)

"""Serves the list of remediations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.api.operation import Tag
from openfero_gitops.web.api.paging import take_page
from openfero_gitops.web.api.parameters import PagingQuery, PathParameters
from openfero_gitops.web.api.remediation_shape import RemediationListShape, remediation_shape
from openfero_gitops.web.api.route import AnyRoute, Call, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.web.ports import ReplicaState


class RemediationQuery(PagingQuery):
    """Filters of remediations: all must match; a repeated one matches any of its values."""

    phase: tuple[Phase, ...] = ()
    """Only in this phase."""
    status: tuple[Status, ...] = ()
    """Only for alerts with this status."""
    alert: tuple[str, ...] = ()
    """Only for alerts with this name."""
    operario: tuple[str, ...] = ()
    """Only of the operario with this name."""
    namespace: tuple[str, ...] = ()
    """Only with Jobs in this namespace."""
    commit: tuple[str, ...] = ()
    """Only from this commit (all 40 characters)."""
    effect: tuple[Effect, ...] = ()
    """Only with this effect, as it is now."""


#: The effect is no such filter: it depends on the other Jobs of the incident, and on the time.
_FILTERS: Final[Mapping[str, Callable[[Remediation], str]]] = {
    "phase": lambda r: r.phase,
    "status": lambda r: r.status,
    "alert": lambda r: r.alertname,
    "operario": lambda r: r.operario,
    "namespace": lambda r: r.key.namespace,
    "commit": lambda r: r.commit,
}


def routes(state: ReplicaState) -> list[AnyRoute]:
    """Return `/api/remediations`."""

    def build(call: Call[PathParameters, RemediationQuery]) -> RemediationListShape:
        chosen = filter_remediations(state.remediations(), call.query)
        if effects := set(call.query.effect):
            chosen = [r for r in chosen if (e := state.effect(r)) and e.effect in effects]
        page, following = take_page(chosen, arrival, call, descending=True)
        decisions = state.decisions() if any(r.waiting for r in page) else {}
        return RemediationListShape(
            items=[
                remediation_shape(
                    remediation,
                    decisions.get(remediation.key),
                    effect=state.effect(remediation),
                    verified=state.is_approval_verified(remediation),
                )
                for remediation in page
            ],
            continue_=following,
        )

    return [
        Route(
            "/api/remediations",
            "List remediations, newest first",
            Tag.REMEDIATIONS,
            RemediationListShape,
            build,
            query=RemediationQuery,
            description="All filters must match; a repeated filter matches any of its values.",
        )
    ]


def filter_remediations(
    remediations: Iterable[Remediation], query: RemediationQuery
) -> list[Remediation]:
    """Apply the filters, except that by effect."""
    filters = [
        (value_of, values)
        for name, value_of in _FILTERS.items()
        if (values := frozenset(getattr(query, name)))
    ]
    return [r for r in remediations if all(value_of(r) in values for value_of, values in filters)]


def arrival(remediation: Remediation) -> str:
    """Return a unique text that sorts in order of arrival."""
    moment = remediation.received_at.isoformat(timespec="microseconds")  # in UTC
    return f"{moment} {remediation.key.namespace}/{remediation.key.name}"

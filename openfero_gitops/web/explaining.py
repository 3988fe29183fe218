"""Explains alerts with the active catalog and the Jobs of the cluster; nothing is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openfero_gitops.author.explain import Explanation, delivery_of, explain_group
from openfero_gitops.author.in_cluster import OutcomeNow, outcome_now

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import About
    from openfero_gitops.web.ports import ReplicaState

#: Of a body with alerts to explain.
MAX_BODY_BYTES: Final = 2**20
#: Alerts of one body that `POST /api/explain` explains.
MAX_ALERTS: Final = 200
#: Of memory for each byte of a body: the text, its values, and the alerts.
MEMORY_FACTOR: Final = 12
NO_CATALOG: Final = (
    "no catalog is active yet, so no alert can be matched: see the problems on /sync"
)


@dataclass(frozen=True, slots=True)
class ExplainedAlert:
    """What an alert does in an empty cluster, as `explain` says, and what it would do now."""

    explanation: Explanation
    now: OutcomeNow


async def explain_alerts(
    state: ReplicaState, group: AlertGroup, now: datetime
) -> list[Explanation]:
    """Explain each alert as the command `explain` does, in a thread.

    Raises:
        web.HTTPServiceUnavailable: there is no catalog.
    """
    return await asyncio.to_thread(_explain, _catalog(state), state.about(), group, now)


async def explain_with_jobs(
    state: ReplicaState, group: AlertGroup, now: datetime
) -> list[ExplainedAlert]:
    """Explain each alert, also beside the Jobs that exist, in a thread.

    Raises:
        web.HTTPServiceUnavailable: there is no catalog.
    """
    catalog, about, pause = _catalog(state), state.about(), state.pause()
    remediations = list(state.remediations())

    def work() -> list[ExplainedAlert]:
        delivery = delivery_of(group, now)
        return [
            ExplainedAlert(
                explanation,
                outcome_now(
                    explanation.alert,
                    catalog,
                    remediations,
                    pause,
                    delivery,
                    jobs_namespace=about.jobs_namespace,
                    replica_labels=about.replica_labels,
                ),
            )
            for explanation in _explain(catalog, about, group, now)
        ]

    return await asyncio.to_thread(work)


def _catalog(state: ReplicaState) -> Catalog:
    catalog = state.catalog()
    if catalog is None:
        raise web.HTTPServiceUnavailable(text=NO_CATALOG)
    return catalog


def _explain(catalog: Catalog, about: About, group: AlertGroup, now: datetime) -> list[Explanation]:
    return explain_group(
        group,
        catalog,
        now=now,
        jobs_namespace=about.jobs_namespace,
        replica_labels=about.replica_labels,
    )

"""The pages for browsers: one module and one template a page.

A page's `build` computes everything that it shows, so that its template only draws it. Nothing
here changes anything in the cluster.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.web.bodies import BodyBudget
from openfero_gitops.web.pages import (
    about,
    alerts,
    explain,
    operario,
    operarios,
    overview,
    problems,
    remediation,
    remediations,
    sync,
)
from openfero_gitops.web.pages.site import Site
from openfero_gitops.web.repository_links import RepositoryLinks
from openfero_gitops.web.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from openfero_gitops.web.auth import Guard
    from openfero_gitops.web.evidence import EvidenceReader
    from openfero_gitops.web.ports import ReplicaState
    from openfero_gitops.web.reviewed import ReviewedReader

#: In the order of the navigation.
_PAGES: Final = (overview, alerts, remediations, operarios, problems, explain)
#: For the bodies of forms, where no listener shares its budget.
_BUDGET_BYTES: Final = 16 * 2**20


def _utc_now() -> datetime:
    return datetime.now(UTC)


def add_pages(
    app: web.Application,
    state: ReplicaState,
    guard: Guard,
    turns: Turns | None = None,
    now: Callable[[], datetime] = _utc_now,
    *,
    budget: BodyBudget | None = None,
    evidence: EvidenceReader | None = None,
    links: RepositoryLinks | None = None,
    reviewed: ReviewedReader | None = None,
) -> None:
    """Serve the pages and their static files.

    Args:
        app: the application.
        state: of the replica.
        guard: checks who may read.
        turns: lets pages be built one after the other.
        now: the current time (UTC).
        budget: for the bodies of forms.
        evidence: reads what the API server and Git have about one remediation; without it, its
            page shows what the replica knows.
        links: to commits and files.
        reviewed: reads roles and golden cases; without it, pages say that they are not known.
    """
    site = Site(
        app, state, guard, turns or Turns(), now=now, budget=budget or BodyBudget(_BUDGET_BYTES)
    )
    for page in _PAGES:
        page.add(site)
    links = links or RepositoryLinks()
    sync.add(site, links)
    about.add(site)
    remediation.add(site, state, evidence, links)
    operario.add(site, links, reviewed)

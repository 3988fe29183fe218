"""What needs a person, as the head of every page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.remediation import FINAL
from openfero_gitops.web.api.about_shape import about_shape
from openfero_gitops.web.api.shape import to_json
from openfero_gitops.web.concerns import list_concerns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.domain.health import Condition
    from openfero_gitops.web.concerns import Concern
    from openfero_gitops.web.ports import ReplicaState


@dataclass(frozen=True, slots=True)
class PageCount:
    """A number beside the name of a page in the navigation, and what it counts."""

    number: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Attention:
    """The health of the controller and what needs a person, the most urgent first.

    `counts` are by the path of the page, without the first slash.
    """

    about: Mapping[str, Any]
    conditions: Sequence[Condition]
    healthy: bool
    concerns: Sequence[Concern]
    counts: Mapping[str, PageCount]


def read_attention(state: ReplicaState) -> Attention:
    """Read what needs a person now."""
    catalog = state.catalog()
    conditions = state.conditions()
    about = to_json(about_shape(state.about(), state.leadership(), state.pause()))
    remediations = list(state.remediations())
    return Attention(
        about=about,
        conditions=conditions,
        healthy=bool(catalog and about["leader"] and all(c.holds or c.advice for c in conditions)),
        concerns=list_concerns(
            leader=about["leader"],
            conditions=conditions,
            catalog=catalog,
            sync=state.sync(),
            remediations=remediations,
            not_helping=state.not_helping(),
            unresolved=state.unresolved(),
            pause=state.pause(),
        ),
        counts={
            "remediations": PageCount(
                sum(r.phase not in FINAL for r in remediations), "running or waiting"
            ),
            "problems": PageCount(
                sum(problem.is_error for problem in catalog.problems) if catalog else 0, "errors"
            ),
        },
    )

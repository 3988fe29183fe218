"""One of the two revisions that are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog, Snapshot
    from openfero_gitops.domain.errors import CatalogRefusal
    from openfero_gitops.domain.problem import Problem


@dataclass(frozen=True, slots=True)
class Side:
    """A revision: its files and its catalog.

    If `openfero.yaml` has errors (`refusal`), the catalog is built from the other files.
    """

    snapshot: Snapshot
    catalog: Catalog
    refusal: CatalogRefusal | None = None

    @property
    def errors(self) -> list[Problem]:
        """All problems that are errors."""
        refused = self.refusal.problems if self.refusal else ()
        return [problem for problem in (*refused, *self.catalog.problems) if problem.is_error]

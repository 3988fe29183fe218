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
    """A revision: its files, and what is in force of them.

    With a `refusal` the catalog is that of the other files, without any envelope.
    """

    snapshot: Snapshot
    catalog: Catalog
    refusal: CatalogRefusal | None = None

    @property
    def errors(self) -> list[Problem]:
        """Everything that keeps something out of force."""
        refused = self.refusal.problems if self.refusal else ()
        return [one for one in (*refused, *self.catalog.problems) if one.is_error]

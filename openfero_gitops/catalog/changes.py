"""List what a new catalog changes compared with the previous one, by operario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.sync import Changes

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario


def changes_between(before: Catalog | None, after: Catalog) -> Changes:
    """List which operarios were added, changed or removed, and which files are quarantined.

    An operario has changed if its Job, its options, its namespace or its alert has: a commit that
    only moves or reformats its file changes nothing.
    """
    old = {operario.name: _substance(operario) for operario in before.operarios} if before else {}
    new = {operario.name: _substance(operario) for operario in after.operarios}
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
        quarantined=tuple(sorted({problem.path for problem in after.problems if problem.is_error})),
        envelope=before is not None and before.envelope != after.envelope,
    )


def _substance(operario: Operario) -> tuple[object, ...]:
    return (
        operario.alertname,
        operario.status,
        operario.options,
        operario.namespace,
        operario.spec_digest,
    )

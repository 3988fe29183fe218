"""What a new catalog changes beside the one before it, operario by operario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.catalog import apart
from openfero_gitops.domain.sync import Changes

if TYPE_CHECKING:
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario


def changes_between(before: Catalog | None, after: Catalog) -> Changes:
    """Which operarios are new, another, or gone, and which files stand in quarantine.

    An operario is another where its Job, its options, its namespace or what it answers is; a
    commit that only moves or reformats its file changes nothing.
    """
    gone, came = apart(before.as_read if before else (), after.as_read)
    old = {one.name: _substance(one) for one in gone}
    new = {one.name: _substance(one) for one in came}
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
        quarantined=tuple(sorted({one.path for one in after.problems if one.is_error})),
        envelope=before is not None and before.envelope != after.envelope,
    )


def _substance(one: Operario) -> tuple[object, ...]:
    return (one.alertname, one.status, one.options, one.namespace, one.spec_digest)

"""Lists which revisions were active since when, for every page that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.catalog.revisions import Activation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.catalog.revisions import RevisionHistory
    from openfero_gitops.domain.sync import SyncRecord, SyncStatus


def list_activations(sync: SyncStatus, history: RevisionHistory) -> Sequence[Activation]:
    """List the revisions that were active on the leader, the oldest first.

    Without such a record, they are those that this process activated.
    """
    return history.activations or [
        Activation(record.after, record.at) for record in own_activations(sync)
    ]


def own_activations(sync: SyncStatus) -> Sequence[SyncRecord]:
    """List the syncs of this process that changed the active revision, the oldest first."""
    return [
        record
        for record in reversed(sync.history)
        if record.error is None and record.after and record.after != record.before
    ]

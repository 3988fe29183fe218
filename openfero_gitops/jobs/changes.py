"""Which Jobs have changed since a reader last asked, so that it need not compare all of them.

A reader may be slow, or wait for an API server: what is kept for it is bounded by the number of
Jobs, not by how often they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.domain.remediation import JobKey, Remediation


class JobChange(NamedTuple):
    """A Job as it was and as it is: None if it did not exist yet, or does not exist any more."""

    before: Remediation | None
    after: Remediation | None


class JobChanges:
    """The Jobs that have changed since a reader last took them."""

    def __init__(self, current: Callable[[JobKey], Remediation | None]) -> None:
        """Start with no changes; `current` returns a Job as it is."""
        self._current = current
        self._before: dict[str, tuple[JobKey, Remediation | None]] = {}  # by uid, the oldest first

    def note(self, uid: str, key: JobKey, before: Remediation | None) -> None:
        """Note that a Job changes: how it was before its first change is what counts."""
        self._before.setdefault(uid, (key, before))

    def take(self) -> list[JobChange]:
        """Return the changes since the last call, in the order of the first change of each Job."""
        noted, self._before = self._before, {}
        changes = []
        for uid, (key, before) in noted.items():
            after = self._current(key)
            if after is not None and after.uid != uid:
                after = None  # another Job has its name now
            if after is not before:
                changes.append(JobChange(before, after))
        return changes

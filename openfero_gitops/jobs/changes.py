"""Which Jobs have changed since a reader last asked, so that it need not compare all of them.

A reader may be slow, or wait for an API server: what is kept for it is bounded by the number of
Jobs, not by how often they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation


class JobChange(NamedTuple):
    """A Job as it was and as it is: None if it did not exist yet, or does not exist any more."""

    before: Remediation | None
    after: Remediation | None


class JobChanges:
    """The Jobs that have changed since a reader last took them."""

    def __init__(self) -> None:
        """Start with no changes."""
        self._by_uid: dict[str, JobChange] = {}

    def note(self, uid: str, change: JobChange) -> None:
        """Note a change of a Job; several of one Job become one."""
        earlier = self._by_uid.get(uid)
        if earlier is None:
            self._by_uid[uid] = change
        elif earlier.before is change.after:  # as it was: a Job that came and went
            del self._by_uid[uid]
        else:
            self._by_uid[uid] = JobChange(earlier.before, change.after)

    def take(self) -> list[JobChange]:
        """Return the changes since the last call, in the order of the first change of each Job."""
        taken, self._by_uid = self._by_uid, {}
        return list(taken.values())

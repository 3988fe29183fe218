"""The index of the Jobs of a view, brought up to date when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.admission.job_index import JobIndex

if TYPE_CHECKING:
    from openfero_gitops.jobs.changes import JobChanges
    from openfero_gitops.jobs.view import View


class LiveIndex:
    """Indexes the Jobs of a view; made when it is read first, since not every replica needs it."""

    def __init__(self, view: View) -> None:
        """Take the view; nothing is read yet."""
        self._view = view
        self._record: JobChanges | None = None
        self._index = JobIndex()

    def get(self) -> JobIndex:
        """Return the index of the Jobs as they are now. The next call changes it."""
        if self._record is None:
            self._record = self._view.record_changes()
            self._index = JobIndex(self._view)
        else:
            for before, after in self._record.take():
                if before is not None:
                    self._index.remove(before)
                if after is not None:
                    self._index.add(after)
        return self._index

"""The incidents of the view, indexed for those that assess many Jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.effects.incident import Incident

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View

#: The last incidents that are kept; where there are more, few Jobs belong to each.
_MAX_INCIDENTS: Final = 1000


class IncidentIndex:
    """The incidents of the view, those used last indexed once until a Job changes."""

    def __init__(self, view: View) -> None:
        """Take the view; nothing is read yet."""
        self._view = view
        self._changes = -1
        self._incidents: dict[str, Incident] = {}

    def of(self, remediation: Remediation) -> Incident:
        """Return the incident of a Job; if it is unknown, the Job alone."""
        digest = remediation.incident
        if not digest:
            return Incident([remediation])
        if self._changes != self._view.changes:
            self._changes = self._view.changes
            self._incidents = {}
        if digest not in self._incidents:
            if len(self._incidents) >= _MAX_INCIDENTS:
                del self._incidents[next(iter(self._incidents))]
            self._incidents[digest] = Incident(self._view.of_incident(digest))
        return self._incidents[digest]

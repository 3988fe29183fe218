"""The incidents of the view, indexed for those that assess many Jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.effects.incident import Incident

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View


class IncidentIndex:
    """The incidents of the view; those with several Jobs are kept until a Job changes."""

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
        incident = self._incidents.get(digest)
        if incident is None:
            incident = Incident(self._view.of_incident(digest))
            # Most incidents have one Job. They are not kept, because each takes 1 KiB.
            if len(incident) > 1:
                self._incidents[digest] = incident
        return incident

"""Logs what of a delivery cannot be read.

Alertmanager repeats it at every group_interval, so that each kind is logged once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from openfero_gitops.background import OnceEach

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import AlertGroup

_log = structlog.get_logger(__name__)


class UnreadLog:
    """The kinds that were logged."""

    def __init__(self) -> None:
        """Begin with none."""
        self._alerts = OnceEach()
        self._members = OnceEach()

    def log(self, group: AlertGroup) -> None:
        """Log the first alert that cannot be read, and each member that is treated as absent."""
        if group.invalid:
            first = group.invalid[0]
            member = "/".join(part for part in first.path if isinstance(part, str))
            if self._alerts.is_first((first.name, f"{member}: {first.problem}")):
                _log.warning(
                    "an alert cannot be read, and has no Job",
                    alert=first.name,
                    member=first.pointer,
                    error=first.problem,
                    invalid=len(group.invalid),
                )
        for problem in group.unread:
            if self._members.is_first(problem):
                _log.warning("a member of the delivery is treated as absent", error=problem)

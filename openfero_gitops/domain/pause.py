"""Why no Job starts: a pause of admission, with its cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync import RefusedRevision

_COMMIT_CHARACTERS: Final = 12


class PauseCause(StrEnum):
    """What pauses admission."""

    COMMAND = "command"  # openfero-gitops pause
    CONFIGURATION = "configuration"  # `paused: true` in openfero.yaml of the active catalog
    REFUSED_REVISION = "refused-revision"  # the same, of a newer revision that was refused
    UNKNOWN = "unknown"  # nobody can say that admission is not paused


@dataclass(frozen=True, slots=True)
class Pause:
    """Admission is paused.

    `message` says why and how to resume; `by` names a person or a source of the pause, empty if
    the cause is unknown. `since` is only known for a pause by command. Such a pause may have a
    `reason`, and a time at which it ends by itself.
    """

    cause: PauseCause
    message: str
    by: str = ""
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""

    def is_over(self, now: datetime) -> bool:
        """Whether the pause has ended by itself."""
        return self.until is not None and now >= self.until


def pause_in_git(catalog: Catalog | None, refused: RefusedRevision | None) -> Pause | None:
    """Return the pause that the repository asks for, None if it asks for none."""
    if catalog is not None and catalog.envelope.paused:
        commit = catalog.revision.commit[:_COMMIT_CHARACTERS]
        at = f" at commit {commit}" if commit else ""
        return Pause(
            PauseCause.CONFIGURATION,
            f"openfero.yaml sets paused: true{at}; set it to false to resume",
            "openfero.yaml",
        )
    if refused is not None and refused.paused:
        commit = refused.commit[:_COMMIT_CHARACTERS]
        return Pause(
            PauseCause.REFUSED_REVISION,
            f"revision {commit} was refused, but its openfero.yaml sets paused: true; push a valid "
            "revision to resume",
            f"refused revision {commit}",
        )
    return None

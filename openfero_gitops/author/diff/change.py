"""Changes in behavior, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.catalog import Revision
    from openfero_gitops.domain.sentence import Sentence


class ChangeEffect(StrEnum):
    """Whether a change allows more or less; the most dangerous comes first."""

    BREAKS = "breaks"
    WIDENS = "allows more"
    CHANGES = "changes"
    NARROWS = "allows less"


class ChangeKind(StrEnum):
    """What changed; within one effect, the most dangerous comes first."""

    REVISION = "revision"
    QUARANTINE = "quarantine"
    RIGHTS = "rights"
    SECURITY = "security"
    NAMESPACE = "namespace"
    ENVELOPE = "envelope"
    SERVICE_ACCOUNT = "service-account"
    OPERARIO = "operario"
    ALERT = "alert"
    OPTION = "option"
    IMAGE = "image"
    COMMAND = "command"
    ARGS = "args"
    ENVIRONMENT = "env"
    VOLUMES = "volumes"
    JOB = "job"


_EFFECTS: Final = {effect: rank for rank, effect in enumerate(ChangeEffect)}
_KINDS: Final = {kind: rank for rank, kind in enumerate(ChangeKind)}


@dataclass(frozen=True, slots=True)
class BehaviorChange:
    """One change in behavior.

    `operario` is empty for a change that concerns the whole repository, and `option` for one that
    is of no option. `before` and `after` are
    multi-line texts, to be shown as a line diff; both are empty if the sentence is complete.
    """

    effect: ChangeEffect
    kind: ChangeKind
    operario: str
    sentence: Sentence
    before: str = ""
    after: str = ""
    option: str = ""

    @property
    def rank(self) -> tuple[int, int, str, Sentence]:
        """Sort key: the most dangerous change first."""
        return _EFFECTS[self.effect], _KINDS[self.kind], self.operario, self.sentence


@dataclass(frozen=True, slots=True)
class Winner:
    """An alert for which the matching operario changes; empty names mean no operario.

    `labels` are an example of labels for which it changes; with `always` it changes for all.
    """

    alertname: str
    status: Status
    before: str
    after: str
    labels: Mapping[str, str]
    always: bool


@dataclass(frozen=True, slots=True)
class BehaviorDiff:
    """The changes in behavior between two revisions.

    `files` counts the files that differ, if only in a comment. `broken` means that `head` has an
    error that `base` does not have.
    """

    base: Revision
    head: Revision
    changes: tuple[BehaviorChange, ...]
    winners: tuple[Winner, ...]
    files: int
    broken: bool

"""One change in behaviour, as a value: how dangerous, of what, whose, and in which words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.catalog import Revision


class ChangeEffect(StrEnum):
    """What a change does to what may happen; the first needs the most attention."""

    BREAKS = "breaks"
    WIDENS = "allows more"
    CHANGES = "changes"
    NARROWS = "allows less"


class ChangeKind(StrEnum):
    """What is changed; of one effect the first needs the most attention."""

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


class Quote(str):
    """Words of the repository's author inside a sentence of ours: nothing that is obeyed."""

    __slots__ = ()


#: A sentence: our own words, and quotes.
Sentence = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BehaviourChange:
    """One thing that behaves otherwise.

    `operario` is empty where it concerns the whole. `before` and `after` are texts of several
    lines, to be shown line against line; both are empty where the sentence says it all.
    """

    effect: ChangeEffect
    kind: ChangeKind
    operario: str
    sentence: Sentence
    before: str = ""
    after: str = ""

    @property
    def rank(self) -> tuple[int, int, str, Sentence]:
        """Sorts the most dangerous first."""
        return _EFFECTS[self.effect], _KINDS[self.kind], self.operario, self.sentence


@dataclass(frozen=True, slots=True)
class Winner:
    """An alert that another operario answers than before, or nobody, for example with `labels`.

    `always` says that it is so whatever its labels.
    """

    alertname: str
    status: Status
    before: str
    after: str
    labels: Mapping[str, str]
    always: bool


@dataclass(frozen=True, slots=True)
class BehaviourDiff:
    """What one revision does otherwise than another.

    `files` counts those that differ in anything, comments included. `broken` says that `head`
    has an error that `base` did not have.
    """

    base: Revision
    head: Revision
    changes: tuple[BehaviourChange, ...]
    winners: tuple[Winner, ...]
    files: int
    broken: bool

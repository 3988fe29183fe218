"""The result of syncs: how the active catalog was loaded, and why a newer one was not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.catalog import Revision


@dataclass(frozen=True, slots=True)
class RefusedRevision:
    """The last revision that was refused, and why; `time` is RFC 3339.

    If its `openfero.yaml` sets `paused: true`, `paused` is True and nothing starts until a revision
    is accepted, or refused without that setting.
    """

    commit: str
    reason: str
    time: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What a revision changed: operarios by name, `quarantined` files by path.

    `envelope` is True if the meaning of `openfero.yaml` changed.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    envelope: bool = False


@dataclass(frozen=True, slots=True)
class BehaviorLine:
    """A change in behavior: whether it allows more or less, of which operario, and in words."""

    effect: str
    operario: str
    text: str


@dataclass(frozen=True, slots=True)
class BehaviorNote:
    """What a catalog changes in behavior, in the words of `diff`; `more` lines are left out."""

    summary: str
    lines: tuple[BehaviorLine, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class SyncRecord:
    """A sync that activated a catalog, or consecutive syncs that failed with the same error.

    Attributes:
        at: when it happened first.
        until: when it happened last.
        times: how many consecutive syncs failed.
        before: the active commit before; empty if there was none.
        after: the commit of the sync; empty if it is not known.
        origin: `git` or `mirror`.
        changes: what the new catalog changes.
        steps: the duration in seconds of each step of the last one.
        error: None if it succeeded.
        behavior: what the new catalog changes in behavior; None if there was none before, or while
            that is not known yet.
    """

    at: datetime
    until: datetime
    times: int
    before: str
    after: str
    origin: str
    changes: Changes
    steps: Mapping[str, float]
    error: str | None = None
    behavior: BehaviorNote | None = None


class LagState(StrEnum):
    """How the active commit of a replica relates to the leader's."""

    SAME = "same"
    BEHIND = "behind"
    AHEAD = "ahead"
    APART = "apart"  # on another history


@dataclass(frozen=True, slots=True)
class ReplicaLag:
    """How the active commit of a replica relates to the commit `leader` of the leader.

    While it is behind or apart, `since` is the last time that it was neither. `elsewhere` is the
    repository of the leader, if this replica follows another.
    """

    state: LagState
    leader: str
    since: datetime
    elsewhere: str = ""


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """The result of the last sync; times are UTC.

    Attributes:
        revision: of the active catalog.
        origin: of the active catalog, `git` or `mirror`.
        active_since: when it was activated.
        last_attempt: when the last sync began.
        last_success: when the last successful sync began.
        seconds: how long the last sync took.
        error: None if the last sync succeeded.
        failing_since: when the first of the current failures was.
        refused: the last refused revision.
        operarios: how many the active catalog has.
        problems: how many errors were found in its files.
        steps: the duration in seconds of each step of the last sync.
        history: recent syncs, newest first.
        unused_mirror: why the mirror was not used at the start, if it is of another repository,
            ref or path than the settings; empty once Git was read.
    """

    revision: Revision | None = None
    origin: str = ""
    active_since: datetime | None = None
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    seconds: float = 0.0
    error: str | None = None
    failing_since: datetime | None = None
    refused: RefusedRevision | None = None
    operarios: int = 0
    problems: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    history: tuple[SyncRecord, ...] = ()
    unused_mirror: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether the last sync failed because the newest commit was refused."""
        return self.refused is not None and self.refused.reason == self.error

    @property
    def why_no_catalog(self) -> str:
        """What keeps a replica without a catalog from activating one."""
        return "; ".join(
            filter(None, (self.error or "the first sync has not finished yet", self.unused_mirror))
        )

"""How the catalog in force came about, and what stands in a newer one's way."""

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
    """The last revision that was not taken, and why; `time` is RFC 3339.

    `paused` is True while it lets nothing start, since its `openfero.yaml` says so; that ends with
    a revision that is taken, or refused without the word.
    """

    commit: str
    reason: str
    time: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What a revision changed: operarios by name, `quarantined` files by path.

    `envelope` says that `openfero.yaml` says something else than before.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    envelope: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """A sync that brought something into force, or syncs in a row that failed of one thing.

    Commits are full ids, empty where there was none; `origin` is `git` or `mirror`. `at` is when
    it happened, `until` when the last of `times` in a row did; `steps` has the seconds of each
    step of the last one. `error` is None where it went well.
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


class Step(StrEnum):
    """How far a replica is beside the leader."""

    SAME = "same"
    BEHIND = "behind"
    AHEAD = "ahead"
    APART = "apart"  # on another history


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a replica stands beside the commit that the leader has mirrored, and since when.

    Of one that is behind or apart, `since` is when it was in step for the last time.
    """

    step: Step
    leader: str
    since: datetime


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How the last try to sync ended; times are UTC.

    `origin` is `git` or `mirror`; `error` is None where the last try succeeded, and
    `failing_since` tells since when none has. `seconds` is how long the last try took, `steps`
    each part of it. `story` is what happened lately, the newest first.
    """

    revision: Revision | None = None
    origin: str = ""
    in_force_since: datetime | None = None
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    seconds: float = 0.0
    error: str | None = None
    failing_since: datetime | None = None
    refused: RefusedRevision | None = None
    operarios: int = 0
    problems: int = 0
    steps: Mapping[str, float] = field(default_factory=dict)
    story: tuple[Chapter, ...] = ()

"""How the catalog in force came about, and what stands in a newer one's way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.domain.catalog import Revision


@dataclass(frozen=True, slots=True)
class RefusedRevision:
    """The last revision that was not taken, and why; `time` is RFC 3339."""

    commit: str
    reason: str
    time: str


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How the last try to sync ended; times are UTC.

    `origin` is `git` or `mirror`; `error` is None where the last try succeeded, and
    `failing_since` tells since when none has. `seconds` is how long the last try took.
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

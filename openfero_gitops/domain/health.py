"""Whether a replica works, and what this replica is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.domain.labels import REPLICA_LABELS

if TYPE_CHECKING:
    from openfero_gitops.domain.setting import SettingInUse


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a replica needs; `message` is the error if it does not hold.

    A replica is ready if all `vital` conditions hold, and healthy if all hold that have no
    `advice`. An advice is the headline for a condition that only makes the replica safer. One
    about a part that is not `configured` holds, and says nothing.
    """

    name: str
    holds: bool
    message: str = ""
    vital: bool = True
    advice: str = ""
    configured: bool = True


@dataclass(frozen=True, slots=True)
class About:
    """The identity and configuration of this replica.

    `commit` and `build_date` say what it was built from; empty if unknown.
    """

    version: str
    identity: str
    namespace: str
    jobs_namespace: str
    allowed_namespaces: tuple[str, ...]
    cluster: str
    replica_labels: frozenset[str] = REPLICA_LABELS
    settings: tuple[SettingInUse, ...] = ()
    commit: str = ""
    build_date: str = ""

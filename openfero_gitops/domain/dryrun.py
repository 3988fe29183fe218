"""What a cluster says of operarios that were only tried in it.

Not part of the catalog, which is a function of the commit: another cluster, or this one a minute
later, may say something else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that was said; `rule` is the id of one of `dryrun.trial.RULES`."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What was said when something was tried, and when (UTC); no remark means: accepted."""

    at: datetime
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class DryRuns:
    """Everything that is known of one cluster, at one version of its API server.

    `operarios` is by the digest of the Job that was tried. `namespaces` is what concerns every
    Job of a namespace. `approvals` tells since when no one can forge an approval in a namespace;
    one where they can is not in it.
    """

    kubernetes: str = ""
    operarios: Mapping[str, Tried] = field(default_factory=dict)
    namespaces: Mapping[str, Tried] = field(default_factory=dict)
    approvals: Mapping[str, datetime] = field(default_factory=dict)

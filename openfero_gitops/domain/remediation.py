"""One alert occurrence, one operario, one revision, one Job, and how far it came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.keys import SOMEBODY_ELSE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.operario import Options

#: How far the startsAt of one continuing problem may lie behind the delivery that was healed:
#: the clocks of two Prometheus servers and Alertmanager's own delays.
WOBBLE: Final = timedelta(seconds=60)


class Phase(StrEnum):
    """How far a remediation came; derived from its Job, never stored."""

    WAITING = "Waiting"
    AWAITING_APPROVAL = "AwaitingApproval"
    QUEUED = "Queued"
    RUNNING = "Running"
    HELD = "Held"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REFUSED = "Refused"
    CANCELLED = "Cancelled"


#: Phases that a remediation never leaves.
FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.REFUSED, Phase.CANCELLED})


class Outcome(StrEnum):
    """What became of one alert of a delivery."""

    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"
    NO_MATCH = "no-match"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class JobKey:
    """The place of a Job: its namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it: NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Remediation:
    """A Job of ours, read back: nothing here is known from anywhere else.

    Times are UTC. `started` says whether Pods of it may ever have existed, `active` counts those
    that do. `options` are those
    recorded on the Job when it was rendered, so that a decision about it does not depend on
    which commit a replica has reached.
    """

    key: JobKey
    uid: str
    resource_version: str
    phase: Phase
    reason: str
    message: str
    operario: str
    alertname: str
    status: Status
    labels: Mapping[str, str]
    occurrence: str
    incident: str
    attempt: int
    fingerprint: str
    starts_at: datetime | None
    received_at: datetime
    delivered_at: datetime
    resolved_at: datetime | None
    admitted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    started: bool
    finished: bool
    explained: bool
    deleting: bool
    suspended: bool
    active: int
    term: str | None
    decision: str | None
    approved_by: str | None
    queue: str | None
    target: str
    options: Options
    ttl_seconds: int | None
    repository: str
    ref: str
    commit: str
    path: str
    verified_signer: str = ""
    admitted_by: str = ""

    @property
    def waiting(self) -> bool:
        """Suspended, neither admitted nor decided: what admission is about."""
        return self.phase in (Phase.WAITING, Phase.AWAITING_APPROVAL)

    @property
    def started_by_other(self) -> bool:
        """Whether it was started past the limits, by a person or another controller."""
        if self.admitted_at is None:
            return self.started
        return self.admitted_by == SOMEBODY_ELSE

    @property
    def unnoted(self) -> bool:
        """Whether it has started, and nothing on it will tell so once it is suspended."""
        return (
            self.started
            and self.admitted_at is None
            and self.decision is None
            and not self.finished
            and not self.deleting
        )

    @property
    def occupying(self) -> bool:
        """Whether Pods of it exist, or may at any moment without our doing.

        Told from the Job's own fields: a decision written on a Job that a person started all
        the same does not make its Pods go away.
        """
        if self.finished:
            return False
        return not self.suspended or self.active > 0 or self.phase is Phase.QUEUED

    @property
    def order(self) -> tuple[datetime, str, str]:
        """Who stands before whom: by arrival, then name."""
        return (self.received_at, self.key.name, self.key.namespace)


def same_incident(one: Remediation, other: Remediation) -> bool:
    """Whether `one` tells of the problem that `other` was made for, although it wobbles."""
    if one.starts_at is None or other.starts_at is None:
        return False
    if other.resolved_at is not None and one.starts_at > other.resolved_at:
        return False
    return one.starts_at <= other.received_at + WOBBLE

"""The lease by which one replica leads, and the leadership that comes of it.

The shape is Kubernetes' own (`coordination.k8s.io/v1`), so that `kubectl get lease` and every
client-go based tool read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

#: How much longer than asked for a pause between two tries may be drawn: client-go's factor.
JITTER: Final = 1.2


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Who holds the lease, since when, and for how long without a further sign of life.

    `holder` is empty where nobody does; `duration` is in whole seconds, 0 where its writer left
    it out. Both times are the holder's wall clock, in UTC, for people to read: nothing is
    decided by them. `resource_version` is that of the stored object, and no part of what the
    record says. `settled` is True where the last holder released it and said that no admission
    was under way any more, its own or anybody's, on any Job that waits.
    """

    holder: str
    duration: int
    acquired_at: datetime | None
    renewed_at: datetime | None
    transitions: int
    resource_version: str = field(default="", compare=False)
    settled: bool = False

    def same_term(self, other: LeaseRecord) -> bool:
        """Whether both are of one acquisition, however often it was renewed.

        The name alone would not do: two processes may have been given the same one.
        """
        return (self.holder, self.transitions, self.acquired_at) == (
            other.holder,
            other.transitions,
            other.acquired_at,
        )


@dataclass(frozen=True, slots=True)
class LeaseDurations:
    """How long a lease lasts and how it is kept, in seconds.

    A leader that could not renew for `renew_deadline` has stopped acting; another may take the
    lease `lease_duration` after the last renewal it saw. What lies between the two is the time
    in which requests on their way come to an end. `retry_period` lies between two renewals, and
    between two looks at a lease that somebody else holds.

    Raises:
        UsageError: the three do not fit together.
    """

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what would let two lead, or nobody."""
        if not float(self.lease_duration).is_integer() or not 1 <= self.lease_duration <= 86_400:  # noqa: PLR2004
            raise UsageError(
                f"lease-duration is {self.lease_duration:g} s: a Lease holds whole seconds,"
                " give 1 s to 24 h"
            )
        if not self.lease_duration > self.renew_deadline:
            raise UsageError(
                f"renew-deadline ({self.renew_deadline:g} s) must be shorter than"
                f" lease-duration ({self.lease_duration:g} s), or two replicas could lead at once"
            )
        if not self.renew_deadline > self.retry_period * JITTER:
            raise UsageError(
                f"retry-period ({self.retry_period:g} s), times {JITTER:g}, must be shorter than"
                f" renew-deadline ({self.renew_deadline:g} s), or one lost request ends the term"
            )
        if not self.retry_period > 0:
            raise UsageError(f"retry-period is {self.retry_period:g} s: give more than 0")

    @property
    def request_timeout(self) -> float:
        """For one request: a renewal that hangs leaves time for another before the deadline."""
        return self.renew_deadline * 0.4


@dataclass(frozen=True, slots=True)
class Leadership:
    """What a replica knows of who leads; for pages, metrics and Events.

    `leader` says whether it is this replica; `holder` who it is, empty where nobody is known;
    `term` is this replica's own, empty where it does not lead; `since` is when the holder took
    the lease, by the holder's clock; `reason` is a few words on how it came to this.
    """

    leader: bool = False
    holder: str = ""
    term: str = ""
    since: datetime | None = None
    reason: str = ""

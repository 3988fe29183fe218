"""The Lease that makes one replica the leader, and what is known of the leader.

It has the shape of `coordination.k8s.io/v1`, which `kubectl get lease` and all tools based on
client-go read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

#: Jitter of the retry period, up and down: client-go's factor.
JITTER: Final = 1.2
#: Longest lease that the settings allow. A record that claims more counts with this.
MAX_LEASE_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Who holds the lease, since when, and how long without a renewal.

    `holder` is empty if nobody does; `duration` is in whole seconds, 0 if it was not set. Both
    times are the holder's wall clock in UTC, for people to read: no decision depends on them.
    `resource_version` is that of the stored object and is not compared. `settled` is True if the
    last holder released the lease and no admission of any leader was in flight.
    """

    holder: str
    duration: int
    acquired_at: datetime | None
    renewed_at: datetime | None
    transitions: int
    resource_version: str = field(default="", compare=False)
    settled: bool = False

    def same_term(self, other: LeaseRecord) -> bool:
        """Whether both are of one acquisition, renewed or not.

        The holder's name alone is not enough: two processes may have the same.
        """
        return (self.holder, self.transitions, self.acquired_at) == (
            other.holder,
            other.transitions,
            other.acquired_at,
        )


@dataclass(frozen=True, slots=True)
class LeaseDurations:
    """The durations of the lease in seconds.

    A leader that could not renew for `renew_deadline` stops; another replica may take the lease
    `lease_duration` after the last renewal that it read. The time in between lets requests in
    flight come to an end. `retry_period` is the time between two renewals, and between two reads
    of a lease that another replica holds.

    Raises:
        UsageError: the durations contradict each other.
    """

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        """Reject durations with which two replicas could lead, or none."""
        if not float(self.lease_duration).is_integer() or not (
            1 <= self.lease_duration <= MAX_LEASE_SECONDS
        ):
            raise UsageError(
                f"lease-duration is {self.lease_duration:g} s: it must be whole seconds,"
                " 1 s to 24 h"
            )
        if not self.lease_duration > self.renew_deadline:
            raise UsageError(
                f"renew-deadline ({self.renew_deadline:g} s) must be shorter than"
                f" lease-duration ({self.lease_duration:g} s), or two replicas could lead at once"
            )
        if not self.renew_deadline > self.retry_period * JITTER:
            raise UsageError(
                f"retry-period ({self.retry_period:g} s) times {JITTER:g} must be shorter than"
                f" renew-deadline ({self.renew_deadline:g} s), or one lost request ends the term"
            )
        if not self.retry_period > 0:
            raise UsageError(f"retry-period is {self.retry_period:g} s: it must be greater than 0")

    @property
    def request_timeout(self) -> float:
        """The timeout of one request: after one that hangs there is time for another."""
        return self.renew_deadline * 0.4


@dataclass(frozen=True, slots=True)
class Leadership:
    """What a replica knows of the leader, for pages, metrics and Events.

    `leader` says whether it is this replica, `holder` who it is, empty if unknown. `term` is the
    id of this replica's term, empty if it does not lead. `since` is when the holder took the
    lease, by the holder's clock. `reason` says how this replica came to lead, or why it does not.
    """

    leader: bool = False
    holder: str = ""
    term: str = ""
    since: datetime | None = None
    reason: str = ""

"""What the web side reads of the controller: values, and one thing that it may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import About, Condition
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.domain.sync import Standing, SyncStatus


class ReplicaState(Protocol):
    """The controller as it is now; every call is quick and does no I/O."""

    def about(self) -> About:
        """What this replica is."""
        ...

    def catalog(self) -> Catalog | None:
        """The catalog in force."""
        ...

    def sync(self) -> SyncStatus:
        """How it came about."""
        ...

    def standing(self) -> Standing | None:
        """Where this replica is beside the leader; None where that is not known."""
        ...

    def leadership(self) -> Leadership:
        """Who leads."""
        ...

    def remediations(self) -> Iterable[Remediation]:
        """Every remediation known."""
        ...

    def is_approval_verified(self, one: Remediation) -> bool:
        """Whether nobody could have written another name than their own as the approver."""
        ...

    def pause(self) -> Pause | None:
        """What pauses admission; None if nothing is known to."""
        ...

    def decisions(self) -> Mapping[JobKey, Decision]:
        """What stands before each waiting Job, as a leader would decide it now."""
        ...

    def conditions(self) -> Sequence[Condition]:
        """What this replica needs to do its job."""
        ...


class Deliveries(Protocol):
    """Who takes deliveries."""

    async def deliver(self, group: AlertGroup) -> Answer:
        """Take one delivery."""
        ...


class Exposition(Protocol):
    """Who counts."""

    def answered(self, code: int, seconds: float) -> None:
        """A delivery was answered with an HTTP status, and took so long."""
        ...

    def expose(self) -> bytes:
        """Everything counted, as Prometheus scrapes it."""
        ...

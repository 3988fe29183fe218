"""What the web package needs from the rest of the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.not_helping import NotHelping
    from openfero_gitops.catalog.revisions import RevisionHistory
    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.alert import AlertGroup
    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.domain.catalog import Catalog, Snapshot
    from openfero_gitops.domain.health import About, Condition
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.domain.replica import ReplicaReport
    from openfero_gitops.domain.sync import ReplicaLag, SyncStatus
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.effects.unresolved import Unresolved


class ReplicaState(Protocol):
    """The state of a replica; its methods are fast and do no I/O."""

    def about(self) -> About:
        """Return version, name and namespaces of this replica."""
        ...

    def catalog(self) -> Catalog | None:
        """Return the active catalog; None if there is none."""
        ...

    def sync(self) -> SyncStatus:
        """Return the status of the last sync."""
        ...

    def lag(self) -> ReplicaLag | None:
        """Compare this replica's commit with the leader's; None if unknown."""
        ...

    def unanswered(self) -> UnansweredRecord:
        """Return the alerts of the last day that got no Job, of all replicas."""
        ...

    def revisions(self) -> RevisionHistory:
        """Return when which revision was active on the leader, as it is recorded."""
        ...

    def replicas(self) -> Sequence[ReplicaReport]:
        """Return what each replica last reported, by name."""
        ...

    def next_sync(self) -> datetime | None:
        """Return when the next sync begins; None if that is not known yet."""
        ...

    def leadership(self) -> Leadership:
        """Return which replica leads."""
        ...

    def remediations(self) -> Iterable[Remediation]:
        """Return all remediations."""
        ...

    def remediation(self, key: JobKey) -> Remediation | None:
        """Return one remediation; None if it is not known."""
        ...

    def effect(self, remediation: Remediation, /) -> Assessment | None:
        """Return whether a remediation helped; None if it has no effect."""
        ...

    def unresolved(self) -> Sequence[Unresolved]:
        """Return what failed or did not heal while its alert fires: one Job of each incident."""
        ...

    def is_approval_verified(self, remediation: Remediation, /) -> bool:
        """Whether the cluster verified the approver's name."""
        ...

    def pause(self) -> Pause | None:
        """Return the pause of admission; None if there is none."""
        ...

    def decisions(self) -> Mapping[JobKey, Decision]:
        """Return the decision on each waiting Job, as a leader would make it now."""
        ...

    def not_helping(self) -> Mapping[JobKey, NotHelping]:
        """Return the Jobs that do not start because their operario does not help, and why."""
        ...

    def conditions(self) -> Sequence[Condition]:
        """Check what this replica needs to work."""
        ...


class JobReader(Protocol):
    """Reads what the API server has about one Job; every method raises `ApiError`."""

    async def manifest(self, key: JobKey) -> dict[str, Any]:
        """Read the Job with its Pod template."""
        ...

    async def pods(self, key: JobKey) -> list[dict[str, Any]]:
        """List the Pods that have the label of the Job, without their specifications."""
        ...

    async def events(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        """List the Events about an object."""
        ...

    def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        tail_lines: int,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes]:
        """Yield what a container has written, in pieces; raises `Invalid` if it has not started."""
        ...


class Deliveries(Protocol):
    """Accepts deliveries."""

    async def deliver(self, group: AlertGroup) -> Answer:
        """Create the Jobs for one delivery."""
        ...


class Exposition(Protocol):
    """The metrics of the web package."""

    def answered(self, code: int, seconds: float) -> None:
        """Count an answer to a delivery, with its HTTP status and duration."""
        ...

    def refused(self, cause: str) -> None:
        """Count a delivery that was not read, with the limit that it exceeds."""
        ...

    def refused_request(self, path: str, code: int) -> None:
        """Count a POST that was answered with 4xx, with its path and HTTP status."""
        ...

    def connections(self, count: int) -> None:
        """Set the number of open connections."""
        ...

    def connection_dropped(self, cause: str) -> None:
        """Count a connection that was dropped or refused."""
        ...

    def expose(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        ...


class ReviewedSource(Protocol):
    """The files of a commit; both methods raise `SourceError`."""

    async def snapshot(self, commit: str) -> Snapshot:
        """Return the files at a commit."""
        ...

    async def cases(self, snapshot: Snapshot) -> Snapshot:
        """Return the golden cases of a snapshot; empty if it has none."""
        ...

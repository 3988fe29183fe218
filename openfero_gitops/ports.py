"""What background workers need from the outside: one Protocol per kind of resource.

`cluster` and `sources` implement them, `metrics` implements `Counts`, `tracing` implements
`Traces`, and `app` connects the two.
The workers of `catalog`, `delivery`, `admission`, `effects`, `events` and `dryrun` import nothing
else of the outside. Every method of a Kubernetes resource raises `ApiError`; those of a source
raise `SourceError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.domain.catalog import Snapshot, SourceFile
    from openfero_gitops.domain.feed import Failed, Listed
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import JobKey, Remediation
    from openfero_gitops.domain.sync import Changes, SyncStatus
    from openfero_gitops.jobs.patches import Patch
    from openfero_gitops.jobs.workload import QueueStatus

    Attributes = Mapping[str, str | int | float | bool]

__all__ = [
    "AlertReceiver",
    "Attributes",
    "ConfigMaps",
    "Counts",
    "Events",
    "History",
    "Jobs",
    "NotificationCounts",
    "RunningTerm",
    "Source",
    "SourceWithHistory",
    "Span",
    "Term",
    "Traces",
    "Workloads",
]


class Jobs(Protocol):
    """The Jobs of all namespaces in which remediations run."""

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create a Job; return it as stored."""
        ...

    async def get(self, key: JobKey) -> dict[str, Any]:
        """Read one Job from the API server, not from a cache."""
        ...

    async def listed(self) -> Sequence[Listed | Failed]:
        """List the Jobs that carry our labels, namespace by namespace.

        `Failed` is returned for a namespace in which listing is forbidden.
        """
        ...

    async def of_incidents(self, incidents: Sequence[str]) -> list[Remediation]:
        """List the Jobs of several incidents in all namespaces."""
        ...

    async def of_occurrences(self, namespace: str, occurrences: Sequence[str]) -> list[Remediation]:
        """List the Jobs of at most 80 occurrences in one namespace."""
        ...

    async def pods(self, key: JobKey) -> list[dict[str, Any]]:
        """List the Pods of one Job, without their specifications; 500 at most."""
        ...

    async def events(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        """List the Events about an object; 200 at most."""
        ...

    async def patch(self, key: JobKey, patch: Patch) -> dict[str, Any]:
        """Patch one Job; raises `Invalid` if a precondition of the patch failed."""
        ...

    async def delete(self, key: JobKey, uid: str, resource_version: str) -> None:
        """Delete one Job if it is still at this version."""
        ...


class Workloads(Protocol):
    """The Workloads by which Kueue manages Jobs."""

    async def of_jobs(
        self, namespace: str, uids: Sequence[str]
    ) -> Mapping[str, QueueStatus | None]:
        """Read the status of each Job that has a Workload, by the uid of the Job.

        Raises `NotFound` if the cluster does not have Kueue's API.
        """
        ...


class ConfigMaps(Protocol):
    """The ConfigMaps of the controller's namespace."""

    namespace: str

    async def get(self, name: str) -> dict[str, Any] | None:
        """Read one; None if there is none."""
        ...

    async def labelled(self, label_selector: str, read: Callable[[dict[str, Any]], None]) -> None:
        """Read the metadata of those that a label selector matches, one by one.

        One may be read again, if the list must be begun again.
        """
        ...

    async def create(self, body: dict[str, Any]) -> bool:
        """Create one; False if the name is taken."""
        ...

    async def put(self, body: dict[str, Any], check: Callable[[], None]) -> None:
        """Create or replace one; `check` is called before each write and may raise."""
        ...

    async def patch(self, name: str, operations: Sequence[dict[str, Any]]) -> None:
        """Apply a JSON Patch; raises `Invalid` if a test operation failed."""
        ...

    async def merge(self, name: str, members: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """Write some members and labels of one, creating it if there is none."""
        ...

    async def delete(self, body: dict[str, Any]) -> None:
        """Delete one if it is still at the version of `body`."""
        ...


class Events(Protocol):
    """Kubernetes Events."""

    async def create(self, body: dict[str, Any]) -> None:
        """Create one."""
        ...

    async def patch(self, namespace: str, name: str, operations: Sequence[dict[str, Any]]) -> None:
        """Apply a JSON Patch."""
        ...


class AlertReceiver(Protocol):
    """An Alertmanager."""

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        ...

    async def send(self, alerts: Sequence[Mapping[str, Any]]) -> datetime | None:
        """Send alerts as its API v2 reads them; return its time in whole seconds, if it sends one.

        Raises:
            AlertmanagerError: it did not answer, or did not accept all of them.
        """
        ...


class RunningTerm(Protocol):
    """A term of leadership, for work that only writes."""

    def check(self) -> None:
        """Raise if the term has ended, or may have. To be called before every write."""
        ...


class Term(RunningTerm, Protocol):
    """A term of leadership, for the work that admits Jobs."""

    @property
    def id(self) -> str:
        """An id that no other term has."""
        ...

    @property
    def continues(self) -> str:
        """The id of the previous term, if it was this replica's and nobody led in between."""
        ...

    @property
    def handed_over(self) -> bool:
        """Whether the previous leader finished every admission before this term began."""
        ...

    @property
    def closing(self) -> asyncio.Event:
        """Set when the leader must start no new work."""
        ...

    def finish(self, *, settled: bool) -> None:
        """Report that all started work is done, and whether each admission has an answer."""
        ...


class Source(Protocol):
    """Where operarios come from: a Git repository, or a folder."""

    async def fetch(self) -> Snapshot:
        """Fetch the current files; raises `Unusable` if the commit cannot be used."""
        ...


class History(Protocol):
    """The commits of a repository. A folder has none."""

    async def snapshot(self, commit: str) -> Snapshot:
        """Return the files at a commit; raises `Unusable` if the commit cannot be used."""
        ...

    async def ancestors(self, commit: str, limit: int = 100) -> Sequence[str]:
        """Return the first-parent ancestors of a commit, newest first."""
        ...

    async def versions(self, path: str, commit: str, limit: int = 100) -> Sequence[SourceFile]:
        """Return older versions of one file, newest first."""
        ...

    async def cases(self, snapshot: Snapshot) -> Snapshot:
        """Return the golden cases of a snapshot; empty if it has none."""
        ...

    async def existed(self, path: str, commit: str, limit: int = 100) -> bool:
        """Whether an earlier commit had another version of a file, with or without a signature."""
        ...

    async def is_ancestor(self, older: str, newer: str, *, deepen: bool = True) -> bool:
        """Whether `newer` continues `older`.

        Without `deepen`, only history that is already here is searched: False may be wrong then.
        """
        ...


class SourceWithHistory(Source, History, Protocol):
    """A Git repository."""


class Counts(Protocol):
    """What is counted; see `metrics`."""

    def delivered(self, answer: Answer, truncated: int) -> None:
        """Count one delivery, and the alerts that Alertmanager left out of it."""
        ...

    def decided(self, reason: Reason) -> None:
        """Count one decision that was carried out."""
        ...

    def ended(self, remediation: Remediation) -> None:
        """Count a remediation that reached a final phase."""
        ...

    def settled(self, remediation: Remediation, *, is_active: bool) -> None:
        """Count a remediation whose effect was settled.

        `is_active` says whether its operario is in the active catalog.
        """
        ...

    def waiting(self, reasons: Mapping[Reason, int]) -> None:
        """Set how many remediations wait, by reason."""
        ...

    def event_recorded(self, result: str) -> None:
        """Count an Event that was `sent` or `lost`."""
        ...

    def dry_run(self, result: str) -> None:
        """Count a dry run: `accepted`, `warning`, `refused` or `failed`."""
        ...

    def policy(self, namespace: str, version: int) -> None:
        """Set the version of the active admission policy of a namespace; 0 if there is none."""
        ...

    def synced(self, status: SyncStatus) -> None:
        """Count a sync, successful or not."""
        ...

    def changed(self, changes: Changes) -> None:
        """Count the operarios that a new catalog added, changed or removed."""
        ...


class Span(Protocol):
    """A step that is traced."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def link(self, traceparent: str) -> None:
        """Refer to a step of another trace; nothing happens if it is empty."""
        ...

    def fail(self, message: str) -> None:
        """Mark the step as failed."""
        ...


class Traces(Protocol):
    """Traces of what happens to an alert; see `tracing`.

    Steps are also steps of that which the current task is in. `after` is what a Job carries of the
    trace in which it was created. Nothing is traced if it is empty.
    """

    @property
    def traceparent(self) -> str:
        """The current step as W3C Trace Context writes it; empty if it is not traced."""
        ...

    def delivery(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """Begin the trace of a request, or continue that of its headers."""
        ...

    def step(
        self, name: str, attributes: Attributes | None = None, *, after: str | None = None
    ) -> AbstractContextManager[Span]:
        """Trace a step; an exception that ends it marks it as failed."""
        ...

    def past(
        self,
        name: str,
        start: datetime,
        end: datetime,
        attributes: Attributes,
        *,
        after: str,
        failure: str = "",
    ) -> None:
        """Add a step that has ended; `failure` is what went wrong in it."""
        ...

    async def stop(self) -> None:
        """Send what is traced, for a few seconds at most."""
        ...


class NotificationCounts(Protocol):
    """What is counted of alerts that are sent to Alertmanager; see `metrics`."""

    def notifications(self, alerts: Mapping[str, int]) -> None:
        """Set how many alerts must exist in Alertmanager, by their name."""
        ...

    def notified(self, url: str, result: str) -> None:
        """Count a request to an Alertmanager that was `sent` or `failed`."""
        ...

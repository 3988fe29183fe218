"""The part of the Kubernetes API that is used here, as a Protocol.

Two classes implement it and pass the same contract suite: the client of a real API server
(`cluster.client`) and the in-memory cluster (`demo.cluster`). Objects are plain dicts in the JSON
format of the API; a caller owns the objects it receives, and may change them.

Every method raises `domain.errors.ApiError` and nothing else, within its timeout (seconds).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from msgspec import Raw  # noqa: TC002 (evaluated when a decoder is made)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

Object = dict[str, Any]
Operation = dict[str, Any]  # of a JSON Patch, RFC 6902


#: Instead of a namespace, to list objects in all namespaces.
EVERYWHERE: Final = "*"


@dataclass(frozen=True, slots=True)
class Resource:
    """A namespaced kind of object, and its API path.

    Answers may lack what the caller does not need. `unread` names such members, by the member
    that contains them; None for all of it. With `metadata_only`, lists contain nothing else.
    `members` is a TypedDict of all that is read of an object: one that fits is decoded as such.
    """

    group: str
    version: str
    plural: str
    kind: str
    unread: Mapping[str, frozenset[str] | None] = field(default_factory=dict, compare=False)
    metadata_only: bool = field(default=False, compare=False)
    members: Any = field(default=None, compare=False)

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "") -> str:
        """Return the URL path of a collection, or of an object in it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace == EVERYWHERE:
            return f"{root}/{self.plural}"
        collection = f"{root}/namespaces/{namespace}/{self.plural}"
        return f"{collection}/{name}" if name else collection


JOBS: Final = Resource("batch", "v1", "jobs", "Job")
PODS: Final = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")

_MANAGED_FIELDS: Final = frozenset({"managedFields"})
#: Jobs without the Pod template: what remains of a Job is small, unless somebody made it large.
JOB_STATES: Final = replace(
    JOBS, unread={"metadata": _MANAGED_FIELDS, "spec": frozenset({"template", "podFailurePolicy"})}
)


class _JobMetadata(TypedDict, total=False):
    name: str
    namespace: str
    uid: str
    resourceVersion: str
    creationTimestamp: str | None
    deletionTimestamp: str | None
    labels: Raw
    annotations: Raw


class _JobSpec(TypedDict, total=False):
    suspend: bool | None
    ttlSecondsAfterFinished: int | None


class _JobMembers(TypedDict, total=False):
    """Labels and annotations stay JSON: most events do not change them."""

    metadata: _JobMetadata
    spec: _JobSpec | None
    status: dict[str, Any] | None


#: Jobs of which only that is decoded which `observe` reads.
OBSERVED_JOBS: Final = replace(JOB_STATES, members=_JobMembers)
#: Pods without their specification.
POD_STATES: Final = replace(PODS, unread={"metadata": _MANAGED_FIELDS, "spec": None})
#: ConfigMaps without their data.
CONFIG_MAP_METADATA: Final = replace(CONFIG_MAPS, metadata_only=True)


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A consistent list, and the resourceVersion from which a watch continues.

    `items` are objects, or what `read` returned for them.
    """

    items: list[Any]
    resource_version: str


class Change(StrEnum):
    """The type of a watch event."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A change; the object of a bookmark only has a resourceVersion."""

    change: Change
    object: Object


@dataclass(frozen=True, slots=True)
class Created:
    """An object as stored, and the warnings of the server."""

    object: Object
    warnings: tuple[str, ...] = ()


class ApiServer(Protocol):
    """Create, read, change, delete and watch namespaced objects."""

    async def version(self, *, timeout: float = 10.0) -> str:
        """Return the version of Kubernetes, such as `v1.36.3`."""
        ...

    async def create(
        self,
        resource: Resource,
        namespace: str,
        body: Object,
        *,
        dry_run: bool = False,
        timeout: float = 10.0,
    ) -> Created:
        """Create an object, or simulate this on the server with `dry_run`."""
        ...

    async def get(
        self, resource: Resource, namespace: str, name: str, *, timeout: float = 10.0
    ) -> Object:
        """Read an object, consistently."""
        ...

    async def list(
        self,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        read: Callable[[Object], Any] | None = None,
        max_objects: int | None = None,
        timeout: float = 30.0,
    ) -> ObjectList:
        """List objects, consistently, page by page; with `EVERYWHERE`, in all namespaces.

        Args:
            resource: what to list.
            namespace: where.
            label_selector: selects objects.
            field_selector: `FIELD=VALUE`, which the resource must support.
            read: returns what is kept of an object, None for nothing; one object is held at a
                time. Objects may be read again, if the list must be begun again.
            max_objects: how many are read; further ones are not looked for.
            timeout: for all pages.
        """
        ...

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """Replace an object; its `metadata.resourceVersion`, if set, must be current."""
        ...

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        operations: Sequence[Operation],
        *,
        timeout: float = 10.0,
    ) -> Object:
        """Apply a JSON Patch; a failed `test` raises `Invalid` and changes nothing.

        As in the API server, a `test` for null succeeds if the member is absent.
        """
        ...

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        timeout: float = 10.0,
    ) -> None:
        """Delete an object, and the Pods of a Job; a failed precondition raises `Conflict`."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
        batch_seconds: Callable[[], float] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield the changes after a resourceVersion, in order, for `timeout` seconds.

        The first event is a bookmark of this version: the server has accepted the watch. Raises
        `Expired` if the version is too old.

        An event after a quiet time is yielded at once. Later ones may be `batch_seconds` late, so
        that those that follow closely are read together.
        """
        ...

    def pod_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        timeout: float = 300.0,
    ) -> AsyncGenerator[bytes, None]:
        """Yield what a container of a Pod has written, in pieces that may end within a character.

        Raises `Invalid` if the container has not started, or does not exist.

        Args:
            namespace: of the Pod.
            name: of the Pod.
            container: its name.
            follow: continue until the container has ended, without a timeout.
            tail_lines: begin this many lines before the end.
            limit_bytes: end after so many bytes.
            timeout: for all of a log that is not followed.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...

"""The part of the Kubernetes API that is used here, as a Protocol.

Two things fulfil it and pass one contract suite: the client of a real API server
(`cluster.client`) and the in-memory cluster (`demo.cluster`). Objects are plain dicts
in the API's own JSON shape; a caller owns what it is given and may change it.

Every method raises `domain.errors.ApiError` and nothing else, within its timeout (seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

Object = dict[str, Any]
Operation = dict[str, Any]  # of a JSON Patch, RFC 6902


#: In the place of a namespace's name, where a list is meant of all of them.
EVERYWHERE: Final = "*"


@dataclass(frozen=True, slots=True)
class Resource:
    """One namespaced kind of object and where the API serves it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "") -> str:
        """The URL path of a collection, or of one object in it."""
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


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A consistent list, and the resourceVersion that a watch continues from."""

    items: list[Object]
    resource_version: str


class Change(StrEnum):
    """What a watch reports."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change; a bookmark's object carries only its resourceVersion."""

    change: Change
    object: Object


@dataclass(frozen=True, slots=True)
class Created:
    """The object as stored, and what the server warned of."""

    object: Object
    warnings: tuple[str, ...] = ()


class ApiServer(Protocol):
    """Create, read, change, delete and watch namespaced objects."""

    async def version(self, *, timeout: float = 10.0) -> str:
        """Which Kubernetes it is, as `v1.36.3`."""
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
        """Store a new object, or (`dry_run`) let the server say what it would have done."""
        ...

    async def get(
        self, resource: Resource, namespace: str, name: str, *, timeout: float = 10.0
    ) -> Object:
        """Read one object, consistently."""
        ...

    async def list(
        self,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        timeout: float = 30.0,
    ) -> ObjectList:
        """Read all objects that fit, consistently, in pages where there are many.

        With `EVERYWHERE` those of all namespaces.
        """
        ...

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """Write an object whole; its `metadata.resourceVersion`, where given, must be current."""
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

        `test` with the value null holds where the member is absent: so says the API server.
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
        """Delete in the background, Pods of a Job too; a precondition that fails is a Conflict."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after a resourceVersion, in order; ends by itself after `timeout` seconds.

        The first event is a bookmark of that very version: the server has agreed to watch.
        Raises `Expired` where that version is no longer kept.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...

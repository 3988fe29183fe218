"""An API server behind a relay: every test that injects faults into requests builds on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.cluster.api import (
        ApiServer,
        Created,
        Object,
        ObjectList,
        Operation,
        Resource,
        WatchEvent,
    )

Act = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and when it was sent; `body` is an object, a patch or preconditions."""

    at: float
    verb: str
    resource: Resource | None
    namespace: str
    name: str
    body: Any = None

    @property
    def writes(self) -> bool:
        """Whether the request can change something."""
        return self.verb in ("create", "replace", "patch", "delete")

    def sets(self, key: str) -> bool:
        """Whether the request is a patch that writes this annotation."""
        path = f"/metadata/annotations/{keys.pointer(key)}"
        return self.verb == "patch" and any(
            operation["op"] == "add" and operation["path"] == path for operation in self.body
        )


class Relay:
    """An `ApiServer` that passes each request through `send`."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def send(self, request: Request, timeout: float, act: Act) -> Any:
        """Carry out a request. Subclasses delay it, repeat it, or lose it or its answer."""
        del request, timeout
        return await act()

    async def version(self, *, timeout: float = 10.0) -> str:
        """See `ApiServer`."""
        request = self._request("version", None, "", "")
        return str(await self.send(request, timeout, self._api.version))

    async def create(
        self,
        resource: Resource,
        namespace: str,
        body: Object,
        *,
        dry_run: bool = False,
        timeout: float = 10.0,
    ) -> Created:
        """See `ApiServer`."""
        name = body["metadata"].get("name", "")
        created: Created = await self.send(
            self._request("create", resource, namespace, name, body),
            timeout,
            lambda: self._api.create(resource, namespace, body, dry_run=dry_run),
        )
        return created

    async def get(
        self, resource: Resource, namespace: str, name: str, *, timeout: float = 10.0
    ) -> Object:
        """See `ApiServer`."""
        fetched: Object = await self.send(
            self._request("get", resource, namespace, name),
            timeout,
            lambda: self._api.get(resource, namespace, name),
        )
        return fetched

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
        """See `ApiServer`."""
        listed: ObjectList = await self.send(
            self._request("list", resource, namespace, ""),
            timeout,
            lambda: self._api.list(
                resource,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                read=read,
                max_objects=max_objects,
            ),
        )
        return listed

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """See `ApiServer`."""
        replaced: Object = await self.send(
            self._request("replace", resource, namespace, body["metadata"]["name"], body),
            timeout,
            lambda: self._api.replace(resource, namespace, body),
        )
        return replaced

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        operations: Sequence[Operation],
        *,
        timeout: float = 10.0,
    ) -> Object:
        """See `ApiServer`."""
        patched: Object = await self.send(
            self._request("patch", resource, namespace, name, operations),
            timeout,
            lambda: self._api.patch(resource, namespace, name, operations),
        )
        return patched

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
        """See `ApiServer`."""
        await self.send(
            self._request("delete", resource, namespace, name, (uid, resource_version)),
            timeout,
            lambda: self._api.delete(
                resource, namespace, name, uid=uid, resource_version=resource_version
            ),
        )

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
        batch_seconds: Callable[[], float] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `ApiServer`; only the opening passes through `send`."""
        request = self._request("watch", resource, namespace, "")
        await self.send(request, timeout, lambda: asyncio.sleep(0))
        events = self._api.watch(
            resource,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            timeout=timeout,
            batch_seconds=batch_seconds,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def close(self) -> None:
        """See `ApiServer`; the server behind belongs to somebody else."""

    def _request(self, verb: str, *fields: Any) -> Request:
        return Request(asyncio.get_running_loop().time(), verb, *fields)

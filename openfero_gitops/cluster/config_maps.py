"""The ConfigMaps of the controller: the mirror of the catalog, and the pause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import CONFIG_MAP_METADATA, CONFIG_MAPS
from openfero_gitops.domain.backoff import Backoff
from openfero_gitops.domain.errors import AlreadyExists, ApiError, Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Operation

_MAX_ATTEMPTS: Final = 5  # to write a ConfigMap that others write, too
_BACKOFF: Final = Backoff(first_seconds=0.05, max_seconds=0.4)


class ConfigMapStore:
    """The ConfigMaps of the controller's namespace."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        """Use this API and namespace."""
        self._api = api
        self.namespace = namespace

    async def get(self, name: str) -> Object | None:
        """Read a ConfigMap; None if it does not exist."""
        try:
            return await self._api.get(CONFIG_MAPS, self.namespace, name)
        except NotFound:
            return None

    async def labelled(self, label_selector: str, read: Callable[[Object], None]) -> None:
        """Read the metadata of each ConfigMap that a label selector matches, one by one."""
        await self._api.list(
            CONFIG_MAP_METADATA, self.namespace, label_selector=label_selector, read=read
        )

    async def create(self, body: Object) -> bool:
        """Create a ConfigMap; False if the name is taken."""
        try:
            await self._api.create(CONFIG_MAPS, self.namespace, body)
        except AlreadyExists:
            return False
        return True

    async def put(self, body: Object, check: Callable[[], None]) -> None:
        """Create or replace a ConfigMap; `check` is called before a write and may raise."""
        name = body["metadata"]["name"]
        existing = await self.get(name)
        check()
        if existing is None:
            if await self.create(body):
                return
            raise Conflict(
                f"ConfigMap {self.namespace}/{name} was created by another client meanwhile"
            )
        version = existing["metadata"]["resourceVersion"]
        metadata = {**body["metadata"], "resourceVersion": version}
        await self._api.replace(CONFIG_MAPS, self.namespace, {**body, "metadata": metadata})

    async def patch(self, name: str, operations: Sequence[Operation]) -> None:
        """Apply a JSON Patch to a ConfigMap."""
        await self._api.patch(CONFIG_MAPS, self.namespace, name, operations)

    async def merge(self, name: str, members: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """Write some members of a ConfigMap, which is created with these labels if necessary.

        Other members stay. Repeated if another client writes the ConfigMap at the same time.
        """
        writes = [{"op": "add", "path": f"/data/{key}", "value": members[key]} for key in members]
        has_no_data = {"op": "test", "path": "/data", "value": None}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace, "labels": dict(labels)},
            "data": dict(members),
        }
        last_error: ApiError | None = None
        for failures in range(_MAX_ATTEMPTS):
            await asyncio.sleep(_BACKOFF.delay(failures))
            try:
                await self.patch(name, writes)
            except NotFound as error:
                if await self.create(body):
                    return
                last_error = error
            except Invalid as error:  # it exists, but without data
                try:
                    add_data = {"op": "add", "path": "/data", "value": dict(members)}
                    await self.patch(name, [has_no_data, add_data])
                except (Invalid, NotFound, Conflict):
                    last_error = error
                else:
                    return
            except Conflict as error:
                last_error = error
            else:
                return
        if last_error is not None:
            raise last_error

    async def delete(self, body: Object) -> None:
        """Delete a ConfigMap if it is still at the version of `body`, or does not exist."""
        metadata = body["metadata"]
        try:
            await self._api.delete(
                CONFIG_MAPS,
                self.namespace,
                metadata["name"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
        except NotFound:
            return

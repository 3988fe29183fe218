"""The ConfigMaps that the controller keeps beside its Jobs: the catalog's mirror, the control."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from openfero_gitops.cluster.api import CONFIG_MAPS
from openfero_gitops.domain.errors import AlreadyExists, ApiError, Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Operation

#: Seconds after each try to write what somebody else writes, too.
_RESTS: Final = (0.0, 0.05, 0.1, 0.2, 0.4)


class ConfigMapStore:
    """ConfigMaps of the controller's own namespace."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        """Take the API and the namespace."""
        self._api = api
        self.namespace = namespace

    async def get(self, name: str) -> Object | None:
        """One ConfigMap, None where there is none."""
        try:
            return await self._api.get(CONFIG_MAPS, self.namespace, name)
        except NotFound:
            return None

    async def labelled(self, label_selector: str) -> Sequence[Object]:
        """Those that carry certain labels."""
        found = await self._api.list(CONFIG_MAPS, self.namespace, label_selector=label_selector)
        return found.items

    async def create(self, body: Object) -> bool:
        """Create one; False where one of that name is there."""
        try:
            await self._api.create(CONFIG_MAPS, self.namespace, body)
        except AlreadyExists:
            return False
        return True

    async def put(self, body: Object, check: Callable[[], None]) -> None:
        """Create one or replace its data and labels, whatever stood there of ours."""
        name = body["metadata"]["name"]
        there = await self.get(name)
        check()
        if there is None:
            if await self.create(body):
                return
            raise Conflict(f"ConfigMap {self.namespace}/{name} was created by somebody else")
        version = there["metadata"]["resourceVersion"]
        metadata = {**body["metadata"], "resourceVersion": version}
        await self._api.replace(CONFIG_MAPS, self.namespace, {**body, "metadata": metadata})

    async def patch(self, name: str, operations: Sequence[Operation]) -> None:
        """Change one, whole or not at all."""
        await self._api.patch(CONFIG_MAPS, self.namespace, name, operations)

    async def merge(self, name: str, members: Mapping[str, str], labels: Mapping[str, str]) -> None:
        """Write these members of one and leave the others; made, with labels, where none is.

        Tried again where somebody else writes in the same moment: their word stays beside ours.
        """
        writes = [{"op": "add", "path": f"/data/{key}", "value": members[key]} for key in members]
        if_bare = {"op": "test", "path": "/data", "value": None}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace, "labels": dict(labels)},
            "data": dict(members),
        }
        failed: ApiError
        for rest in _RESTS:
            try:
                await self.patch(name, writes)
            except NotFound as error:
                if await self.create(body):
                    return
                failed = error
            except Invalid as error:  # somebody made one without data
                try:
                    bare = {"op": "add", "path": "/data", "value": dict(members)}
                    await self.patch(name, [if_bare, bare])
                except (Invalid, NotFound, Conflict):
                    failed = error
                else:
                    return
            except Conflict as error:
                failed = error
            else:
                return
            await asyncio.sleep(rest)
        raise failed

    async def delete(self, body: Object) -> None:
        """Delete exactly this state of this one; gone is gone."""
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

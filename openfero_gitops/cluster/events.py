"""Kubernetes Events: created, and counted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Operation


class EventStore:
    """Writes Events beside the objects that they are about."""

    def __init__(self, api: ApiServer) -> None:
        """Take the API."""
        self._api = api

    async def create(self, body: Object) -> None:
        """Create one."""
        await self._api.create(EVENTS, body["metadata"]["namespace"], body, timeout=5.0)

    async def patch(self, namespace: str, name: str, operations: Sequence[Operation]) -> None:
        """Change one."""
        await self._api.patch(EVENTS, namespace, name, operations, timeout=5.0)

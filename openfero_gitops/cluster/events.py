"""Kubernetes Events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Operation


class EventStore:
    """Creates and patches Events."""

    def __init__(self, api: ApiServer) -> None:
        """Use this API."""
        self._api = api

    async def create(self, body: Object) -> None:
        """Create an Event."""
        await self._api.create(EVENTS, body["metadata"]["namespace"], body, timeout=5.0)

    async def patch(self, namespace: str, name: str, operations: Sequence[Operation]) -> None:
        """Patch an Event."""
        await self._api.patch(EVENTS, namespace, name, operations, timeout=5.0)

"""Remediations' Jobs in the API server, over every namespace that they may be in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

from openfero_gitops.cluster.api import JOBS, PODS, SERVICE_ACCOUNTS
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, NotFound
from openfero_gitops.domain.feed import Failed, Listed

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Operation
    from openfero_gitops.domain.remediation import JobKey

_T = TypeVar("_T")

SELECTOR = f"{keys.MANAGED_BY}={keys.MANAGER}"
#: So many digests of 52 characters stay well below what servers accept as one URL.
_INCIDENTS_A_CALL = 80


class JobStore:
    """Creates, reads, changes and deletes Jobs of ours."""

    def __init__(self, api: ApiServer, namespaces: Sequence[str]) -> None:
        """Take the API and the namespaces that RBAC grants."""
        self._api = api
        self._namespaces = tuple(namespaces)

    async def create(self, manifest: Object) -> Object:
        """Store a new Job."""
        created = await self._api.create(JOBS, manifest["metadata"]["namespace"], manifest)
        return created.object

    async def dry_run(self, manifest: Object) -> tuple[str, ...]:
        """Let the API server say what it would do with a new Job; what it warns of."""
        created = await self._api.create(
            JOBS, manifest["metadata"]["namespace"], manifest, dry_run=True
        )
        return created.warnings

    async def has_account(self, namespace: str, name: str) -> bool:
        """Whether a ServiceAccount is there."""
        try:
            await self._api.get(SERVICE_ACCOUNTS, namespace, name)
        except NotFound:
            return False
        return True

    async def version(self) -> str:
        """Which Kubernetes it is."""
        return await self._api.version()

    async def get(self, key: JobKey) -> Object:
        """Read one Job, consistently."""
        return await self._api.get(JOBS, key.namespace, key.name)

    async def listed(self) -> Sequence[Listed | Failed]:
        """Every Job of ours, consistently, namespace by namespace; `Failed` for a forbidden one."""
        return await _all(self._listed(namespace) for namespace in self._namespaces)

    async def _listed(self, namespace: str) -> Listed | Failed:
        try:
            found = await self._api.list(JOBS, namespace, label_selector=SELECTOR)
        except Forbidden as error:
            return Failed(namespace, error)
        return Listed(namespace, found.items, found.resource_version)

    async def of_incidents(self, incidents: Sequence[str]) -> list[Object]:
        """The Jobs of several incidents, over all namespaces, consistently."""
        selectors = [
            f"{SELECTOR},{keys.INCIDENT} in ({','.join(incidents[i : i + _INCIDENTS_A_CALL])})"
            for i in range(0, len(incidents), _INCIDENTS_A_CALL)
        ]
        lists = await _all(
            self._api.list(JOBS, namespace, label_selector=selector, timeout=8.0)
            for namespace in self._namespaces
            for selector in selectors
        )
        return [job for found in lists for job in found.items]

    async def patch(self, key: JobKey, patch: Sequence[Operation]) -> Object:
        """Change one Job."""
        return await self._api.patch(JOBS, key.namespace, key.name, patch, timeout=5.0)

    async def delete(self, key: JobKey, uid: str, resource_version: str) -> None:
        """Delete exactly this state of this Job, and its Pods."""
        await self._api.delete(
            JOBS, key.namespace, key.name, uid=uid, resource_version=resource_version
        )

    async def pods(self, key: JobKey) -> list[Object]:
        """The Pods of one Job."""
        found = await self._api.list(
            PODS, key.namespace, label_selector=f"batch.kubernetes.io/job-name={key.name}"
        )
        return found.items


async def _all(requests: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Every answer, in order; an error is raised when no request is under way any more."""
    results = await asyncio.gather(*requests, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[_T]", results)

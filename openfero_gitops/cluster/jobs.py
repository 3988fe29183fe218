"""The Jobs of remediations, in all namespaces in which they may be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

from openfero_gitops.cluster.api import (
    EVENTS,
    JOB_STATES,
    JOBS,
    OBSERVED_JOBS,
    POD_STATES,
    SERVICE_ACCOUNTS,
)
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Forbidden, NotFound
from openfero_gitops.domain.feed import Failed, Listed
from openfero_gitops.domain.remediation import MAX_FOREIGN, Foreign

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence

    from openfero_gitops.cluster.api import ApiServer, Object, Operation
    from openfero_gitops.domain.remediation import JobKey, Remediation

    ReadJob = Callable[[Object], Remediation | Foreign]

_T = TypeVar("_T")

SELECTOR = f"{keys.MANAGED_BY}={keys.MANAGER}"
#: A URL with so many digests of 52 characters is still accepted by all servers.
_MAX_DIGESTS_PER_REQUEST = 80
#: For a whole list: with very large Jobs it has many pages, each with a deadline of its own.
_LIST_SECONDS = 60.0
#: For the last lines of a log.
_LOG_SECONDS = 5.0
#: Anybody can create Pods with the label of a Job.
_MAX_PODS = 500
_MAX_EVENTS = 200


class JobStore:
    """Creates, reads, patches and deletes our Jobs."""

    def __init__(
        self,
        api: ApiServer,
        namespaces: Sequence[str],
        read: ReadJob,
        read_again: ReadJob | None = None,
    ) -> None:
        """Use this API, in the namespaces that RBAC grants; lists keep what `read` returns.

        `read_again` reads a list of all Jobs, most of which may be known (default: `read`).
        """
        self._api = api
        self._read = read
        self._read_again = read_again or read
        self._namespaces = tuple(namespaces)

    async def create(self, manifest: Object) -> Object:
        """Create a Job; return it as stored, for `observe`."""
        created = await self._api.create(OBSERVED_JOBS, manifest["metadata"]["namespace"], manifest)
        return created.object

    async def dry_run(self, manifest: Object) -> tuple[str, ...]:
        """Create a Job in a server-side dry run; return the warnings."""
        created = await self._api.create(
            JOB_STATES, manifest["metadata"]["namespace"], manifest, dry_run=True
        )
        return created.warnings

    async def has_account(self, namespace: str, name: str) -> bool:
        """Whether a ServiceAccount exists."""
        try:
            await self._api.get(SERVICE_ACCOUNTS, namespace, name)
        except NotFound:
            return False
        return True

    async def version(self) -> str:
        """Return the version of Kubernetes."""
        return await self._api.version()

    async def get(self, key: JobKey) -> Object:
        """Read a Job, consistently."""
        return await self._api.get(JOB_STATES, key.namespace, key.name)

    async def manifest(self, key: JobKey) -> Object:
        """Read a Job with its Pod template, consistently."""
        return await self._api.get(JOBS, key.namespace, key.name)

    async def listed(self) -> Sequence[Listed | Failed]:
        """List our Jobs by namespace, consistently; `Failed` for a namespace that is forbidden."""
        return await _all(self._listed(namespace) for namespace in self._namespaces)

    async def _listed(self, namespace: str) -> Listed | Failed:
        try:
            listed = await self._api.list(
                OBSERVED_JOBS,
                namespace,
                label_selector=SELECTOR,
                read=few_foreign(self._read_again),
                timeout=_LIST_SECONDS,
            )
        except Forbidden as error:
            return Failed(namespace, error)
        return Listed(namespace, listed.items, listed.resource_version)

    async def of_incidents(self, incidents: Sequence[str]) -> list[Remediation]:
        """List the Jobs of several incidents in all namespaces, consistently."""
        size = _MAX_DIGESTS_PER_REQUEST
        selectors = [
            f"{SELECTOR},{keys.INCIDENT} in ({','.join(incidents[start : start + size])})"
            for start in range(0, len(incidents), size)
        ]
        lists = await _all(
            self._select(namespace, selector)
            for namespace in self._namespaces
            for selector in selectors
        )
        return [job for jobs in lists for job in jobs]

    async def of_occurrences(self, namespace: str, occurrences: Sequence[str]) -> list[Remediation]:
        """List the Jobs of at most 80 occurrences in a namespace, consistently."""
        selector = f"{SELECTOR},{keys.OCCURRENCE} in ({','.join(occurrences)})"
        return await self._select(namespace, selector)

    async def _select(self, namespace: str, selector: str) -> list[Remediation]:
        def read(job: Object) -> Remediation | None:
            remediation = self._read(job)
            return None if isinstance(remediation, Foreign) else remediation

        listed = await self._api.list(
            OBSERVED_JOBS, namespace, label_selector=selector, read=read, timeout=8.0
        )
        return listed.items

    async def patch(self, key: JobKey, patch: Sequence[Operation]) -> Object:
        """Patch a Job; return it as stored, for `observe`."""
        return await self._api.patch(OBSERVED_JOBS, key.namespace, key.name, patch, timeout=5.0)

    async def delete(self, key: JobKey, uid: str, resource_version: str) -> None:
        """Delete a Job if it is still at this version, and its Pods."""
        await self._api.delete(
            JOB_STATES, key.namespace, key.name, uid=uid, resource_version=resource_version
        )

    async def pods(self, key: JobKey) -> list[Object]:
        """List the Pods of a Job."""
        listed = await self._api.list(
            POD_STATES,
            key.namespace,
            label_selector=f"batch.kubernetes.io/job-name={key.name}",
            max_objects=_MAX_PODS,
        )
        return listed.items

    async def events(self, namespace: str, uid: str) -> list[Object]:
        """List the Events about an object, of a Pod or a Job."""
        listed = await self._api.list(
            EVENTS, namespace, field_selector=f"regarding.uid={uid}", max_objects=_MAX_EVENTS
        )
        return listed.items

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
        """Yield what a container of a Pod has written, in pieces."""
        return self._api.pod_log(
            namespace,
            pod,
            container,
            follow=follow,
            tail_lines=tail_lines,
            limit_bytes=limit_bytes,
            timeout=_LOG_SECONDS,
        )


def few_foreign(read: ReadJob) -> Callable[[Object], Remediation | Foreign | None]:
    """Return a function that reads the Jobs of a list, and keeps only so many of others."""
    foreign = 0

    def read_some(job: Object) -> Remediation | Foreign | None:
        nonlocal foreign
        remediation = read(job)
        if isinstance(remediation, Foreign):
            foreign += 1
            if foreign > MAX_FOREIGN:
                return None
        return remediation

    return read_some


async def _all(requests: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Await all requests; return the results in order, or raise an error once all have ended."""
    results = await asyncio.gather(*requests, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[_T]", results)

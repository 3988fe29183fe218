"""`MemoryCluster`, an `ApiServer` that keeps everything in this process.

It passes the contract suite that the real API server passes. What it leaves out: namespaces have
not to be created, RBAC and quotas, subresources (`status` belongs to the controllers alone, as
there), `managedFields`, warnings, and every resource that `cluster.api` does not name.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from openfero_gitops.cluster.api import (
    EVENTS,
    JOBS,
    LEASES,
    PODS,
    Change,
    Created,
    Object,
    ObjectList,
    Operation,
    Resource,
    WatchEvent,
)
from openfero_gitops.demo.cluster.decode import decode
from openfero_gitops.demo.cluster.defaults import fill_job, fill_new_job
from openfero_gitops.demo.cluster.jobs import JobController
from openfero_gitops.demo.cluster.jsonpatch import apply_patch
from openfero_gitops.demo.cluster.player import JobPlayer
from openfero_gitops.demo.cluster.rules import check, check_update
from openfero_gitops.demo.cluster.selector import Selector
from openfero_gitops.demo.cluster.store import Store, copied, through_json
from openfero_gitops.domain.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

_T = TypeVar("_T")

_VERSION: Final = "v1.36.0+memory"
_EVENT_TTL: Final = timedelta(hours=1)
_METADATA: Final = frozenset(
    {
        "annotations",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "name",
        "namespace",
        "ownerReferences",
    }
)
_OURS: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_COUNTED: Final = (JOBS, PODS)  # have a generation, and a status that only controllers write
_CREATED_BY_PUT: Final = (EVENTS, LEASES)
_UPDATE_NEEDS_VERSION: Final = (LEASES,)


class MemoryCluster:
    """Objects in memory behind the `ApiServer` Protocol.

    Args:
        player: how Jobs are played while `run` runs, or whenever `play` is called.
        clock: for timestamps, deadlines and TTLs.
        history: how many writes a watch can go back, at least.
    """

    def __init__(
        self,
        *,
        player: JobPlayer | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        history: int = 10_000,
    ) -> None:
        self.default_namespace = "default"
        self._clock = clock
        self._store = Store(history)
        self._events: deque[tuple[datetime, str, str]] = deque()  # as they were created
        self._jobs = JobController(self._store, player or JobPlayer(), clock)

    async def run(self) -> NoReturn:
        """Play Jobs until cancelled, by the real time that the clock tells."""
        with self._store.news() as news:
            while True:
                news.clear()
                if self._jobs.step():
                    await asyncio.sleep(0)  # a storm of Jobs shall not keep requests waiting
                    continue
                due = self._jobs.due
                wait = None if due is None else (due - self._clock()).total_seconds()
                try:
                    async with asyncio.timeout(wait):
                        await news.wait()
                except TimeoutError:
                    continue

    def play(self) -> datetime | None:
        """Play everything that is due by now; return when there is more, None: nothing is."""
        while self._jobs.step():
            pass
        return self._jobs.due

    def compact(self) -> None:
        """Forget the history: a watch from any version before now is `Expired`."""
        self._store.compact()

    async def close(self) -> None:
        """Nothing to give back."""

    async def version(self, *, timeout: float = 10.0) -> str:
        """See `ApiServer`; it behaves as this one does, and says that it is none."""
        return await self._call(timeout, lambda: _VERSION)

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

        def act() -> Object:
            new = _read(resource, namespace, body)
            if (body.get("metadata") or {}).get("resourceVersion"):
                # Really: the API server answers 500 to this.
                raise Unavailable("resourceVersion should not be set on objects to be created")
            return self._create(resource, namespace, new, dry_run=dry_run)

        return Created(await self._call(timeout, act))

    async def get(
        self, resource: Resource, namespace: str, name: str, *, timeout: float = 10.0
    ) -> Object:
        """See `ApiServer`."""
        return await self._call(timeout, lambda: self._existing(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        timeout: float = 30.0,
    ) -> ObjectList:
        """See `ApiServer`."""

        def act() -> ObjectList:
            selector = Selector(label_selector)
            found = self._store.all(resource, namespace)
            items = [copied(each) for each in found if selector.fits(_labels(each))]
            return ObjectList(items, str(self._store.version))

        return await self._call(timeout, act)

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """See `ApiServer`."""
        given = body.get("metadata") or {}
        name = given.get("name") or ""

        def act() -> Object:
            new = _read(resource, namespace, body)
            _check_path(resource, name)
            old = self._store.get(resource, namespace, name)
            uid, version = given.get("uid"), given.get("resourceVersion")
            if old is None and resource not in _CREATED_BY_PUT:
                raise NotFound(f'{_plural(resource)} "{name}" not found')
            if uid and uid != (old or {"metadata": {}})["metadata"].get("uid"):
                raise _conflict(resource, name, f"Precondition failed: UID in precondition: {uid}")
            if old is None:
                return self._create(resource, namespace, new, dry_run=False)
            if not version and resource in _UPDATE_NEEDS_VERSION:
                raise Invalid(
                    f'{_plural(resource)} "{name}" is invalid: metadata.resourceVersion: '
                    "Invalid value: 0: must be specified for an update"
                )
            return self._update(resource, namespace, old, new, version)

        return await self._call(timeout, act)

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

        def act() -> Object:
            old = self._existing(resource, namespace, name)
            patched = apply_patch(old, operations)
            metadata = patched.get("metadata") or {}
            if metadata.get("name") != name:
                raise Invalid(f"the name of the object does not match the name on the URL ({name})")
            if metadata.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                raise Invalid(f'{_plural(resource)} "{name}" is invalid: metadata.uid is immutable')
            new = _read(resource, namespace, patched)
            return self._update(resource, namespace, old, new, metadata.get("resourceVersion"))

        return await self._call(timeout, act)

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

        def act() -> None:
            old = self._existing(resource, namespace, name)
            metadata = old["metadata"]
            for wanted, field in ((uid, "uid"), (resource_version, "resourceVersion")):
                if wanted and wanted != metadata[field]:
                    said = f"Precondition failed: {field} in precondition: {wanted}"
                    raise _conflict(resource, name, said)
            if not metadata.get("finalizers"):
                self._store.drop(resource, namespace, name)
            elif not metadata.get("deletionTimestamp"):
                metadata |= {
                    "deletionTimestamp": self._now(),
                    "deletionGracePeriodSeconds": 0,
                }
                self._store.put(resource, namespace, old)

        await self._call(timeout, act)

    async def watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        resource_version: str,
        label_selector: str = "",
        timeout: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `ApiServer`."""

        def act() -> tuple[Selector, int]:
            if resource_version in ("", "0"):
                raise Invalid("a watch needs the resourceVersion of a list or an object")
            if not resource_version.isdecimal():  # really: the API server answers 500
                raise Unavailable(f"resourceVersion: Invalid value: {resource_version!r}")
            self._store.since(int(resource_version))
            return Selector(label_selector), int(resource_version)

        selector, version = await self._call(timeout, act)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        with self._store.news() as news:
            yield _bookmark(resource, version)
            while loop.time() < end:
                news.clear()
                for write in [*self._store.since(version)]:
                    version = write.version
                    if (write.resource, write.namespace) != (resource, namespace):
                        continue
                    seen = write.seen(lambda each: selector.fits(_labels(each)))
                    if seen is None:
                        continue
                    change, changed = seen
                    yield WatchEvent(change, copied(changed))
                if version < self._store.version:
                    continue
                try:
                    async with asyncio.timeout_at(end):
                        await news.wait()
                except TimeoutError:
                    break
            yield _bookmark(resource, version)

    async def _call(self, timeout: float, act: Callable[[], _T]) -> _T:
        """Carry out a request at one moment between two, as a remote server does."""
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(0)
                result = act()
                await asyncio.sleep(0)
                return result
        except TimeoutError as error:
            raise Unavailable(f"memory: no response within {timeout:g} s") from error

    def _existing(self, resource: Resource, namespace: str, name: str) -> Object:
        """A copy of what is stored."""
        _check_path(resource, name)
        found = self._store.get(resource, namespace, name)
        if found is None:
            raise NotFound(f'{_plural(resource)} "{name}" not found')
        return copied(found)

    def _create(self, resource: Resource, namespace: str, new: Object, *, dry_run: bool) -> Object:
        metadata = new["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._now()}
        if resource in _COUNTED:
            metadata["generation"] = 1
            new["status"] = {"phase": "Pending"} if resource == PODS else {}
        if resource == JOBS:
            fill_new_job(new)
        check(resource, new)
        name = metadata["name"]
        if (known := self._store.get(resource, namespace, name)) is not None:
            leaving = known["metadata"].get("deletionTimestamp")
            said = "object is being deleted: " if leaving else ""
            raise AlreadyExists(f'{said}{_plural(resource)} "{name}" already exists')
        if resource == EVENTS and not dry_run:
            self._let_expire(namespace, name)
        return copied(new if dry_run else self._store.put(resource, namespace, new))

    def _let_expire(self, namespace: str, name: str) -> None:
        """Remove Events after their hour, as the API server's `--event-ttl` does, or they pile up.

        It looks when there is a new one.
        """
        now = self._clock()
        while self._events and self._events[0][0] < now - _EVENT_TTL:
            _, *old = self._events.popleft()
            if self._store.get(EVENTS, *old) is not None:
                self._store.drop(EVENTS, *old)
        self._events.append((now, namespace, name))

    def _update(
        self,
        resource: Resource,
        namespace: str,
        old: Object,
        new: Object,
        version: str | None,
    ) -> Object:
        known, metadata = old["metadata"], new["metadata"]
        name = known["name"]
        if version and version != known["resourceVersion"]:
            raise _conflict(
                resource,
                name,
                "the object has been modified; please apply your changes to the latest version "
                "and try again",
            )
        metadata |= {field: known[field] for field in _OURS if field in known}
        if resource in _COUNTED:
            new["status"] = old.get("status") or {}
        if resource == JOBS:
            fill_job(new)
        check(resource, new)
        check_update(resource, old, new)
        if resource in _COUNTED:
            changed = new.get("spec") != old.get("spec")
            metadata["generation"] = known.get("generation", 0) + changed
        metadata["resourceVersion"] = known["resourceVersion"]
        if new == old:
            return copied(new)  # nothing is written, and no watch told
        if known.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._store.drop(resource, namespace, name)
            return copied(new)
        return copied(self._store.put(resource, namespace, new))

    def _now(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(resource: Resource, namespace: str, body: Object) -> Object:
    """A checked copy of what a caller sent, with what callers may set."""
    try:
        new = through_json(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the request cannot be written as JSON over HTTP: {error}") from error
    decode(resource, new)
    given: dict[str, Any] = new["metadata"]
    if (given.get("namespace") or namespace) != namespace:
        raise Invalid(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata = {key: value for key, value in given.items() if key in _METADATA and value}
    rest = {
        key: value for key, value in new.items() if key not in ("apiVersion", "kind", "metadata")
    }
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {**metadata, "namespace": namespace},
        **rest,
    }


def _check_path(resource: Resource, name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "%" in name:
        raise Invalid(f"{name!r} is no name of a {resource.kind} or its namespace")


def _labels(stored: Object) -> dict[str, str] | None:
    labels: dict[str, str] | None = stored["metadata"].get("labels")
    return labels


def _plural(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _conflict(resource: Resource, name: str, said: str) -> Conflict:
    return Conflict(f'Operation cannot be fulfilled on {_plural(resource)} "{name}": {said}')


def _bookmark(resource: Resource, version: int) -> WatchEvent:
    return WatchEvent(
        Change.BOOKMARK,
        {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"resourceVersion": str(version)},
        },
    )

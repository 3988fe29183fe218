"""`MemoryCluster`, an `ApiServer` that keeps everything in this process.

It passes the contract suite that the real API server passes. It does not have: creation of
namespaces, RBAC, quotas, subresources (only controllers write `status`, as in a cluster),
`managedFields`, warnings, and resources that `cluster.api` does not name.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import msgspec

from openfero_gitops.background import wait_for_event
from openfero_gitops.cluster.answers import parse_object
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
from openfero_gitops.demo.cluster.pods import ENDED
from openfero_gitops.demo.cluster.rules import check, check_update
from openfero_gitops.demo.cluster.selector import Selector
from openfero_gitops.demo.cluster.store import Store, copied, through_json
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
)
from openfero_gitops.dryrun import policy

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
_SERVER_FIELDS: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_WITH_STATUS: Final = (JOBS, PODS)  # have a generation, and a status that only controllers write
_CREATED_BY_PUT: Final = (EVENTS, LEASES)
_UPDATE_NEEDS_VERSION: Final = (LEASES,)


class MemoryCluster:
    """An `ApiServer` with objects in memory.

    Args:
        player: simulates Jobs while `run` runs, or when `play` is called.
        clock: for timestamps, deadlines and TTLs.
        history: how many writes are kept for watches, at least.
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
        self._events: deque[tuple[datetime, str, str]] = deque()  # in the order of creation
        self._player = player or JobPlayer()
        self._jobs = JobController(self._store, self._player, clock)

    async def run(self) -> NoReturn:
        """Simulate Jobs until cancelled."""
        with self._store.write_event() as written:
            while True:
                written.clear()
                if self._jobs.step():
                    await asyncio.sleep(0)  # many Jobs must not delay requests
                    continue
                due = self._jobs.due
                wait = None if due is None else (due - self._clock()).total_seconds()
                await wait_for_event(written, wait)

    def play(self) -> datetime | None:
        """Simulate everything that is due; return when the next step is due, or None."""
        while self._jobs.step():
            pass
        return self._jobs.due

    def compact(self) -> None:
        """Drop the history: a watch from an earlier version is `Expired`."""
        self._store.compact()

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def version(self, *, timeout: float = 10.0) -> str:
        """Return the version of Kubernetes that is simulated."""
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
            new = _decoded(resource, namespace, body)
            if (body.get("metadata") or {}).get("resourceVersion"):
                # The API server really returns 500.
                raise Unavailable("resourceVersion should not be set on objects to be created")
            created = self._create(resource, namespace, new, dry_run=dry_run)
            return _answer(created, resource)

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
        field_selector: str = "",
        read: Callable[[Object], Any] | None = None,
        max_objects: int | None = None,
        timeout: float = 30.0,
    ) -> ObjectList:
        """See `ApiServer`."""

        def act() -> ObjectList:
            selector = Selector(label_selector)
            stored = self._store.all(resource, namespace)
            selected = (
                item
                for item in stored
                if selector.matches(_labels(item)) and _has_field(item, field_selector)
            )
            items = [
                kept
                for item in islice(selected, max_objects)
                if (kept := read(_part(item, resource)) if read else _part(item, resource))
                is not None
            ]
            return ObjectList(items, str(self._store.version))

        return await self._call(timeout, act)

    async def replace(
        self, resource: Resource, namespace: str, body: Object, *, timeout: float = 10.0
    ) -> Object:
        """See `ApiServer`."""
        given = body.get("metadata") or {}
        name = given.get("name") or ""

        def act() -> Object:
            new = _decoded(resource, namespace, body)
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
            new = _decoded(resource, namespace, patched)
            version = metadata.get("resourceVersion")
            return _answer(self._update(resource, namespace, old, new, version), resource)

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
            for expected, field in ((uid, "uid"), (resource_version, "resourceVersion")):
                if expected and expected != metadata[field]:
                    message = f"Precondition failed: {field} in precondition: {expected}"
                    raise _conflict(resource, name, message)
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
        batch_seconds: Callable[[], float] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `ApiServer`."""
        del batch_seconds  # nothing is late here

        def act() -> tuple[Selector, int]:
            if resource_version in ("", "0"):
                raise Invalid("a watch needs the resourceVersion of a list or an object")
            if not resource_version.isdecimal():  # the API server really returns 500
                raise Unavailable(f"resourceVersion: Invalid value: {resource_version!r}")
            self._store.since(int(resource_version))
            return Selector(label_selector), int(resource_version)

        selector, version = await self._call(timeout, act)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        with self._store.write_event() as written:
            yield _bookmark(resource, version)
            while loop.time() < end:
                written.clear()
                for write in [*self._store.since(version)]:
                    version = write.version
                    if (write.resource, write.namespace) != (resource, namespace):
                        continue
                    event = write.event_for(lambda item: selector.matches(_labels(item)))
                    if event is None:
                        continue
                    change, changed = event
                    yield WatchEvent(change, _answer(changed, resource))
                if version < self._store.version:
                    continue
                try:
                    async with asyncio.timeout_at(end):
                        await written.wait()
                except TimeoutError:
                    break
            yield _bookmark(resource, version)

    async def pod_log(
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
        """See `ApiServer`. A container writes everything when it starts."""

        def act() -> Object:
            pod = self._existing(PODS, namespace, name)
            if all(each["name"] != container for each in pod["spec"]["containers"]):
                raise Invalid(f"container {container} is not valid for pod {name}")
            if not pod["status"].get("containerStatuses"):
                raise Invalid(
                    f'container "{container}" in pod "{name}" is waiting to start: '
                    "ContainerCreating"
                )
            return pod

        pod = await self._call(timeout, act)
        lines = self._player.log(pod).splitlines(keepends=True)
        skipped = 0 if tail_lines is None else max(0, len(lines) - tail_lines)
        yield "".join(lines[skipped:]).encode()[:limit_bytes]
        with self._store.write_event() as written:
            while follow:
                written.clear()
                stored = self._store.get(PODS, namespace, name)
                if stored is None or stored["status"]["phase"] in ENDED:
                    return
                await written.wait()

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
        """Return a copy of a stored object."""
        _check_path(resource, name)
        stored = self._store.get(resource, namespace, name)
        if stored is None:
            raise NotFound(f'{_plural(resource)} "{name}" not found')
        return copied(stored)

    def _create(self, resource: Resource, namespace: str, new: Object, *, dry_run: bool) -> Object:
        metadata = new["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._now()}
        if resource in _WITH_STATUS:
            metadata["generation"] = 1
            new["status"] = {"phase": "Pending"} if resource == PODS else {}
        if resource == JOBS:
            fill_new_job(new)
            if keys.POLICY_PROBE in (metadata.get("annotations") or {}):
                # What users may not do with Jobs, the server refuses them (`admission`).
                raise Forbidden(f"memory denied request: policy version {policy.VERSION} is active")
        check(resource, new)
        name = metadata["name"]
        if (existing := self._store.get(resource, namespace, name)) is not None:
            deleting = existing["metadata"].get("deletionTimestamp")
            prefix = "object is being deleted: " if deleting else ""
            raise AlreadyExists(f'{prefix}{_plural(resource)} "{name}" already exists')
        if resource == EVENTS and not dry_run:
            self._expire_events(namespace, name)
        return copied(new if dry_run else self._store.put(resource, namespace, new))

    def _expire_events(self, namespace: str, name: str) -> None:
        """Record a new Event, and remove those that are older than an hour (`--event-ttl`)."""
        now = self._clock()
        while self._events and self._events[0][0] < now - _EVENT_TTL:
            _, *key = self._events.popleft()
            if self._store.get(EVENTS, *key) is not None:
                self._store.drop(EVENTS, *key)
        self._events.append((now, namespace, name))

    def _update(
        self,
        resource: Resource,
        namespace: str,
        old: Object,
        new: Object,
        version: str | None,
    ) -> Object:
        current, metadata = old["metadata"], new["metadata"]
        name = current["name"]
        if version and version != current["resourceVersion"]:
            raise _conflict(
                resource,
                name,
                "the object has been modified; please apply your changes to the latest version "
                "and try again",
            )
        metadata |= {field: current[field] for field in _SERVER_FIELDS if field in current}
        if resource in _WITH_STATUS:
            new["status"] = old.get("status") or {}
        if resource == JOBS:
            fill_job(new)
        check(resource, new)
        check_update(resource, old, new)
        if resource in _WITH_STATUS:
            changed = new.get("spec") != old.get("spec")
            metadata["generation"] = current.get("generation", 0) + changed
        metadata["resourceVersion"] = current["resourceVersion"]
        if new == old:
            return copied(new)  # nothing is written, and watches get no event
        if current.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._store.drop(resource, namespace, name)
            return copied(new)
        return copied(self._store.put(resource, namespace, new))

    def _now(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _decoded(resource: Resource, namespace: str, body: Object) -> Object:
    """Return a decoded copy of a caller's object, with the fields that callers may set."""
    try:
        new = through_json(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"the request cannot be serialized to JSON: {error}") from error
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


def _part(item: Object, resource: Resource) -> Object:
    """Return a copy of what a list has of a stored object."""
    members = ("apiVersion", "kind", "metadata")
    part = {key: item[key] for key in members} if resource.metadata_only else item
    return _answer(part, resource)


def _answer(stored: Object, resource: Resource) -> Object:
    """Return a copy of a stored object, as the client of a real API server would decode it."""
    if resource.members is None:
        return copied(stored)
    return parse_object(msgspec.json.encode(stored), resource)


def _check_path(resource: Resource, name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "%" in name:
        raise Invalid(f"{name!r} is not a valid name of a {resource.kind} or namespace")


def _labels(stored: Object) -> dict[str, str] | None:
    labels: dict[str, str] | None = stored["metadata"].get("labels")
    return labels


def _has_field(stored: Object, field_selector: str) -> bool:
    """Whether an object has the value of a field, such as `regarding.uid=…`; empty selects all."""
    path, _, value = field_selector.partition("=")
    found: Any = stored
    for name in path.split(".") if path else ():
        found = (found or {}).get(name)
    return not path or found == value


def _plural(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _conflict(resource: Resource, name: str, message: str) -> Conflict:
    return Conflict(f'Operation cannot be fulfilled on {_plural(resource)} "{name}": {message}')


def _bookmark(resource: Resource, version: int) -> WatchEvent:
    return WatchEvent(
        Change.BOOKMARK,
        {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"resourceVersion": str(version)},
        },
    )

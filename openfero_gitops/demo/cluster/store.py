"""Stores the objects of the in-memory cluster, and the history of their changes.

One counter provides the resourceVersion of every write, like etcd's revision, so that versions
order the writes of all resources. The history is limited: older versions are `Expired`.
"""

from __future__ import annotations

import asyncio
import json
import marshal
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.api import EVERYWHERE, Change
from openfero_gitops.domain.errors import Expired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openfero_gitops.cluster.api import Object, Resource


@dataclass(frozen=True, slots=True)
class Write:
    """A change of an object; both states have this version, and must not be modified."""

    version: int
    resource: Resource
    namespace: str
    before: Object | None
    after: Object | None

    def event_for(self, fits: Callable[[Object], bool]) -> tuple[Change, Object] | None:
        """Return the event of a watch with a selector; an object that no longer fits is deleted."""
        was = self.before if self.before is not None and fits(self.before) else None
        now = self.after if self.after is not None and fits(self.after) else None
        if now is not None:
            return (Change.ADDED if was is None else Change.MODIFIED), now
        return None if was is None else (Change.DELETED, was)


class Store:
    """Objects by resource, namespace and name. Callers of the API never get its dicts.

    Args:
        history: how many writes are kept for watches, at least.
    """

    def __init__(self, history: int) -> None:
        self.version = 1
        self.compacted = 1  # the history begins after this version
        self._history = history
        self._writes: list[Write] = []
        self._objects: dict[tuple[Resource, str], dict[str, Object]] = {}
        self._subscribers: dict[Callable[[Write], None], None] = {}  # called in order

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        return self._objects.get((resource, namespace), {}).get(name)

    def all(self, resource: Resource, namespace: str) -> list[Object]:
        """Return the objects of a namespace, or of all with `EVERYWHERE`, sorted by name."""
        if namespace == EVERYWHERE:
            namespaces = sorted(name for kind, name in self._objects if kind == resource)
            return [item for name in namespaces for item in self.all(resource, name)]
        return [item for _, item in sorted(self._objects.get((resource, namespace), {}).items())]

    def put(self, resource: Resource, namespace: str, new: Object) -> Object:
        """Store an object with a new resourceVersion; its parts must not be modified afterwards."""
        self.version += 1
        name = new["metadata"]["name"]
        collection = self._objects.setdefault((resource, namespace), {})
        before = self._at_this_version(collection[name]) if name in collection else None
        after = collection[name] = self._at_this_version(new)
        self._record(Write(self.version, resource, namespace, before, after))
        return after

    def drop(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object, which must exist."""
        self.version += 1
        deleted = self._at_this_version(self._objects[resource, namespace].pop(name))
        self._record(Write(self.version, resource, namespace, deleted, None))

    def since(self, version: int) -> Iterator[Write]:
        """Every write after a version, in order.

        Raises:
            Expired: the history no longer contains them.
        """
        if version < self.compacted:
            raise Expired(f"too old resource version: {version} ({self.compacted})")
        return islice(self._writes, version - self.compacted, None)

    def compact(self) -> None:
        """Drop the history."""
        self._writes.clear()
        self.compacted = self.version

    def subscribe(self, on_write: Callable[[Write], None]) -> None:
        """Call a function at every write from now on."""
        self._subscribers[on_write] = None

    @contextmanager
    def write_event(self) -> Iterator[asyncio.Event]:
        """Provide an event that is set at every write."""
        event = asyncio.Event()

        def on_write(_: Write) -> None:
            event.set()

        self._subscribers[on_write] = None
        try:
            yield event
        finally:
            self._subscribers.pop(on_write, None)

    def _at_this_version(self, item: Object) -> Object:
        metadata = {**item["metadata"], "resourceVersion": str(self.version)}
        return {**item, "metadata": metadata}

    def _record(self, write: Write) -> None:
        self._writes.append(write)
        if len(self._writes) > 2 * self._history:
            del self._writes[: -self._history]
            self.compacted = self._writes[0].version - 1
        for subscriber in tuple(self._subscribers):
            subscriber(write)


def copied(value: Object) -> Object:
    """Copy a stored object; marshal is several times faster than JSON."""
    copy: Object = marshal.loads(marshal.dumps(value))  # noqa: S302, not from outside
    return copy


def through_json(value: Any) -> Any:
    """Copy a value from a caller, as its transport over HTTP does.

    Raises:
        TypeError: the value cannot be serialized to JSON.
        ValueError: as `TypeError`.
    """
    return json.loads(json.dumps(value))

"""Where the in-memory cluster keeps its objects, and what has happened to them.

One counter gives every write its resourceVersion, as etcd's revision does, so that versions order
all writes to all resources. The history is bounded: what is older is `Expired`.
"""

from __future__ import annotations

import asyncio
import json
import marshal
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from openfero_gitops.cluster.api import EVERYWHERE, Change
from openfero_gitops.domain.errors import Expired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openfero_gitops.cluster.api import Object, Resource


@dataclass(frozen=True, slots=True)
class Write:
    """One change of one object; both states carry the version, and neither may be changed."""

    version: int
    resource: Resource
    namespace: str
    before: Object | None
    after: Object | None

    def seen(self, fits: Callable[[Object], bool]) -> tuple[Change, Object] | None:
        """What a watch reports that selects objects: leaving the selection is being deleted."""
        was = self.before if self.before is not None and fits(self.before) else None
        now = self.after if self.after is not None and fits(self.after) else None
        if now is not None:
            return (Change.ADDED if was is None else Change.MODIFIED), now
        return None if was is None else (Change.DELETED, was)


class Store:
    """Objects by resource, namespace and name; the dicts in it are never handed to callers.

    Args:
        history: how many writes a watch can go back, at least.
    """

    def __init__(self, history: int) -> None:
        self.version = 1
        self.compacted = 1  # nothing is known of what was written up to this version
        self._history = history
        self._writes: list[Write] = []
        self._objects: dict[tuple[Resource, str], dict[str, Object]] = {}
        self._subscribers: dict[Callable[[Write], None], None] = {}  # told in order

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object, None where there is none."""
        return self._objects.get((resource, namespace), {}).get(name)

    def all(self, resource: Resource, namespace: str) -> list[Object]:
        """All objects of a namespace, by name; with `EVERYWHERE`, of all, by namespace and name."""
        if namespace == EVERYWHERE:
            there = sorted(place for kind, place in self._objects if kind == resource)
            return [each for place in there for each in self.all(resource, place)]
        return [each for _, each in sorted(self._objects.get((resource, namespace), {}).items())]

    def put(self, resource: Resource, namespace: str, new: Object) -> Object:
        """Store an object, with a new resourceVersion; what it is made of must not change then."""
        self.version += 1
        name = new["metadata"]["name"]
        collection = self._objects.setdefault((resource, namespace), {})
        before = self._at_this_version(collection[name]) if name in collection else None
        after = collection[name] = self._at_this_version(new)
        self._note(Write(self.version, resource, namespace, before, after))
        return after

    def drop(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object that is there."""
        self.version += 1
        gone = self._at_this_version(self._objects[resource, namespace].pop(name))
        self._note(Write(self.version, resource, namespace, gone, None))

    def since(self, version: int) -> Iterator[Write]:
        """Every write after a version, in order.

        Raises:
            Expired: they are not kept any more.
        """
        if version < self.compacted:
            raise Expired(f"too old resource version: {version} ({self.compacted})")
        return islice(self._writes, version - self.compacted, None)

    def compact(self) -> None:
        """Forget the history."""
        self._writes.clear()
        self.compacted = self.version

    def subscribe(self, told: Callable[[Write], None]) -> None:
        """Call a function at every write from now on."""
        self._subscribers[told] = None

    @contextmanager
    def news(self) -> Iterator[asyncio.Event]:
        """Give an event that is set at every write."""
        event = asyncio.Event()

        def told(_: Write) -> None:
            event.set()

        self._subscribers[told] = None
        try:
            yield event
        finally:
            self._subscribers.pop(told, None)

    def _at_this_version(self, known: Object) -> Object:
        metadata = {**known["metadata"], "resourceVersion": str(self.version)}
        return {**known, "metadata": metadata}

    def _note(self, write: Write) -> None:
        self._writes.append(write)
        if len(self._writes) > 2 * self._history:
            del self._writes[: -self._history]
            self.compacted = self._writes[0].version - 1
        for told in tuple(self._subscribers):
            told(write)


def copied(value: Object) -> Object:
    """Copy what is stored, which is JSON: several times as quick as by way of text."""
    copy: Object = marshal.loads(marshal.dumps(value))  # noqa: S302, our own bytes
    return copy


def through_json(value: Object) -> Object:
    """Copy what somebody sent, as the way over HTTP does.

    Raises:
        TypeError: it is no JSON.
        ValueError: the same.
    """
    copy: Object = json.loads(json.dumps(value))
    return copy

"""Reads and writes the Lease of the leader.

An annotation records that a leader released the Lease after finishing all its work. It names this
release (the object, the number of the term, the time of its end), so that it is ignored once
another replica has taken the Lease, even one that keeps unknown annotations.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from openfero_gitops.cluster.api import LEASES, Change, Object
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import Conflict, NotFound
from openfero_gitops.domain.event import ObjectReference
from openfero_gitops.domain.lease import LeaseRecord
from openfero_gitops.domain.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from openfero_gitops.cluster.api import ApiServer


class KubernetesLease:
    """Reads and writes one Lease; fields that other clients wrote stay.

    The Lease is watched by the label of our objects, which it carries. Every method raises
    `domain.errors.ApiError` and nothing else, within its timeout (seconds).
    """

    def __init__(self, api: ApiServer, namespace: str, name: str = "openfero-gitops") -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._last: Object | None = None  # as the API server last returned it

    @property
    def reference(self) -> ObjectReference:
        """A reference to the Lease; its uid is empty until it was read."""
        uid = self._last["metadata"].get("uid", "") if self._last else ""
        return ObjectReference(LEASES.api_version, LEASES.kind, self._namespace, self._name, uid)

    async def read(self, *, timeout: float) -> LeaseRecord | None:
        """Read the Lease; None if it does not exist."""
        try:
            lease = await self._api.get(LEASES, self._namespace, self._name, timeout=timeout)
        except NotFound:
            self._last = None
            return None
        return self._remember(lease)

    async def create(self, record: LeaseRecord, *, timeout: float) -> LeaseRecord:
        """Create the Lease; raises `AlreadyExists` if another replica was first."""
        body: Object = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        _write(body, record)
        created = await self._api.create(LEASES, self._namespace, body, timeout=timeout)
        return self._remember(created.object)

    async def replace(
        self, record: LeaseRecord, resource_version: str, *, timeout: float
    ) -> LeaseRecord:
        """Replace the Lease at a version; raises `Conflict` or `NotFound` if it is not current."""
        last = self._last
        if last is None or last["metadata"].get("resourceVersion") != resource_version:
            raise Conflict(
                f"lease {self._namespace}/{self._name} was not read at {resource_version}"
            )
        body = copy.deepcopy(last)
        _write(body, record)
        stored = await self._api.replace(LEASES, self._namespace, body, timeout=timeout)
        return self._remember(stored)

    async def changes(
        self, resource_version: str, *, timeout: float
    ) -> AsyncGenerator[LeaseRecord | None, None]:
        """Yield the record after each change since a version, None for a deleted Lease.

        A Lease without our label is not watched.
        """
        events = self._api.watch(
            LEASES,
            self._namespace,
            resource_version=resource_version,
            label_selector=f"{keys.MANAGED_BY}={keys.MANAGER}",
            timeout=timeout,
        )
        try:
            async for event in events:
                if event.object["metadata"].get("name") == self._name:
                    yield None if event.change is Change.DELETED else _record(event.object)
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    def _remember(self, stored: Object) -> LeaseRecord:
        self._last = stored
        return _record(stored)


def _record(stored: Object) -> LeaseRecord:
    spec: dict[str, Any] = stored.get("spec") or {}
    metadata = stored["metadata"]
    record = LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        duration=spec.get("leaseDurationSeconds") or 0,
        acquired_at=parse_time(spec.get("acquireTime")),
        renewed_at=parse_time(spec.get("renewTime")),
        transitions=spec.get("leaseTransitions") or 0,
        resource_version=metadata.get("resourceVersion", ""),
    )
    mark = (metadata.get("annotations") or {}).get(keys.SETTLED)
    return replace(record, settled=not record.holder and mark == _mark(stored, record))


def _write(body: Object, record: LeaseRecord) -> None:
    """Write a record into a Lease; its other fields stay."""
    body["metadata"].setdefault("labels", {})[keys.MANAGED_BY] = keys.MANAGER
    annotations = body["metadata"].get("annotations") or {}
    annotations.pop(keys.SETTLED, None)
    if record.settled:
        annotations[keys.SETTLED] = _mark(body, record)
    body["metadata"]["annotations"] = annotations
    spec = body.setdefault("spec", {})
    spec["holderIdentity"] = record.holder
    spec["leaseDurationSeconds"] = record.duration
    spec["leaseTransitions"] = record.transitions
    for name, moment in (("acquireTime", record.acquired_at), ("renewTime", record.renewed_at)):
        if moment is None:
            spec.pop(name, None)
        else:
            spec[name] = format_time(moment)


def _mark(lease: Object, record: LeaseRecord) -> str:
    """Return the annotation of a release after which no work is unfinished."""
    released = format_time(record.acquired_at) if record.acquired_at else ""
    return f"{lease['metadata'].get('uid', '')}/{record.transitions}/{released}"

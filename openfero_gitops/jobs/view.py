"""The view: the Remediation of every Job of the controller, updated by list and watch.

Jobs that others created with the controller's label are kept apart, to be reported; nothing else
reads them.

Each replica has one. It makes decisions fast, not safe: a Job's name prevents duplicates in the
API server, and admission's patches test what they depend on.

The view never goes back: an event that is older than a write of this replica is dropped, so that a
leader sees its own admissions at once. For this, resource versions are compared as numbers, which
Kubernetes guarantees since 1.35 and all earlier versions allow in practice. Only the cluster itself
can go back, when etcd is restored from a backup. A list that is older than an earlier event shows
that, and is accepted.

A watch can also stop delivering without a disconnect, behind a proxy that keeps its side open. It
is recognized by this replica's own writes and reads: events of those must arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from msgspec import structs

from openfero_gitops.background import OnChange
from openfero_gitops.domain.alert import incident_digest
from openfero_gitops.domain.feed import Changed, Deleted, Failed, Listed
from openfero_gitops.domain.labels import REPLICA_LABELS, replica_labels_in, without
from openfero_gitops.domain.remediation import MAX_FOREIGN, Foreign, JobKey, Remediation
from openfero_gitops.jobs.changes import JobChange, JobChanges
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

    from openfero_gitops.domain.feed import FeedEvent

_log = structlog.get_logger(__name__)

#: A watch that lacks a known write for this long is considered stalled.
_STALLED_AFTER_SECONDS: Final = 15.0
_STALL_CHECK_INTERVAL_SECONDS: Final = 5.0
#: Deleted Jobs whose late answers are recognized; an answer is late by seconds at most.
_MAX_DELETED_UIDS: Final = 10_000


class View:
    """Remediations by Job and by incident, and notifications of their changes."""

    def __init__(self, replica_labels: frozenset[str] = REPLICA_LABELS) -> None:
        """Start empty and incomplete; `replica_labels` do not count for an incident."""
        self._replica_labels = replica_labels
        self._by_key: dict[JobKey, Remediation] = {}
        self._by_incident: dict[str, dict[JobKey, None]] = defaultdict(dict)
        self._foreign: dict[JobKey, Foreign] = {}
        self._deleted: dict[str, int] = {}  # resource version of the deletion, by uid
        self._newest: dict[str, int] = {}
        self._listed: dict[str, bool] = {}
        self._being_listed: set[str] = set()
        #: How many Jobs wait for admission.
        self.waiting = 0
        #: How often something has changed.
        self.changes = 0
        self._subscribers: dict[asyncio.Event, None] = {}  # in order: runs must be reproducible
        self._records: list[JobChanges] = []

    def expect(self, namespaces: Iterable[str]) -> None:
        """Set the namespaces that must be listed before the view is complete."""
        self._listed = dict.fromkeys(namespaces, False)

    @property
    def complete(self) -> bool:
        """Whether every namespace has been listed at least once."""
        return bool(self._listed) and all(self._listed.values())

    @property
    def being_listed(self) -> bool:
        """Whether the feed has yet to bring the first list of a namespace, and has not failed."""
        return bool(self._being_listed)

    def begin_lists(self) -> None:
        """Note that the feed lists every namespace, some of them for the first time."""
        self._being_listed = {name for name, listed in self._listed.items() if not listed}

    def fail_list(self, namespace: str) -> None:
        """Note that the feed cannot list a namespace now."""
        if namespace in self._being_listed:
            self._being_listed.remove(namespace)
            self._notify()

    def __iter__(self) -> Iterator[Remediation]:
        """Iterate over a copy of all remediations."""
        return iter(list(self._by_key.values()))

    def __contains__(self, key: object) -> bool:
        """Whether a Job is one of the controller's."""
        return key in self._by_key

    def __len__(self) -> int:
        """The number of remediations."""
        return len(self._by_key)

    def get(self, key: JobKey) -> Remediation | None:
        """Return the remediation of a Job."""
        return self._by_key.get(key)

    @property
    def foreign(self) -> list[Foreign]:
        """The Jobs of others that carry the controller's label; 1,000 at most."""
        return list(self._foreign.values())

    def of_incident(self, incident: str) -> list[Remediation]:
        """Return the remediations of an incident."""
        return [self._by_key[key] for key in self._by_incident.get(incident, ())]

    def incident_of(self, remediation: Remediation) -> list[Remediation]:
        """Return the remediations of its incident; itself alone if none is recorded."""
        incident = remediation.incident
        return self.of_incident(incident) if incident else [remediation]

    def newest(self, namespace: str) -> int:
        """Return the newest resource version that the view has of a namespace."""
        return self._newest.get(namespace, 0)

    def read(self, job: Mapping[str, Any]) -> Remediation | Foreign:
        """Read of a Job what has changed since the known version, which may be the same.

        Most Jobs of a list are known at the same version, and so are events of own writes. After a
        restore of etcd, the same version of a Job may have another content; that is read with the
        Job's next event.
        """
        metadata = job["metadata"]
        current = self._find(JobKey(metadata["namespace"], metadata["name"]))
        if (
            current is not None
            and current.uid == metadata.get("uid")
            and current.resource_version == metadata.get("resourceVersion")
        ):
            return current
        return observe(job, self.get)

    def apply(self, job: Remediation | Foreign) -> bool:
        """Update a Job to a newer state; return False if the state is older than the known one."""
        version = _number(job.resource_version)
        current = self._find(job.key)
        if current is not None and version <= _number(current.resource_version):
            return False
        if version <= self._deleted.get(job.uid, -1):
            return False  # the late answer to a write of this replica
        self._drop(current)
        self._newest[job.key.namespace] = max(version, self.newest(job.key.namespace))
        if isinstance(job, Remediation):
            job = self._regrouped(job)
            self._by_key[job.key] = job
            self._by_incident[job.incident][job.key] = None
            self.waiting += job.waiting
            self._note(current, job)
        else:
            self._keep_foreign(job, current)
            self._note(current, None)
        self._notify()
        return True

    def _regrouped(self, job: Remediation) -> Remediation:
        """Give a Job the incident that its alert belongs to under the current replica labels.

        Jobs are created with the incident of their time. An alert that fires since before the
        setting was changed, or since before an upgrade, must not be remediated again.
        """
        replica_labels = replica_labels_in(job.labels, self._replica_labels)
        if replica_labels == job.replica_labels or not job.incident:
            return job
        incident = incident_digest(without(job.labels, replica_labels), job.status)
        return structs.replace(job, incident=incident, replica_labels=replica_labels)

    def _find(self, key: JobKey) -> Remediation | Foreign | None:
        return self._by_key[key] if key in self._by_key else self._foreign.get(key)

    def _all(self) -> list[Remediation | Foreign]:
        return [*self._by_key.values(), *self._foreign.values()]

    def _keep_foreign(self, job: Foreign, before: Remediation | Foreign | None) -> None:
        if len(self._foreign) >= MAX_FOREIGN:
            return
        self._foreign[job.key] = job
        if not isinstance(before, Foreign) or before.uid != job.uid:
            _log.warning(
                "a Job with the label of this controller was not created by it, and is ignored",
                job=str(job.key),
                why=job.why,
            )

    def remove(
        self, key: JobKey, uid: str, resource_version: str = ""
    ) -> Remediation | Foreign | None:
        """Remove a Job that was deleted at a resource version; a later Job of its name is kept."""
        if resource_version:
            self._deleted[uid] = _number(resource_version)
            if len(self._deleted) > _MAX_DELETED_UIDS:
                del self._deleted[next(iter(self._deleted))]
        current = self._find(key)
        if current is None or current.uid != uid:
            return None
        self._drop(current)
        self._note(current, None)
        self._notify()
        return current

    def _drop(self, job: Remediation | Foreign | None) -> None:
        if job is None:
            return
        if isinstance(job, Foreign):
            del self._foreign[job.key]
            return
        self.waiting -= job.waiting
        del self._by_key[job.key]
        del self._by_incident[job.incident][job.key]
        if not self._by_incident[job.incident]:
            del self._by_incident[job.incident]

    def replace(
        self, namespace: str, jobs: Iterable[Remediation | Foreign], resource_version: str
    ) -> None:
        """Replace a namespace by a list of its Jobs at a resource version."""
        listed = {job.key: job for job in jobs}
        for current in self._all():
            absent = current.key.namespace == namespace and current.key not in listed
            # A Job that this replica created after the list was made is not in it.
            if absent and _number(current.resource_version) <= _number(resource_version):
                self.remove(current.key, current.uid, resource_version)
        for job in listed.values():
            self.apply(job)
        self._listed[namespace] = True
        self._being_listed.discard(namespace)
        self._notify()

    def reset(self, namespace: str) -> None:
        """Clear a namespace whose resource versions have gone back; a list must follow at once."""
        for current in self._all():
            if current.key.namespace == namespace:
                self._drop(current)
                self._note(current, None)
        self._deleted.clear()  # these Jobs may exist again
        self._newest.pop(namespace, None)

    def subscribe(self) -> asyncio.Event:
        """Return an event that is set at every change; the subscriber clears it."""
        event = asyncio.Event()
        event.set()
        self._subscribers[event] = None
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """End a subscription."""
        self._subscribers.pop(event, None)

    def record_changes(self) -> JobChanges:
        """Record which Jobs change from now on, until `end_record`."""
        record = JobChanges()
        self._records.append(record)
        return record

    def end_record(self, record: JobChanges) -> None:
        """Record no changes any more."""
        self._records.remove(record)

    def _note(self, before: Remediation | Foreign | None, after: Remediation | None) -> None:
        """Note a change for those who record them; Jobs of others do not exist for these."""
        if isinstance(before, Foreign):
            before = None
        if before is not None and (after is None or after.uid != before.uid):
            gone = JobChange(before, None)
            for record in self._records:
                record.note(before.uid, gone)
            before = None
        if after is not None:
            change = JobChange(before, after)
            for record in self._records:
                record.note(after.uid, change)

    def _notify(self) -> None:
        self.changes += 1
        for event in self._subscribers:
            event.set()


class Feed(Protocol):
    """The changes of the Jobs: a list of each namespace, then its changes, without end."""

    def follow(self) -> AsyncGenerator[FeedEvent]:
        """Yield every change, until closed."""
        ...


class Observer:
    """Updates a view from a feed."""

    def __init__(self, feed: Feed, view: View, namespaces: Iterable[str]) -> None:
        """Take the feed of the namespaces that the view must contain."""
        self._feed = feed
        self._view = view
        self._errors = defaultdict[str, OnChange](
            lambda: OnChange(_log.warning, "jobs cannot be watched")
        )
        #: The last version that each watch delivered, and when, by the event loop's clock.
        self._delivered: dict[str, tuple[int, float]] = {}
        self._newest: dict[str, int] = {}  # the newest version that each feed delivered
        view.expect(namespaces)

    @property
    def trouble(self) -> Mapping[str, str]:
        """The error of each namespace that cannot be watched now."""
        return {namespace: error.text for namespace, error in self._errors.items() if error.text}

    async def run(self) -> None:
        """Update the view until cancelled; follow the feed again if a watch stalls."""
        while True:
            reading = asyncio.create_task(self._follow(), name="read the feed")
            try:
                while not reading.done() and not self._is_stalled():
                    await asyncio.wait({reading}, timeout=_STALL_CHECK_INTERVAL_SECONDS)
                if reading.done():
                    return reading.result()
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    async def _follow(self) -> None:
        self._view.begin_lists()
        async with contextlib.aclosing(self._feed.follow()) as events:
            async for event in events:
                self._process(event)

    def _is_stalled(self) -> bool:
        """Whether a watch does not deliver writes that are known from elsewhere."""
        now = asyncio.get_running_loop().time()
        stalled = [
            namespace
            for namespace, (version, at) in self._delivered.items()
            if now - at > _STALLED_AFTER_SECONDS and version < self._view.newest(namespace)
        ]
        for namespace in stalled:
            del self._delivered[namespace]
            self._errors[namespace].set(
                "the watch is stalled: it did not deliver a Job that was written",
                namespace=namespace,
            )
        return bool(stalled)

    def _note_delivered(self, namespace: str, resource_version: str) -> None:
        now = asyncio.get_running_loop().time()
        version = _number(resource_version)
        self._delivered[namespace] = (version, now)
        self._newest[namespace] = max(version, self._newest.get(namespace, 0))

    def _process(self, event: FeedEvent) -> None:
        match event:
            case Listed(namespace, jobs, resource_version):
                if _number(resource_version) < self._newest.get(namespace, 0):
                    _log.warning(
                        "the API server's state is older than before, as after a restore of etcd "
                        "from a backup; the Jobs are accepted as they are now",
                        namespace=namespace,
                    )
                    self._view.reset(namespace)
                    del self._newest[namespace]
                self._view.replace(namespace, jobs, resource_version)
                self._note_delivered(namespace, resource_version)
            case Changed(namespace, job):
                self._note_delivered(namespace, job.resource_version)
                self._view.apply(job)
            case Deleted(namespace, key, uid, resource_version):
                self._note_delivered(namespace, resource_version)
                self._view.remove(key, uid, resource_version)
            case Failed(namespace, error):
                self._errors[namespace].set(str(error), namespace=namespace)
                self._view.fail_list(namespace)
                return
        if self._errors[namespace].text:
            self._errors[namespace].clear()
            _log.info("jobs are watched again", namespace=namespace)


def _number(resource_version: str) -> int:
    return int(resource_version) if resource_version.isdecimal() else 0

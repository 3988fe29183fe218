"""The view: every Job of ours as a Remediation, kept true by list and watch.

Each replica has one. Nothing is decided from it that could heal twice: names collide in the API
server, and admission tests what it rests on. The view makes decisions quick, not safe.

A view never goes back: an event that a write of our own has overtaken is dropped, so that a
leader sees its own admissions at once. Resource versions are compared as numbers for this,
which Kubernetes has promised since 1.35 and all versions before it kept in practice. Only the
cluster itself can go back, when its etcd is restored from a backup: a list that is older than what
the feed told before it says so, and is taken as it is.

A watch can also fall silent without breaking, behind a proxy that keeps its end open. It is found
out by what this replica knows from its own writes and reads: news of those must come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from openfero_gitops.domain.feed import Changed, Gone, Listed, Lost
from openfero_gitops.domain.remediation import JobKey
from openfero_gitops.jobs.observe import observe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

    from openfero_gitops.domain.feed import News
    from openfero_gitops.domain.remediation import Remediation

_log = structlog.get_logger(__name__)

#: Seconds in which a watch that is no more behind than usual tells of something.
_SILENCE: Final = 15.0
#: Seconds between two looks for one that does not.
_LOOK: Final = 5.0
#: Of so many deleted Jobs a late answer is known for what it is; it comes within seconds.
_REMEMBERED_GONE: Final = 10_000


class View:
    """Remediations by Job, by incident, and the news of their changes."""

    def __init__(self) -> None:
        """Begin empty and not current."""
        self._by_key: dict[JobKey, Remediation] = {}
        self._by_incident: dict[str, dict[JobKey, None]] = defaultdict(dict)
        self._gone: dict[str, int] = {}  # uids, and the version at which they were not there
        self._newest: dict[str, int] = {}
        self._listed: dict[str, bool] = {}
        #: How often something has changed.
        self.changes = 0
        self._waiters: dict[asyncio.Event, None] = {}  # in order, as all that follows from it

    def expect(self, namespaces: Iterable[str]) -> None:
        """Name the namespaces without which the view is not whole."""
        self._listed = dict.fromkeys(namespaces, False)

    @property
    def whole(self) -> bool:
        """Whether every namespace has been listed at least once."""
        return bool(self._listed) and all(self._listed.values())

    def __iter__(self) -> Iterator[Remediation]:
        """Every remediation known."""
        return iter(list(self._by_key.values()))

    def __contains__(self, key: object) -> bool:
        """Whether a Job is one of ours."""
        return key in self._by_key

    def __len__(self) -> int:
        """How many remediations are known."""
        return len(self._by_key)

    def get(self, key: JobKey) -> Remediation | None:
        """One remediation by its Job."""
        return self._by_key.get(key)

    def of_incident(self, incident: str) -> list[Remediation]:
        """The remediations of one incident."""
        return [self._by_key[key] for key in self._by_incident.get(incident, ())]

    def newest(self, namespace: str) -> int:
        """The newest version of anything that was taken in of a namespace."""
        return self._newest.get(namespace, 0)

    def has(self, key: JobKey, uid: str, resource_version: str) -> bool:
        """Whether a Job's state of this version, or a newer one, is known."""
        known = self._by_key.get(key)
        return (
            known is not None
            and known.uid == uid
            and _number(resource_version) <= _number(known.resource_version)
        )

    def apply(self, remediation: Remediation) -> bool:
        """Take in a Job's newer state; an older one is dropped, also one of an older namesake."""
        version = _number(remediation.resource_version)
        known = self._by_key.get(remediation.key)
        if known is not None and version <= _number(known.resource_version):
            return False
        if version <= self._gone.get(remediation.uid, -1):
            return False  # the answer to a write of ours that its deletion has overtaken
        self._forget(known)
        self._newest[remediation.key.namespace] = max(
            version, self.newest(remediation.key.namespace)
        )
        self._by_key[remediation.key] = remediation
        self._by_incident[remediation.incident][remediation.key] = None
        self._tell()
        return True

    def remove(self, key: JobKey, uid: str, resource_version: str = "") -> Remediation | None:
        """Forget a Job that is gone, since a resource version; a namesake after it stays."""
        if resource_version:
            self._gone[uid] = _number(resource_version)
            if len(self._gone) > _REMEMBERED_GONE:
                del self._gone[next(iter(self._gone))]
        known = self._by_key.get(key)
        if known is None or known.uid != uid:
            return None
        self._forget(known)
        self._tell()
        return known

    def _forget(self, known: Remediation | None) -> None:
        if known is None:
            return
        del self._by_key[known.key]
        del self._by_incident[known.incident][known.key]
        if not self._by_incident[known.incident]:
            del self._by_incident[known.incident]

    def replace(
        self, namespace: str, remediations: Iterable[Remediation], resource_version: str
    ) -> None:
        """Take in a list of a whole namespace, made at a resource version."""
        listed = {remediation.key: remediation for remediation in remediations}
        for key, known in list(self._by_key.items()):
            gone = key.namespace == namespace and key not in listed
            # What we wrote after the list was made is not in it, and is there.
            if gone and _number(known.resource_version) <= _number(resource_version):
                self.remove(key, known.uid, resource_version)
        for remediation in listed.values():
            self.apply(remediation)
        self._listed[namespace] = True
        self._tell()

    def begin_anew(self, namespace: str) -> None:
        """Forget a namespace whose versions count from an earlier point again.

        Of what is not known to be there nothing is known: a list is to follow at once.
        """
        for key, known in list(self._by_key.items()):
            if key.namespace == namespace:
                self._forget(known)
        self._gone.clear()  # what was deleted then may be there again
        self._newest.pop(namespace, None)

    def subscribe(self) -> asyncio.Event:
        """An event that is set at every change; its owner clears it, and ends it."""
        event = asyncio.Event()
        event.set()
        self._waiters[event] = None
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """End a subscription."""
        self._waiters.pop(event, None)

    def _tell(self) -> None:
        self.changes += 1
        for event in self._waiters:
            event.set()


class Feed(Protocol):
    """Where the Jobs' changes come from: a list of each namespace, then its changes, for ever."""

    def follow(self) -> AsyncGenerator[News]:
        """Every change, until closed."""
        ...


class Observer:
    """Keeps a view true, from a feed that never ends by itself."""

    def __init__(self, feed: Feed, view: View, namespaces: Iterable[str]) -> None:
        """Take the feed of the namespaces that the view must hold."""
        self._feed = feed
        self._view = view
        self._lost: dict[str, str] = {}
        self._heard: dict[str, tuple[int, float]] = {}  # the newest version, and when it came
        self._newest: dict[str, int] = {}  # the newest version that the feed itself has told of
        view.expect(namespaces)

    @property
    def trouble(self) -> Mapping[str, str]:
        """Per namespace that cannot be watched now, why."""
        return dict(self._lost)

    async def run(self) -> None:
        """Take in news until cancelled."""
        while True:
            reading = asyncio.create_task(self._follow(), name="read the feed")
            try:
                while not reading.done() and not self._silent():
                    await asyncio.wait({reading}, timeout=_LOOK)
                if reading.done():
                    return reading.result()
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._feed.follow()) as news:
            async for item in news:
                self._take(item)

    def _silent(self) -> bool:
        """Whether a watch tells nothing, not even of what is known already; then list again."""
        now = asyncio.get_running_loop().time()
        silent = [
            namespace
            for namespace, (version, at) in self._heard.items()
            if now - at > _SILENCE and version < self._view.newest(namespace)
        ]
        for namespace in silent:
            del self._heard[namespace]
            self._note(namespace, "its watch is silent: it told nothing of a Job that was written")
        return bool(silent)

    def _note(self, namespace: str, words: str) -> None:
        if namespace not in self._lost:
            _log.warning("jobs cannot be watched", namespace=namespace, error=words)
        self._lost[namespace] = words

    def _hear(self, namespace: str, resource_version: str) -> None:
        now = asyncio.get_running_loop().time()
        version = _number(resource_version)
        self._heard[namespace] = (version, now)
        self._newest[namespace] = max(version, self._newest.get(namespace, 0))

    def _take(self, news: News) -> None:
        match news:
            case Listed(namespace, items, resource_version):
                if _number(resource_version) < self._newest.get(namespace, 0):
                    # A list follows what the feed told before, and is no older: so time went back.
                    _log.warning(
                        "the API server's state is older than it was, as after etcd was restored "
                        "from a backup: the Jobs are taken as they are now",
                        namespace=namespace,
                    )
                    self._view.begin_anew(namespace)
                    del self._newest[namespace]
                self._view.replace(namespace, map(observe, items), resource_version)
                self._hear(namespace, resource_version)
            case Changed(namespace, job):
                metadata = job["metadata"]
                self._hear(namespace, metadata["resourceVersion"])
                key = JobKey(metadata["namespace"], metadata["name"])
                # The echo of a write of our own is not read a second time.
                if not self._view.has(key, metadata["uid"], metadata["resourceVersion"]):
                    self._view.apply(observe(job))
            case Gone(namespace, job):
                metadata = job["metadata"]
                self._hear(namespace, metadata.get("resourceVersion", ""))
                self._view.remove(
                    JobKey(metadata["namespace"], metadata["name"]),
                    metadata.get("uid", ""),
                    metadata.get("resourceVersion", ""),
                )
            case Lost(namespace, error):
                self._note(namespace, str(error))
                return
        if self._lost.pop(namespace, None) is not None:
            _log.info("jobs are watched again", namespace=namespace)


def _number(resource_version: str) -> int:
    return int(resource_version) if resource_version.isdecimal() else 0

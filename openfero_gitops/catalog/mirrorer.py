"""Mirror the active catalog to ConfigMaps: the leader writes it, a starting replica reads it.

New ConfigMaps are created first, then the head is switched, then ConfigMaps that it no longer
names are deleted: a writer that dies in between leaves a complete catalog.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.background import OnChange, wait_for_event
from openfero_gitops.catalog.mirror import (
    HEAD,
    SELECTOR,
    MirrorReader,
    content_digest,
    digest_in_name,
    head_report,
    is_shard_name,
    read_history,
    read_location,
    read_refused,
    read_revision,
    shard_names,
    with_history,
    with_refused,
    with_report,
    write_mirror,
)
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Snapshot
from openfero_gitops.domain.errors import ApiError, SourceError
from openfero_gitops.domain.sync_report import report_members, sync_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog, Revision
    from openfero_gitops.domain.sync import RefusedRevision, SyncStatus
    from openfero_gitops.ports import ConfigMaps, RunningTerm

_log = structlog.get_logger(__name__)

#: Between checks that the mirror is still as it was written.
_CHECK_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0
_NEVER: Final = datetime(1, 1, 1, tzinfo=UTC)
#: ConfigMaps of earlier mirrors that are deleted in one pass.
_MAX_DELETED_AT_ONCE: Final = 1000
_MAX_READS: Final = 10  # of a mirror that is replaced while it is read


def no_keys() -> Sequence[bytes]:
    """The keys of a mirror without signature."""
    return ()


async def load_mirror(
    store: ConfigMaps, keys: Callable[[], Sequence[bytes]] = no_keys
) -> tuple[Snapshot, RefusedRevision | None] | None:
    """Load the mirror and check every digest; None if there is no mirror.

    If there are `keys`, it must be signed with one of them.

    Raises:
        SourceError: it is damaged.
        ApiError: it cannot be read.
    """
    for reads in range(1, _MAX_READS + 1):
        head = await store.get(HEAD)
        if head is None:
            return None
        try:
            reader = MirrorReader(head, keys())
            for name in reader.names:
                reader.add(name, await store.get(name))
            return reader.snapshot(), read_refused(head)
        except SourceError:
            # If the mirror was replaced in the meantime, shards of the old one may be gone. It is
            # not replaced this often, unless somebody wants to keep replicas from starting.
            if reads == _MAX_READS or _version(await store.get(HEAD)) == _version(head):
                raise
    raise AssertionError


async def restore_from_mirror(
    store: ConfigMaps, syncer: Syncer, keys: Callable[[], Sequence[bytes]] = no_keys
) -> None:
    """Restore the catalog of a starting replica from the mirror.

    A mirror of another repository, ref or path than the settings name is not used. If the files are
    damaged, the head still has the active revision, and whether a refused one paused admission.

    Raises:
        ApiError: it cannot be read.
    """
    try:
        mirrored = await load_mirror(store, keys)
        if mirrored is not None:
            await syncer.restore(*mirrored)
    except SourceError as error:
        _log.warning("mirror not usable", error=str(error))
    else:
        return
    if syncer.status.unused_mirror:
        return
    head = await store.get(HEAD)
    if head is not None:
        try:
            shard_names(head, keys())
            if not syncer.follows(read_location(head)):
                return
            syncer.restore_revision(read_revision(head, keys()))
            syncer.restore_refused(read_refused(head))
        except SourceError as error:
            _log.warning("cannot read the active revision from the mirror", error=str(error))


def _newest_activation(history: RevisionHistory) -> datetime:
    return max((entry.since for entry in history.activations[-1:]), default=_NEVER)


def _version(config_map: dict[str, Any] | None) -> str | None:
    return config_map["metadata"]["resourceVersion"] if config_map else None


class _Stored:
    """The ConfigMaps with the mirror's label: metadata, of which only what is needed is kept.

    Others can create such ConfigMaps. Those that are named like a shard cannot be distinguished
    from those of an earlier mirror, and are deleted like them; the rest is left alone.
    """

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.current: dict[str, dict[str, Any]] = {}
        self.stale: dict[str, dict[str, Any]] = {}
        self.unrelated = 0
        self.example = ""

    @property
    def versions(self) -> dict[str, str]:
        """The resourceVersion of each current ConfigMap by its name."""
        return {name: body["metadata"]["resourceVersion"] for name, body in self.current.items()}

    def read(self, config_map: dict[str, Any]) -> None:
        """Sort a ConfigMap by its name."""
        metadata = config_map["metadata"]
        name = metadata["name"]
        version = {key: metadata[key] for key in ("name", "uid", "resourceVersion")}
        if name in self.names:
            self.current[name] = {"metadata": version}
        elif not is_shard_name(name):
            self.unrelated += 1
            self.example = name
        elif len(self.stale) < _MAX_DELETED_AT_ONCE:
            self.stale[name] = {"metadata": version}


@dataclass(frozen=True, slots=True)
class _Mirrored:
    """A catalog, what else the mirror is made from, and the version of each ConfigMap by name."""

    catalog: Catalog
    other: tuple[object, ...]
    versions: dict[str, str]


class Mirrorer:
    """Writes the active catalog to ConfigMaps while this replica leads."""

    def __init__(
        self,
        store: ConfigMaps,
        syncer: Syncer,
        keys: Callable[[], Sequence[bytes]] = no_keys,
        *,
        tolerance: timedelta = timedelta(0),
    ) -> None:
        """Prepare to mirror the catalog of `syncer`; the first of `keys` signs the mirror.

        `tolerance` is how much earlier or later than the leader a replica may use a revision.
        """
        self._store = store
        self._keys = keys
        self._syncer = syncer
        self._tolerance = tolerance
        # The version of the head that was last read, and its record of active revisions.
        self._recorded = ("", RevisionHistory())
        self._changed = asyncio.Event()
        self._error = OnChange(_log.warning, "mirror not written")
        self._unrelated = OnChange(
            _log.warning, "ConfigMaps with the mirror's label are not part of it, and are ignored"
        )
        # The resourceVersion and the digest of the data that were last read, by name.
        self._verified: dict[str, tuple[str, str]] = {}
        self._mirrored: _Mirrored | None = None  # what was last found to be complete
        syncer.on_change(self._changed.set)
        syncer.on_refusal(self._changed.set)

    async def run(self, term: RunningTerm) -> None:
        """Keep the mirror current until cancelled."""
        try:
            while True:
                self._changed.clear()
                seconds = _CHECK_SECONDS
                try:
                    await self._update(term)
                except (ApiError, SourceError) as error:
                    self._error.set(str(error))
                    seconds = _RETRY_SECONDS
                else:
                    self._error.clear()
                await wait_for_event(self._changed, seconds)
        finally:
            self._mirrored = None  # it would keep an old catalog in memory

    async def _update(self, term: RunningTerm) -> None:
        catalog, status = self._syncer.catalog, self._syncer.status
        # A catalog from the mirror proves nothing about Git, so it is not written.
        if catalog is not None and status.origin == "git":
            await self._write(catalog, term)
        elif status.error is not None:
            await self._write_failure(status, term)

    async def _write_failure(self, status: SyncStatus, term: RunningTerm) -> None:
        """Record a failed sync in the head; the mirrored files stay as they are."""
        head = await self._store.get(HEAD)
        if head is None:
            return
        shard_names(head, self._keys())
        if not self._syncer.follows(read_location(head)):
            return
        namespace, key = self._store.namespace, self._signing_key()
        reported = head_report(head)
        report = replace(reported, error=status.error or "", failing_since=status.failing_since)
        refused = status.refused
        is_refusal = refused is not None and refused.reason == status.error
        updated = head
        if refused is not None and is_refusal and read_refused(head) != refused:
            updated = with_refused(updated, namespace, refused, key)
        if report_members(report) != report_members(reported):
            updated = with_report(updated, namespace, report, key)
        if updated is not head:
            await self._store.put(updated, term.check)

    def _signing_key(self) -> bytes:
        return next(iter(self._keys()), b"")

    async def _write(self, catalog: Catalog, term: RunningTerm) -> None:
        status, scope, key = self._syncer.status, self._syncer.scope, self._signing_key()
        report = sync_report(
            status,
            catalog,
            kubernetes_version=scope.kubernetes_version,
            jobs_namespace=scope.jobs_namespace,
            allowed_namespaces=scope.allowed_namespaces,
        )
        other = (status.refused, status.active_since, report, key)
        if await self._is_complete(catalog, other):
            return
        mirror = write_mirror(
            Snapshot(catalog.revision, catalog.root, catalog.files),
            self._store.namespace,
            status.refused,
            key,
        )
        stored = await self._list({*mirror.shards.names, HEAD})
        changed = False
        for name in mirror.shards.names:
            if not self._is_verified(name, digest_in_name(name), stored.current.get(name)):
                changed |= await self._write_shard(mirror.shards.named(name), stored, term)
        head = with_report(mirror.head, self._store.namespace, report, key)
        head = await self._with_history(head, catalog.revision, stored)
        changed |= await self._write_head(head, stored, term)
        for shard in stored.stale.values():
            term.check()
            await self._store.delete(shard)
            changed = True
        self._verified = {n: seen for n, seen in self._verified.items() if n in stored.names}
        self._mirrored = None if changed else _Mirrored(catalog, other, stored.versions)
        if changed:
            commit = catalog.revision.commit
            _log.info("mirror written", commit=commit, config_maps=len(stored.names))

    async def _is_complete(self, catalog: Catalog, other: tuple[object, ...]) -> bool:
        """Whether the ConfigMaps are those that were last verified, and for the same content.

        Making those of ten thousand files takes almost a second of processor time.
        """
        last = self._mirrored
        if last is None or last.catalog is not catalog or last.other != other:
            return False
        stored = await self._list(set(last.versions))
        return stored.versions == last.versions and not stored.stale

    async def _list(self, names: set[str]) -> _Stored:
        """List the ConfigMaps with the mirror's label; `names` are those of the mirror."""
        stored = _Stored(names)
        await self._store.labelled(SELECTOR, stored.read)
        if stored.unrelated:
            message = f"{stored.unrelated} of them, such as {stored.example!r}"
            self._unrelated.set(message, label=keys.MIRROR)
        return stored

    async def _with_history(
        self, head: dict[str, Any], revision: Revision, stored: _Stored
    ) -> dict[str, Any]:
        """Add the record of active revisions, with the active commit, to a head."""
        since = self._syncer.status.active_since
        if not revision.commit or since is None:  # a folder has no commits
            return head
        version = stored.current.get(HEAD, {}).get("metadata", {}).get("resourceVersion", "")
        if version != self._recorded[0]:
            # A head that was deleted, or replaced by an older one, does not shorten the record.
            newest = max(self._recorded[1], await self._read_history(), key=_newest_activation)
            self._recorded = (version, newest)
        history = self._recorded[1].activate(
            revision.commit, since, self._tolerance, revision.author, revision.verified_signer
        )
        return with_history(head, self._store.namespace, history, self._signing_key())

    async def _read_history(self) -> RevisionHistory:
        head = await self._store.get(HEAD)
        if head is None:
            return RevisionHistory()
        try:
            return read_history(head, self._keys())
        except SourceError as error:
            _log.warning("the record of active revisions begins anew", error=str(error))
            return RevisionHistory()

    async def _write_shard(self, shard: dict[str, Any], stored: _Stored, term: RunningTerm) -> bool:
        """Create a shard unless it is there; return whether something was written."""
        existing = stored.current.get(shard["metadata"]["name"])
        if existing is not None:
            if await self._is_current(shard, existing):
                return False
            # Its name is the digest of what it should contain, and its labels say it is ours.
            term.check()
            await self._store.delete(existing)
        await self._create(shard, term)
        return True

    async def _write_head(self, head: dict[str, Any], stored: _Stored, term: RunningTerm) -> bool:
        existing = stored.current.get(HEAD)
        if existing is None:
            await self._create(head, term)
        elif await self._is_current(head, existing):
            return False
        else:
            await self._store.put(head, term.check)
        return True

    async def _is_current(self, body: dict[str, Any], stored: dict[str, Any]) -> bool:
        """Whether a stored ConfigMap has the right data; each version of it is read once."""
        name, digest = body["metadata"]["name"], content_digest(body)
        if self._is_verified(name, digest, stored):
            return True
        existing = await self._store.get(name)
        if existing is None or existing.get("data") != body["data"]:
            return False
        self._verified[name] = (existing["metadata"]["resourceVersion"], digest)
        return True

    def _is_verified(self, name: str, digest: str, stored: Mapping[str, Any] | None) -> bool:
        """Whether the version that is stored was read, and has the data of a digest."""
        version = stored["metadata"]["resourceVersion"] if stored is not None else None
        return self._verified.get(name) == (version, digest)

    async def _create(self, body: dict[str, Any], term: RunningTerm) -> None:
        term.check()
        if not await self._store.create(body):
            raise SourceError(
                f"ConfigMap {self._store.namespace}/{body['metadata']['name']} exists without the "
                f"label {keys.MIRROR}; delete it, so that the catalog can be mirrored"
            )

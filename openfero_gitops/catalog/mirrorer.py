"""The leader keeps the catalog's mirror true; a starting replica reads it.

New ConfigMaps are created first, the head is switched last, and what it no longer names is
removed after: a writer that dies between any two of these leaves a whole catalog.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.catalog.mirror import (
    HEAD,
    SELECTOR,
    Mirror,
    read_mirror,
    read_refused,
    read_revision,
    shard_names,
    with_refused,
    write_mirror,
)
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Snapshot
from openfero_gitops.domain.errors import ApiError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync import RefusedRevision
    from openfero_gitops.ports import ConfigMaps, RunningTerm

_log = structlog.get_logger(__name__)

#: Seconds between looks at whether the mirror is still what was written.
_LOOK_AGAIN: Final = 60.0
_AFTER_FAILURE: Final = 5.0


def no_keys() -> Sequence[bytes]:
    """A mirror that is not marked."""
    return ()


async def load_mirror(
    store: ConfigMaps, keys: Callable[[], Sequence[bytes]] = no_keys
) -> tuple[Snapshot, RefusedRevision | None] | None:
    """What the mirror holds, every digest checked; None where there is no mirror.

    With `keys` it must be marked by one of them.

    Raises:
        SourceError: it is damaged.
        ApiError: it could not be read.
    """
    while True:
        head = await store.get(HEAD)
        if head is None:
            return None
        try:
            names = shard_names(head, keys())
            shards = [shard for name in names if (shard := await store.get(name)) is not None]
            return read_mirror(head, shards, keys()), read_refused(head)
        except SourceError:
            # Read while it was switched, the old one seems to lack what has been removed.
            if _version(await store.get(HEAD)) == _version(head):
                raise


async def recall(
    store: ConfigMaps, syncer: Syncer, keys: Callable[[], Sequence[bytes]] = no_keys
) -> None:
    """Let a replica that starts take over what the mirror remembers.

    Where its files are damaged, its head still tells which revision was in force, and whether a
    refused one paused admission.

    Raises:
        ApiError: it could not be read.
    """
    try:
        loaded = await load_mirror(store, keys)
        if loaded is not None:
            await syncer.adopt(*loaded)
    except SourceError as error:
        _log.warning("the mirror cannot be used", error=str(error))
    else:
        return
    head = await store.get(HEAD)
    if head is not None:
        try:
            syncer.remember(read_revision(head, keys()))
            syncer.remember_refused(read_refused(head))
        except SourceError as error:
            _log.warning("the mirror does not tell what was in force", error=str(error))


def _version(config_map: dict[str, Any] | None) -> str | None:
    return config_map["metadata"]["resourceVersion"] if config_map else None


class Mirrorer:
    """Writes the catalog in force to ConfigMaps for as long as it leads."""

    def __init__(
        self,
        store: ConfigMaps,
        syncer: Syncer,
        keys: Callable[[], Sequence[bytes]] = no_keys,
    ) -> None:
        """Take the store and whose catalog is mirrored; the first of `keys` marks it."""
        self._store = store
        self._keys = keys
        self._syncer = syncer
        self._changed = asyncio.Event()
        self._trouble = ""
        syncer.on_change(self._changed.set)
        syncer.on_refusal(self._changed.set)

    async def run(self, term: RunningTerm) -> None:
        """Keep the mirror true until cancelled."""
        while True:
            self._changed.clear()
            pause = _LOOK_AGAIN
            try:
                await self._look(term)
            except (ApiError, SourceError) as error:
                if self._trouble != str(error):
                    _log.warning("the mirror was not written", error=str(error))
                self._trouble = str(error)
                pause = _AFTER_FAILURE
            else:
                self._trouble = ""
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _look(self, term: RunningTerm) -> None:
        catalog, status = self._syncer.catalog, self._syncer.status
        # A catalog that came from the mirror proves nothing about Git: it is not written.
        if catalog is not None and status.origin == "git":
            await self._write(catalog, term)
        elif status.refused is not None and status.refused.reason == status.error:
            await self._note_refused(status.refused, term)

    async def _note_refused(self, refused: RefusedRevision, term: RunningTerm) -> None:
        """Write down what Git said just now beside the files in force, which are not touched."""
        head = await self._store.get(HEAD)
        if head is None:
            return
        shard_names(head, self._keys())
        if read_refused(head) != refused:
            key = next(iter(self._keys()), b"")
            noted = with_refused(head, self._store.namespace, refused, key)
            await self._store.put(noted, term.check)

    async def _write(self, catalog: Catalog, term: RunningTerm) -> None:
        wanted = write_mirror(
            Snapshot(catalog.revision, catalog.root, catalog.files),
            self._store.namespace,
            self._syncer.status.refused,
            next(iter(self._keys()), b""),
        )
        there = {shard["metadata"]["name"]: shard for shard in await self._store.labelled(SELECTOR)}
        head = there.pop(HEAD, None)
        changed = await self._write_shards(wanted, there, term)
        if head is None:
            await self._create(wanted.head, term)
            changed = True
        elif head.get("data") != wanted.head["data"]:
            await self._store.put(wanted.head, term.check)
            changed = True
        names = {shard["metadata"]["name"] for shard in wanted.shards}
        for name, shard in there.items():
            if name not in names:
                term.check()
                await self._store.delete(shard)
                changed = True
        if changed:
            _log.info("mirror written", commit=catalog.revision.commit, config_maps=len(names) + 1)

    async def _write_shards(
        self, wanted: Mirror, there: dict[str, dict[str, Any]], term: RunningTerm
    ) -> bool:
        changed = False
        for shard in wanted.shards:
            name = shard["metadata"]["name"]
            if name in there:
                if there[name].get("data") == shard["data"]:
                    continue
                # Its name is the digest of what it should hold. It is ours by its labels.
                term.check()
                await self._store.delete(there[name])
            await self._create(shard, term)
            changed = True
        return changed

    async def _create(self, body: dict[str, Any], term: RunningTerm) -> None:
        term.check()
        if not await self._store.create(body):
            raise SourceError(
                f"ConfigMap {self._store.namespace}/{body['metadata']['name']} is there without "
                f"the label {keys.MIRROR}: remove it, so that the catalog can be mirrored"
            )

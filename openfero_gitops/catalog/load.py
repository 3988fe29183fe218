"""Build a catalog off the event loop, with older versions in place of broken files."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING

import structlog

from openfero_gitops.background import in_thread
from openfero_gitops.catalog.build import MAX_OLDER_BYTES, broken_paths, build_catalog
from openfero_gitops.catalog.effort import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.catalog.build import Scope
    from openfero_gitops.catalog.files import FileMemo
    from openfero_gitops.domain.catalog import Catalog, Snapshot, SourceFile

_log = structlog.get_logger(__name__)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Disable the garbage collector.

    A catalog is a million objects without cycles. While it is built, every run of the collector
    would visit them all: a quarter of the time, with all threads waiting.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


async def load_catalog(
    snapshot: Snapshot,
    scope: Scope,
    memo: FileMemo,
    versions: Callable[[str, str], Awaitable[Sequence[SourceFile]]] | None = None,
    *,
    previous_has_envelope: bool = False,
) -> Catalog:
    """Build the catalog of a snapshot; the last acceptable version of a broken file replaces it.

    Args:
        snapshot: the files of one revision.
        scope: the settings of the controller.
        memo: a cache of files read before; keeps those of this catalog.
        versions: returns older versions of the file at a path, newest first, before a commit.
        previous_has_envelope: whether there was an `openfero.yaml` before this revision.

    A cancelled caller waits until the thread has ended, which it does at once.

    Raises:
        CatalogRefusal: the envelope is broken, it was deleted, or the files exceed a budget.
        SourceError: the history cannot be read.
    """
    stop = threading.Event()
    watch = Watch(time.thread_time, stop.is_set)

    def build(older: Mapping[str, Sequence[SourceFile]]) -> Catalog:
        with without_collection():
            return build_catalog(
                snapshot,
                scope,
                older,
                previous_has_envelope=previous_has_envelope,
                memo=memo,
                watch=watch,
            )

    catalog = await in_thread(lambda: build({}), stop)
    if versions is not None and (paths := broken_paths(catalog)):
        older = await _older(versions, paths, snapshot.revision.commit)
        catalog = await in_thread(lambda: build(older), stop)
    memo.forget_unused()
    return catalog


async def _older(
    versions: Callable[[str, str], Awaitable[Sequence[SourceFile]]],
    paths: Iterable[str],
    commit: str,
) -> dict[str, Sequence[SourceFile]]:
    """Read older versions of files, as many as may be in memory at once."""
    older: dict[str, Sequence[SourceFile]] = {}
    size = 0
    for path in paths:
        kept = older[path] = []
        for version in await versions(path, commit):
            size += len(version.content)
            if size > MAX_OLDER_BYTES:
                _log.warning("older versions of broken files exceed the budget", path=path)
                return older
            kept.append(version)
    return older

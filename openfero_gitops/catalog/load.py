"""Build a catalog off the event loop, with older versions in place of broken files."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

from openfero_gitops.catalog.build import broken_paths, build_catalog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from openfero_gitops.catalog.build import Scope
    from openfero_gitops.catalog.files import FileMemo
    from openfero_gitops.domain.catalog import Catalog, Snapshot, SourceFile


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

    Raises:
        CatalogRefusal: the envelope is broken, or it was deleted.
        SourceError: the history cannot be read.
    """

    def build(older: Mapping[str, Sequence[SourceFile]]) -> Catalog:
        # A catalog is a million objects without cycles. While it is built, every run of the
        # garbage collector would visit them all: a quarter of the time, with all threads waiting.
        collects = gc.isenabled()
        gc.disable()
        try:
            return build_catalog(
                snapshot, scope, older, previous_has_envelope=previous_has_envelope, memo=memo
            )
        finally:
            if collects:
                gc.enable()

    catalog = await asyncio.to_thread(build, {})
    if versions is not None and (paths := broken_paths(catalog)):
        commit = snapshot.revision.commit
        older = {path: await versions(path, commit) for path in paths}
        catalog = await asyncio.to_thread(build, older)
    memo.forget_unused()
    return catalog

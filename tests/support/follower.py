"""The Git side of a replica: its source, its active catalog, and the mirror."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.mirrorer import Mirrorer, load_mirror, restore_from_mirror
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.location import Location
from openfero_gitops.domain.signature import Verify
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.tree import normalise
from tests.support import build
from tests.support.workers import in_background, new_term

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.sync import SyncStatus

NAMESPACE = "controller"
SCOPE = Scope(jobs_namespace=build.JOBS_NAMESPACE, allowed_namespaces=(build.JOBS_NAMESPACE,))
PATIENCE = 60.0  # seconds


class Follower:
    """Follows a ref of a repository; `settings` are those of its source.

    `keys` sign its mirror.
    """

    def __init__(
        self,
        url: str,
        cache: Path,
        *,
        cluster: MemoryCluster | None = None,
        follow_rewrites: bool = False,
        keys: Sequence[bytes] = (),
        **settings: Any,
    ) -> None:
        self.keys = keys
        self.cluster = cluster or MemoryCluster()
        self.store = ConfigMapStore(self.cluster, NAMESPACE)
        given = GitSettings(url, cache, **settings)
        self.source = GitSource(given)
        self.syncer = Syncer(
            source=self.source,
            scope=SCOPE,
            counts=self,
            now=lambda: datetime.now(UTC),
            clock=time.monotonic,
            follow_rewrites=follow_rewrites,
            signed=given.trust.verify is not Verify.NONE,
            location=Location(given.url, given.ref, normalise(given.path)),
        )

    def synced(self, status: SyncStatus) -> None:
        """Ignore the end of a sync."""

    async def sync(self) -> SyncStatus:
        """Sync once."""
        await self.syncer.sync()
        return self.syncer.status

    async def start(self) -> SyncStatus:
        """Start as a replica does: restore from the mirror, then sync."""
        await restore_from_mirror(self.store, self.syncer, lambda: self.keys)
        return await self.sync()

    async def mirror(self) -> None:
        """Write the mirror, as a leader does."""
        mirrorer = Mirrorer(self.store, self.syncer, lambda: self.keys)
        async with in_background(mirrorer.run(new_term("a"))), asyncio.timeout(PATIENCE):
            loaded = None
            while loaded is None or loaded[0].revision.commit != self.commit:
                await asyncio.sleep(0.01)  # the in-memory cluster sends no event here
                loaded = await load_mirror(self.store)

    async def aclose(self) -> None:
        """End it."""
        await self.source.aclose()

    @property
    def catalog(self) -> Catalog:
        """The active catalog."""
        assert self.syncer.catalog is not None, self.syncer.status.error
        return self.syncer.catalog

    @property
    def commit(self) -> str:
        """The active commit."""
        return self.catalog.revision.commit

    @property
    def error(self) -> str:
        """The error of the last sync, or an empty string."""
        return self.syncer.status.error or ""

    @property
    def active(self) -> dict[str, str]:
        """The commit of each active operario by its name."""
        return {operario.name: operario.origin.commit for operario in self.catalog.operarios}


@contextlib.asynccontextmanager
async def followers(
    repository: str, folder: Path, **common: Any
) -> AsyncIterator[Callable[..., Follower]]:
    """Yield a function that creates replicas of a cluster, each with its own cache."""
    cluster = MemoryCluster()
    async with contextlib.AsyncExitStack() as exits:
        count = 0

        def replica(**settings: Any) -> Follower:
            nonlocal count
            count += 1
            given = {"cluster": cluster} | common | settings
            made = Follower(repository, folder / f"cache{count}", **given)
            exits.push_async_callback(made.aclose)
            return made

        yield replica
    await cluster.close()

"""Git to the catalog in force: build the new one completely, then swap one reference.

Whatever fails, the catalog in force stays, and the reason is told.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from openfero_gitops.domain.errors import CatalogRefusal, OpenFeroError, SourceError
from openfero_gitops.domain.sync import RefusedRevision, SyncStatus
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.pipeline.catalog import broken_paths, build_catalog
from openfero_gitops.pipeline.envelope import NAME, says_paused
from openfero_gitops.pipeline.reading import Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from openfero_gitops.domain.catalog import Catalog, Snapshot, SourceFile
    from openfero_gitops.pipeline.catalog import Scope

_log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where operarios come from."""

    async def fetch(self) -> Snapshot:
        """The files at the ref's present commit; raises SourceError."""
        ...

    async def versions(self, path: str, commit: str, limit: int = 100) -> Sequence[SourceFile]:
        """Older versions of one file, newest first; raises SourceError."""
        ...

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether a commit continues an earlier one; raises SourceError."""
        ...


class Counts(Protocol):
    """What is counted about syncs."""

    def synced(self, status: SyncStatus) -> None:
        """A sync ended, well or not."""
        ...


class Syncer:
    """Holds the catalog in force, and replaces it."""

    def __init__(
        self,
        *,
        source: Source,
        scope: Scope,
        counts: Counts,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        follow_rewrites: bool = False,
    ) -> None:
        """Take the source and what a catalog depends on besides it; nothing is started.

        `follow_rewrites` takes a commit too that does not continue the one in force.
        """
        self._source = source
        self._scope = scope
        self._counts = counts
        self._now = now
        self._clock = clock
        self._follow_rewrites = follow_rewrites
        self._parser = Parser(scope.kubernetes_version)
        self._one_at_a_time = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self.catalog: Catalog | None = None
        self.status = SyncStatus()
        #: Set when the first try has ended.
        self.tried = asyncio.Event()
        #: How many tries in a row have failed.
        self.failures = 0
        #: Why the last try failed, where trying again will not help.
        self.lasting_error: str | None = None
        #: Whether the newest revision was refused, and says all the same that nothing may start.
        self.refused_and_paused = False

    def on_change(self, listener: Callable[[], None]) -> None:
        """Be told after each swap."""
        self._listeners.append(listener)

    async def sync(self) -> None:
        """Try once; never raises for what Git or its content does."""
        async with self._one_at_a_time:
            began = self._clock()
            moment = self._now()
            status = replace(self.status, last_attempt=moment)
            snapshot: Snapshot | None = None
            self.lasting_error = None
            try:
                snapshot = await self._source.fetch()
                await self._judge(snapshot)
                catalog = await self._build(snapshot)
            except OpenFeroError as error:
                self.failures += 1
                lasting = not isinstance(error, SourceError) or error.lasting
                self.lasting_error = str(error) if lasting else None
                if isinstance(error, CatalogRefusal):
                    self.refused_and_paused = error.paused
                if status.error != str(error):
                    _log.warning("sync failed; the catalog in force stays", error=str(error))
                status = replace(
                    status, error=str(error), failing_since=status.failing_since or moment
                )
                if snapshot is not None and isinstance(error, CatalogRefusal):
                    status = _refused(status, snapshot, str(error), moment)
                self.status = replace(status, seconds=self._clock() - began)
            else:
                self.failures = 0
                self.refused_and_paused = False
                status = replace(status, last_success=moment, seconds=self._clock() - began)
                self._take(catalog, "git", status)
            self._counts.synced(self.status)
            self.tried.set()

    async def adopt(self, snapshot: Snapshot, refused: RefusedRevision | None) -> None:
        """Take the mirror's files into force, where nothing else is.

        Raises:
            SourceError: they are no catalog.
        """
        async with self._one_at_a_time:
            # (Git is not asked for older versions: it may be down, and these are in force.)
            catalog = await asyncio.to_thread(
                build_catalog, snapshot, self._scope, parser=self._parser
            )
            if self.catalog is None:
                self._take(catalog, "mirror", replace(self.status, refused=refused))

    async def _judge(self, snapshot: Snapshot) -> None:
        """Refuse a revision that must not replace the one in force, whatever its files say."""
        if not snapshot.files:
            where = snapshot.root or "the repository's root"
            raise _refusal(
                snapshot,
                f"{where} holds no YAML or JSON file at commit {snapshot.revision.commit[:12]}: "
                "is --path the folder of the operarios?",
            )
        if self.catalog is None or self._follow_rewrites:
            return
        before, after = self.catalog.revision.commit, snapshot.revision.commit
        if before != after and not await self._source.is_ancestor(before, after):
            raise _refusal(
                snapshot,
                f"commit {after[:12]} does not continue {before[:12]}, which is in force: the ref "
                "was rewritten or moved back; merge the old commit into it, or allow it with "
                "--follow-rewrites",
            )

    async def _build(self, snapshot: Snapshot) -> Catalog:
        before = self.catalog
        # (What was mirrored are the files in force: what was found wrong is not among them.)
        if before and before.revision == snapshot.revision and self.status.origin == "git":
            return before
        had_envelope = await self._had_envelope(snapshot)
        catalog = await asyncio.to_thread(
            build_catalog,
            snapshot,
            self._scope,
            previous_has_envelope=had_envelope,
            parser=self._parser,
        )
        if broken := broken_paths(catalog):
            older = {
                path: await self._source.versions(path, snapshot.revision.commit) for path in broken
            }
            catalog = await asyncio.to_thread(
                build_catalog,
                snapshot,
                self._scope,
                older=older,
                previous_has_envelope=had_envelope,
                parser=self._parser,
            )
        return catalog

    async def _had_envelope(self, snapshot: Snapshot) -> bool:
        """Whether there was an `openfero.yaml`: in the catalog in force, else in the ancestors."""
        if self.catalog is not None:
            return self.catalog.has_envelope
        path = _envelope_path(snapshot)
        if any(file.path == path for file in snapshot.files):
            return True
        return bool(await self._source.versions(path, snapshot.revision.commit))

    def _take(self, catalog: Catalog, origin: str, status: SyncStatus) -> None:
        """Swap, and then tell; whoever is told finds the status of what is in force."""
        errors = sum(problem.is_error for problem in catalog.problems)
        before, self.catalog = self.catalog, catalog
        self.status = replace(
            status,
            revision=catalog.revision,
            origin=origin,
            in_force_since=status.in_force_since if catalog is before else self._now(),
            error=None,
            failing_since=None,
            operarios=len(catalog.operarios),
            problems=errors,
        )
        if catalog is before:
            return
        _log.info(
            "catalog in force",
            commit=catalog.revision.commit,
            before=before.revision.commit if before else "",
            origin=origin,
            operarios=len(catalog.operarios),
            errors=errors,
        )
        for listener in self._listeners:
            listener()


def _envelope_path(snapshot: Snapshot) -> str:
    return f"{snapshot.root}/{NAME}" if snapshot.root else NAME


def _refusal(snapshot: Snapshot, message: str) -> CatalogRefusal:
    """Refuse a revision for what it is; that it says `paused: true` counts all the same."""
    path = _envelope_path(snapshot)
    paused = any(says_paused(file.content) for file in snapshot.files if file.path == path)
    return CatalogRefusal(message, (), paused=paused)


def _refused(status: SyncStatus, snapshot: Snapshot, reason: str, moment: datetime) -> SyncStatus:
    """Remember a refused revision; one that is refused again for the same is as old as it was."""
    commit, known = snapshot.revision.commit, status.refused
    if known is not None and (known.commit, known.reason) == (commit, reason):
        return status
    return replace(status, refused=RefusedRevision(commit, reason, format_time(moment)))

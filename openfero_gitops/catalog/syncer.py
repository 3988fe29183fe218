"""Git to the catalog in force: build the new one completely, then swap one reference.

Whatever fails, the catalog in force stays, and the reason is told. Where none is in force yet,
the newest acceptable ancestor of a refused commit takes its place, so that a replica which
starts comes to what the others have.

A revision must continue the one before it: that which is in force here or, after a start, was
in force when the mirror was written. A new repository or ref in the settings is a person's word
that it need not.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.catalog.changes import changes_between
from openfero_gitops.catalog.envelope import NAME, says_paused
from openfero_gitops.catalog.files import FileMemo
from openfero_gitops.catalog.load import load_catalog
from openfero_gitops.domain.errors import (
    CatalogRefusal,
    OpenFeroError,
    SourceError,
    SourceUnavailable,
    Unusable,
)
from openfero_gitops.domain.pause import pause_in_git
from openfero_gitops.domain.signature import CLOCKS_APART
from openfero_gitops.domain.sync import Changes, Chapter, RefusedRevision, SyncStatus
from openfero_gitops.domain.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from openfero_gitops.catalog.build import Scope
    from openfero_gitops.domain.catalog import Catalog, Revision, Snapshot
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.ports import Counts, SourceWithHistory

_log = structlog.get_logger(__name__)

#: How much of the story is kept, and how many names of each kind the log has.
_CHAPTERS: Final = 20
_NAMED: Final = 20


class Syncer:
    """Holds the catalog in force, and replaces it."""

    def __init__(
        self,
        *,
        source: SourceWithHistory,
        scope: Scope,
        counts: Counts,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        follow_rewrites: bool = False,
        signed: bool = False,
    ) -> None:
        """Take the source and what a catalog depends on besides it; nothing is started.

        `follow_rewrites` takes a commit too that does not continue the one in force; `signed`
        says that the source lets in what carries a verified signer alone.
        """
        self._source = source
        self._scope = scope
        self._counts = counts
        self._now = now
        self._clock = clock
        self._follow_rewrites = follow_rewrites
        self._signed = signed
        #: What was in force last, here or when the mirror was written.
        self._known: Revision | None = None
        self._memo = FileMemo(scope.kubernetes_version)
        self._one_at_a_time = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._refusal_listeners: list[Callable[[], None]] = []
        self.catalog: Catalog | None = None
        self.status = SyncStatus()
        #: Set when the first try has ended.
        self.tried = asyncio.Event()
        #: How many tries in a row have failed.
        self.failures = 0
        #: Why the last try failed, where trying again will not help.
        self.lasting_error: str | None = None

    @property
    def pause(self) -> Pause | None:
        """The pause of admission that the active catalog or a refused revision asks for."""
        return pause_in_git(self.catalog, self.status.refused)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Be told after each swap."""
        self._listeners.append(listener)

    def on_refusal(self, listener: Callable[[], None]) -> None:
        """Be told after each sync that changed what is known of the last refused revision."""
        self._refusal_listeners.append(listener)

    async def sync(self) -> None:
        """Try once; never raises for what Git or its content does."""
        async with self._one_at_a_time:
            began = self._clock()
            moment = self._now()
            known = self.status.refused
            status = replace(self.status, last_attempt=moment)
            revision: Revision | None = None
            self.lasting_error = None
            steps = _Steps(self._clock)
            try:
                with steps.time("fetch"):
                    snapshot = await self._source.fetch()
                revision = snapshot.revision
                with steps.time("judge"):
                    await self._judge(snapshot)
                with steps.time("build"):
                    catalog: Catalog | None = await self._build(snapshot)
            except OpenFeroError as error:
                self.failures += 1
                lasting = not isinstance(error, SourceError) or error.lasting
                self.lasting_error = str(error) if lasting else None
                if isinstance(error, Unusable):
                    revision = error.revision
                if status.error != str(error):
                    _log.warning("sync failed; the catalog in force stays", error=str(error))
                status = replace(
                    status, error=str(error), failing_since=status.failing_since or moment
                )
                catalog = None
                if revision is not None and isinstance(error, CatalogRefusal | Unusable):
                    status = _refused(status, revision, error, moment)
                    catalog = await self._newest_acceptable(revision)
            else:
                self.failures = 0
                refused = replace(known, paused=False) if known else None
                status = replace(
                    status, last_success=moment, error=None, failing_since=None, refused=refused
                )
            if status.error is not None:
                status = _failed(status, revision, moment, steps.seconds)
            self.status = replace(status, seconds=self._clock() - began, steps=steps.seconds)
            if catalog is not None:
                self._take(catalog, "git", self.status)
            self._counts.synced(self.status)
            self.tried.set()
            if self.status.refused != known:
                for listener in self._refusal_listeners:
                    listener()

    def remember(self, revision: Revision) -> None:
        """Be told what was in force when the mirror was written: what comes must continue it.

        Without a verified signer, where one is demanded, it binds to nothing.
        """
        if self._known is None and (revision.verified_signer or not self._signed):
            self._known = revision

    def remember_refused(self, refused: RefusedRevision | None) -> None:
        """Be told of the last refusal before this replica: a pause outlasts a restart.

        Whoever wrote it, signed or not: to start nothing is the safe side.
        """
        if self.status.refused is None:
            self.status = replace(self.status, refused=refused)

    async def adopt(self, snapshot: Snapshot, refused: RefusedRevision | None) -> None:
        """Take the mirror's files into force, where nothing else is.

        Raises:
            SourceError: they are no catalog, or not signed where that is demanded.
        """
        async with self._one_at_a_time:
            signers = [snapshot.revision.verified_signer]
            signers += (file.verified_signer for file in snapshot.files)
            if self._signed and not all(signers):
                raise SourceError(
                    f"the mirror holds commit {snapshot.revision.commit[:12]}, of which no signer "
                    "was verified: it is not used while signatures are demanded"
                )
            self.remember(snapshot.revision)
            # (Git is not asked for older versions: it may be down, and these are in force.)
            catalog = await load_catalog(snapshot, self._scope, self._memo)
            if self.catalog is None:
                self.remember_refused(refused)
                self._take(catalog, "mirror", self.status)

    async def _newest_acceptable(self, refused: Revision) -> Catalog | None:
        """Where nothing is in force: the catalog of the newest ancestor that may be."""
        if self.catalog is not None:
            return None
        try:
            ancestors = await self._source.ancestors(refused.commit)
        except SourceError as error:
            _log.warning("the history was not read", error=str(error))
            return None
        for commit in ancestors:
            try:
                snapshot = await self._source.snapshot(commit)
                await self._judge(snapshot)
                return await self._build(snapshot)
            except SourceUnavailable as error:
                _log.warning("the history was not read", error=str(error))
                return None
            except SourceError:
                continue
        return None

    async def _judge(self, snapshot: Snapshot) -> None:
        """Refuse a revision that must not replace the one in force, whatever its files say."""
        if not snapshot.files:
            where = snapshot.root or "the repository's root"
            raise _refusal(
                snapshot,
                f"{where} holds no YAML or JSON file at commit {snapshot.revision.commit[:12]}: "
                "is --path the folder of the operarios?",
            )
        before, after = self._known, snapshot.revision
        if before is None or self._follow_rewrites or before.commit == after.commit:
            return
        if (before.repository, before.ref) != (after.repository, after.ref):
            return  # a person has said in the settings that another one counts
        names = f"commit {after.commit[:12]} %s {before.commit[:12]}, which is in force"
        if not await self._source.is_ancestor(before.commit, after.commit):
            moved = await self._went_back(before, after)
            if moved:
                raise _refusal(
                    snapshot,
                    names % "is older than" + ": the ref was moved back; undo a change by a new "
                    "commit (git revert), or allow it with --follow-rewrites",
                )
            how = "moved back or rewritten" if moved is None else "rewritten"
            raise _refusal(
                snapshot,
                names % "does not continue" + f": the ref was {how}, or leads to another history; "
                f"merge {before.commit[:12]} into it, or allow it with --follow-rewrites",
            )
        was, dated = parse_time(before.time), parse_time(after.time)
        # (What is in force may be of somebody whose clock is years ahead: that binds nobody.)
        if self._signed and was and dated and dated < min(was, self._now()) - CLOCKS_APART:
            # A key is held against the date that its holder wrote: one that is no longer valid
            # could sign for ever with a date at which it was.
            raise _refusal(
                snapshot,
                names % "is dated before" + f": {after.time} is more than a day before "
                f"{before.time}; sign a commit of today on top of it, or allow it with "
                "--follow-rewrites",
            )

    async def _went_back(self, before: Revision, after: Revision) -> bool | None:
        """Whether the ref went back; None where what was in force is not there any more."""
        try:
            return await self._source.is_ancestor(after.commit, before.commit)
        except SourceError:
            return None

    async def _build(self, snapshot: Snapshot) -> Catalog:
        before = self.catalog
        # (What was mirrored are the files in force: what was found wrong is not among them.)
        if before and before.revision == snapshot.revision and self.status.origin == "git":
            return before
        return await load_catalog(
            snapshot,
            self._scope,
            self._memo,
            self._source.versions,
            previous_has_envelope=await self._had_envelope(snapshot),
        )

    async def _had_envelope(self, snapshot: Snapshot) -> bool:
        """Whether there was an `openfero.yaml`: in the catalog in force, else in the ancestors."""
        if self.catalog is not None:
            return self.catalog.has_envelope
        path = _envelope_path(snapshot)
        if any(file.path == path for file in snapshot.files):
            return True
        return await self._source.existed(path, snapshot.revision.commit)

    def _take(self, catalog: Catalog, origin: str, status: SyncStatus) -> None:
        """Swap, and then tell; whoever is told finds the status of what is in force."""
        errors = sum(problem.is_error for problem in catalog.problems)
        before, self.catalog = self.catalog, catalog
        self._known = catalog.revision
        self.status = replace(
            status,
            revision=catalog.revision,
            origin=origin,
            in_force_since=status.in_force_since if catalog is before else self._now(),
            operarios=len(catalog.operarios),
            problems=errors,
        )
        if catalog is before:
            return
        changes = changes_between(before, catalog)
        moment = self._now()
        chapter = Chapter(
            at=moment,
            until=moment,
            times=1,
            before=before.revision.commit if before else "",
            after=catalog.revision.commit,
            origin=origin,
            changes=changes,
            steps=self.status.steps,
        )
        self.status = replace(self.status, story=(chapter, *self.status.story)[:_CHAPTERS])
        _log.info(
            "catalog in force",
            commit=chapter.after,
            before=chapter.before,
            origin=origin,
            operarios=len(catalog.operarios),
            errors=errors,
            added=len(changes.added),
            changed=list(changes.changed[:_NAMED]),
            removed=list(changes.removed[:_NAMED]),
            quarantined=list(changes.quarantined[:_NAMED]),
            seconds={step: round(took, 3) for step, took in chapter.steps.items()},
        )
        for listener in self._listeners:
            listener()


def _envelope_path(snapshot: Snapshot) -> str:
    return f"{snapshot.root}/{NAME}" if snapshot.root else NAME


def _refusal(snapshot: Snapshot, message: str) -> CatalogRefusal:
    """Refuse a revision for what it is; that it says `paused: true` counts all the same."""
    return CatalogRefusal(message, (), paused=_says_paused(snapshot))


def _says_paused(snapshot: Snapshot) -> bool:
    path = _envelope_path(snapshot)
    return any(says_paused(file.content) for file in snapshot.files if file.path == path)


def _refused(
    status: SyncStatus, revision: Revision, error: CatalogRefusal | Unusable, moment: datetime
) -> SyncStatus:
    """Remember a refused revision; one that is refused again for the same is as old as it was.

    One of which nothing could be read leaves a pause as it was.
    """
    known = status.refused
    refused = RefusedRevision(revision.commit, str(error), format_time(moment))
    if known is not None and (known.commit, known.reason) == (refused.commit, refused.reason):
        refused = known
    if isinstance(error, CatalogRefusal):
        paused = error.paused
    elif error.snapshot is not None:
        paused = _says_paused(error.snapshot)
    else:
        paused = known is not None and known.paused
    return replace(status, refused=replace(refused, paused=paused))


def _failed(
    status: SyncStatus, revision: Revision | None, moment: datetime, steps: Mapping[str, float]
) -> SyncStatus:
    """Tell of a failure; one that repeats the last is the same chapter."""
    after = revision.commit if revision else ""
    chapter = Chapter(
        at=moment,
        until=moment,
        times=1,
        before=status.revision.commit if status.revision else "",
        after=after,
        origin="git",
        changes=Changes(),
        steps=steps,
        error=status.error,
    )
    earlier = status.story
    if earlier and (earlier[0].error, earlier[0].after) == (chapter.error, after):
        last = earlier[0]
        chapter = replace(last, until=moment, times=last.times + 1, steps=steps)
        earlier = earlier[1:]
    return replace(status, story=(chapter, *earlier)[:_CHAPTERS])


class _Steps:
    """How long each step of a sync took; `seconds` by name, in their order."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Note how long a block takes, also where it fails."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self._clock() - began

"""Sync Git to the active catalog: build the new catalog completely, then swap one reference.

On any failure the active catalog is kept and the reason is reported. If no catalog is active yet,
the newest acceptable ancestor of a refused commit is activated, so that a starting replica
activates what the others have.

A revision must continue the previous one: the active revision or, after a start, the one that was
mirrored. If the repository or ref of the settings changed, it need not.
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
from openfero_gitops.domain.location import Location
from openfero_gitops.domain.pause import pause_in_git
from openfero_gitops.domain.signature import MAX_CLOCK_DIFFERENCE
from openfero_gitops.domain.sync import Changes, RefusedRevision, SyncRecord, SyncStatus
from openfero_gitops.domain.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from openfero_gitops.catalog.build import Scope
    from openfero_gitops.domain.catalog import Catalog, Revision, Snapshot, SourceFile
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.sync import BehaviorNote
    from openfero_gitops.ports import Counts, SourceWithHistory

    Roles = tuple[tuple[SourceFile, ...], tuple[SourceFile, ...]]
    NoteBehavior = Callable[[Catalog, Catalog, Roles | None], BehaviorNote]

_log = structlog.get_logger(__name__)

_MAX_RECORDS: Final = 20
_MAX_LOGGED_NAMES: Final = 20
_RBAC_GROUP: Final = b"rbac.authorization.k8s.io"


class Syncer:
    """Holds the active catalog and replaces it."""

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
        location: Location | None = None,
        note_behavior: NoteBehavior | None = None,
    ) -> None:
        """Prepare for syncs; nothing is started.

        `follow_rewrites` also accepts a commit that does not continue the active one. `signed`
        says that the source only returns files with a verified signer. `location` is that of the
        settings; a mirror of another one is not used. `note_behavior` describes what a catalog
        changes.
        """
        self._source = source
        self.scope = scope
        self._counts = counts
        self._now = now
        self._clock = clock
        self._follow_rewrites = follow_rewrites
        self._signed = signed
        self._location = location
        self._note_behavior = note_behavior
        #: The files of the active catalog with roles and bindings; None if they are not known.
        self._roles: tuple[SourceFile, ...] | None = None
        #: The last active revision, of this process or when the mirror was written.
        self._last_active: Revision | None = None
        self._memo = FileMemo(scope.kubernetes_version)
        self._one_at_a_time = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._refusal_listeners: list[Callable[[], None]] = []
        self.catalog: Catalog | None = None
        self.status = SyncStatus()
        #: Set when the first attempt has ended.
        self.attempted = asyncio.Event()
        #: The number of consecutive failures.
        self.failures = 0
        #: The error of the last attempt, if a retry cannot succeed.
        self.lasting_error: str | None = None
        self._blocked_until = 0.0  # by the clock that measures durations

    @property
    def block_seconds(self) -> float:
        """For how many more seconds the Git server wants no request; 0 for none."""
        return max(0.0, self._blocked_until - self._clock())

    @property
    def pause(self) -> Pause | None:
        """The pause of admission that the active catalog or a refused revision asks for."""
        return pause_in_git(self.catalog, self.status.refused)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call a listener after a new catalog was activated."""
        self._listeners.append(listener)

    def on_refusal(self, listener: Callable[[], None]) -> None:
        """Call a listener after a sync that changed `status.refused`."""
        self._refusal_listeners.append(listener)

    async def sync(self) -> None:
        """Sync once; does not raise for an error of Git or of its content."""
        async with self._one_at_a_time:
            began = self._clock()
            moment = self._now()
            refused_before = self.status.refused
            status = replace(self.status, last_attempt=moment)
            revision: Revision | None = None
            snapshot: Snapshot | None = None
            self.lasting_error = None
            steps = _Steps(self._clock)
            try:
                with steps.time("fetch"):
                    snapshot = await self._source.fetch()
                revision = snapshot.revision
                with steps.time("judge"):
                    await self._check(snapshot)
                with steps.time("build"):
                    catalog: Catalog | None = await self._load(snapshot)
            except OpenFeroError as error:
                self._record_error(error, is_new=status.error != str(error))
                if isinstance(error, Unusable):
                    revision = error.revision
                status = replace(
                    status, error=str(error), failing_since=status.failing_since or moment
                )
                catalog = None
                if revision is not None and isinstance(error, CatalogRefusal | Unusable):
                    status = _with_refusal(status, revision, error, moment)
                    catalog = await self._newest_acceptable(revision)
            else:
                self.failures = 0
                refused = replace(refused_before, paused=False) if refused_before else None
                status = replace(
                    status, last_success=moment, error=None, failing_since=None, refused=refused
                )
            if status.error is not None:
                status = _with_failure(status, revision, moment, steps.seconds)
            status = replace(status, seconds=self._clock() - began, steps=steps.seconds)
            if catalog is None:
                self.status = status
            else:
                await self._activate(catalog, "git", status, snapshot)
            self._counts.synced(self.status)
            self.attempted.set()
            if self.status.refused != refused_before:
                for listener in self._refusal_listeners:
                    listener()

    def _record_error(self, error: OpenFeroError, *, is_new: bool) -> None:
        """Count a failure, log it once, and remember for how long no request is wanted."""
        self.failures += 1
        lasting = not isinstance(error, SourceError) or error.lasting
        self.lasting_error = str(error) if lasting else None
        self._note_retry_after(error)
        if not is_new:
            return
        if self.catalog is not None:
            _log.warning(
                "sync failed and will be retried; the active catalog is kept", error=str(error)
            )
        elif lasting:
            _log.warning("sync failed; no catalog is active", error=str(error))
        else:
            _log.warning(
                "sync failed and will be retried; no catalog is active yet", error=str(error)
            )

    def _note_retry_after(self, error: OpenFeroError) -> None:
        if isinstance(error, SourceUnavailable) and error.retry_after:
            self._blocked_until = self._clock() + error.retry_after

    def follows(self, location: Location) -> bool:
        """Whether the settings name this repository, ref and path."""
        return self._location is None or self._location.is_same(location)

    def restore_revision(self, revision: Revision) -> None:
        """Take over the revision that was active when the mirror was written.

        The next revision must continue it. If signatures are required, a revision without a
        verified signer is ignored.
        """
        if self._last_active is None and (revision.verified_signer or not self._signed):
            self._last_active = revision

    def restore_refused(self, refused: RefusedRevision | None) -> None:
        """Take over the last refusal from the mirror, so that a pause survives a restart.

        It need not be signed: to start nothing is safe.
        """
        if self.status.refused is None:
            self.status = replace(self.status, refused=refused)

    async def restore(self, snapshot: Snapshot, refused: RefusedRevision | None) -> None:
        """Activate the files of the mirror, if no catalog is active.

        Files of another repository, ref or path than the settings name are not activated: what
        runs, and whether a rollout succeeds, would not depend on the settings.

        Raises:
            SourceError: they are no catalog, they are not signed although that is required, or they
                are of another location.
        """
        async with self._one_at_a_time:
            signers = [snapshot.revision.verified_signer]
            signers += (file.verified_signer for file in snapshot.files)
            if self._signed and not all(signers):
                raise SourceError(
                    f"the mirror contains commit {snapshot.revision.commit[:12]} without a "
                    "verified signer; it is not used because signatures are required"
                )
            self.restore_revision(snapshot.revision)
            revision = snapshot.revision
            mirrored = Location(revision.repository, revision.ref, snapshot.root)
            if not self.follows(mirrored):
                message = (
                    f"the mirror contains {mirrored}, but the settings name {self._location}: the "
                    "mirror is not used, and no operario is active until Git has been read once"
                )
                self.status = replace(self.status, unused_mirror=message)
                raise SourceError(message)
            # Without history: Git may be down, and the mirror has older versions already.
            catalog = await load_catalog(snapshot, self.scope, self._memo)
            if self.catalog is None:
                self.restore_refused(refused)
                await self._activate(catalog, "mirror", self.status)

    async def _newest_acceptable(self, refused: Revision) -> Catalog | None:
        """Load the newest acceptable ancestor, if no catalog is active."""
        if self.catalog is not None:
            return None
        try:
            ancestors = await self._source.ancestors(refused.commit)
        except SourceError as error:
            self._note_retry_after(error)
            _log.warning("cannot read the history", error=str(error))
            return None
        for commit in ancestors:
            try:
                snapshot = await self._source.snapshot(commit)
                await self._check(snapshot)
                return await self._load(snapshot)
            except SourceUnavailable as error:
                self._note_retry_after(error)
                _log.warning("cannot read the history", error=str(error))
                return None
            except SourceError:
                continue
        return None

    async def _check(self, snapshot: Snapshot) -> None:
        """Refuse a revision that must not replace the active one, whatever its files contain."""
        before, after = self._last_active, snapshot.revision
        if not snapshot.files:
            where = snapshot.root or "the repository"
            raise _refusal(
                snapshot,
                f"commit {after.commit[:12]} has no YAML or JSON file in {where}; check --path",
            )
        if before is None or self._follow_rewrites or before.commit == after.commit:
            return
        if (before.repository, before.ref) != (after.repository, after.ref):
            return  # the settings changed, which only an operator can do
        new, active = f"commit {after.commit[:12]}", f"the active commit {before.commit[:12]}"
        if not await self._source.is_ancestor(before.commit, after.commit):
            moved_back = await self._moved_back(before, after)
            if moved_back:
                raise _refusal(
                    snapshot,
                    f"{new} is older than {active}: the ref was moved back; use git revert to undo "
                    "a change, or set --follow-rewrites to allow this",
                )
            how = "moved back or rewritten" if moved_back is None else "rewritten"
            raise _refusal(
                snapshot,
                f"{new} does not continue {active}: the ref was {how}, or points to another "
                f"history; merge {before.commit[:12]} into it, or set --follow-rewrites to allow "
                "this",
            )
        before_time, after_time = parse_time(before.time), parse_time(after.time)
        # The date of the active commit may be years ahead: then it does not count.
        if (
            self._signed
            and before_time
            and after_time
            and after_time < min(before_time, self._now()) - MAX_CLOCK_DIFFERENCE
        ):
            # Whether a key was valid depends on the date that its holder wrote: with an expired
            # key one could otherwise sign forever, with an old date.
            raise _refusal(
                snapshot,
                f"{new} is dated {after.time}, more than a day before {active} ({before.time}); "
                "sign a new commit on top of it, or set --follow-rewrites to allow this",
            )

    async def _moved_back(self, before: Revision, after: Revision) -> bool | None:
        """Whether the ref was moved back; None if the last active commit no longer exists.

        Raises:
            SourceUnavailable: the history could not be read for now, which is no answer.
        """
        try:
            return await self._source.is_ancestor(after.commit, before.commit)
        except SourceUnavailable:
            raise
        except SourceError:
            return None

    async def _load(self, snapshot: Snapshot) -> Catalog:
        before = self.catalog
        # A catalog from the mirror has only the active files: it lacks the problems of others.
        if before and before.revision == snapshot.revision and self.status.origin == "git":
            return before
        return await load_catalog(
            snapshot,
            self.scope,
            self._memo,
            self._source.versions,
            previous_has_envelope=await self._had_envelope(snapshot),
        )

    async def _had_envelope(self, snapshot: Snapshot) -> bool:
        """Whether the active catalog, otherwise an ancestor, has an `openfero.yaml`."""
        if self.catalog is not None:
            return self.catalog.has_envelope
        path = _envelope_path(snapshot)
        if any(file.path == path for file in snapshot.files):
            return True
        return await self._source.existed(path, snapshot.revision.commit)

    async def _activate(
        self,
        catalog: Catalog,
        origin: str,
        status: SyncStatus,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Swap the catalog and its status, then call the listeners."""
        errors = sum(problem.is_error for problem in catalog.problems)
        changes = await asyncio.to_thread(changes_between, self.catalog, catalog)
        before, self.catalog = self.catalog, catalog
        self._last_active = catalog.revision
        self.status = replace(
            status,
            revision=catalog.revision,
            origin=origin,
            active_since=status.active_since if catalog is before else self._now(),
            operarios=len(catalog.operarios),
            problems=errors,
            unused_mirror="",
        )
        if catalog is before:
            return
        moment = self._now()
        record = SyncRecord(
            at=moment,
            until=moment,
            times=1,
            before=before.revision.commit if before else "",
            after=catalog.revision.commit,
            origin=origin,
            changes=changes,
            steps=self.status.steps,
        )
        self.status = replace(self.status, history=(record, *self.status.history)[:_MAX_RECORDS])
        _log.info(
            "catalog activated",
            commit=record.after,
            before=record.before,
            origin=origin,
            operarios=len(catalog.operarios),
            errors=errors,
            added=len(changes.added),
            changed=list(changes.changed[:_MAX_LOGGED_NAMES]),
            removed=list(changes.removed[:_MAX_LOGGED_NAMES]),
            quarantined=list(changes.quarantined[:_MAX_LOGGED_NAMES]),
            seconds={step: round(seconds, 3) for step, seconds in record.steps.items()},
        )
        for listener in self._listeners:
            listener()
        await self._describe(before, catalog, snapshot)

    async def _describe(
        self, before: Catalog | None, after: Catalog, snapshot: Snapshot | None
    ) -> None:
        """Add to the record of an activation what it changes in behavior."""
        old_roles, self._roles = self._roles, _roles_of(snapshot, after)
        note_behavior = self._note_behavior
        if before is None or note_behavior is None:
            return
        roles = None
        if old_roles is not None and self._roles is not None:
            roles = old_roles, self._roles
        try:
            behavior = await asyncio.to_thread(note_behavior, before, after, roles)
        except Exception:  # noqa: BLE001 - logged; nothing depends on the description
            _log.exception("cannot describe what the catalog changes")
            return
        latest, *earlier = self.status.history
        history = (replace(latest, behavior=behavior), *earlier)
        self.status = replace(self.status, history=history)


def _roles_of(snapshot: Snapshot | None, catalog: Catalog) -> tuple[SourceFile, ...] | None:
    """Return the files with roles and bindings of the snapshot that the catalog was built from."""
    if snapshot is None or snapshot.revision != catalog.revision:
        return None
    return tuple(file for file in snapshot.files if _RBAC_GROUP in file.content)


def _envelope_path(snapshot: Snapshot) -> str:
    return f"{snapshot.root}/{NAME}" if snapshot.root else NAME


def _refusal(snapshot: Snapshot, message: str) -> CatalogRefusal:
    """Refuse a revision; if it sets `paused: true`, admission is paused nevertheless."""
    return CatalogRefusal(message, (), paused=_says_paused(snapshot))


def _says_paused(snapshot: Snapshot) -> bool:
    path = _envelope_path(snapshot)
    return any(says_paused(file.content) for file in snapshot.files if file.path == path)


def _with_refusal(
    status: SyncStatus, revision: Revision, error: CatalogRefusal | Unusable, moment: datetime
) -> SyncStatus:
    """Record a refused revision; if it was refused for the same reason before, keep that time.

    If nothing of the revision could be read, an earlier pause is kept.
    """
    before = status.refused
    refused = RefusedRevision(revision.commit, str(error), format_time(moment))
    if before is not None and (before.commit, before.reason) == (refused.commit, refused.reason):
        refused = before
    if isinstance(error, CatalogRefusal):
        paused = error.paused
    elif error.snapshot is not None:
        paused = _says_paused(error.snapshot)
    else:
        paused = before is not None and before.paused
    return replace(status, refused=replace(refused, paused=paused))


def _with_failure(
    status: SyncStatus, revision: Revision | None, moment: datetime, steps: Mapping[str, float]
) -> SyncStatus:
    """Record a failure; one that repeats the previous one extends its record."""
    after = revision.commit if revision else ""
    record = SyncRecord(
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
    earlier = status.history
    if earlier and (earlier[0].error, earlier[0].after) == (record.error, after):
        last = earlier[0]
        record = replace(last, until=moment, times=last.times + 1, steps=steps)
        earlier = earlier[1:]
    return replace(status, history=(record, *earlier)[:_MAX_RECORDS])


class _Steps:
    """Measures the duration of each step of a sync."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: By name, in the order of the steps.
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Measure a block, also if it fails."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self._clock() - began

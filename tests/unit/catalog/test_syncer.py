"""Syncs from Git to the active catalog, with failing fetches and refused revisions."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from openfero_gitops.author.diff.brief import note_behavior
from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.mirror import read_mirror, read_refused, write_mirror
from openfero_gitops.catalog.schedule import Schedule
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.domain.catalog import Snapshot
from openfero_gitops.domain.errors import SourceError, Unusable
from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.sync import BehaviorNote, Changes, RefusedRevision, SyncStatus
from openfero_gitops.domain.timestamp import format_time
from tests.support import build
from tests.support.workers import (
    Commits,
    in_background,
    in_virtual_time,
    operario_file,
    seconds_so_far,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from openfero_gitops.catalog.effort import Watch
    from openfero_gitops.catalog.files import FileReading
    from openfero_gitops.catalog.syncer import NoteBehavior
    from openfero_gitops.domain.catalog import SourceFile

SCOPE = Scope(jobs_namespace=build.JOBS_NAMESPACE, allowed_namespaces=(build.JOBS_NAMESPACE,))
BROKEN = operario_file("disk").replace("restartPolicy: Never", "restartPolicy: Always")
ENVELOPE = "limits: {concurrent: 3}\n"
DOWN = "Git repository https://git.example/ops: no connection"


class Desk:
    """A syncer, its source, and the statuses that it reported."""

    def __init__(
        self,
        source: Commits | None = None,
        *,
        follow_rewrites: bool = False,
        note_behavior: NoteBehavior | None = None,
    ) -> None:
        self.source = source or Commits()
        self.counted: list[SyncStatus] = []
        self.syncer = Syncer(
            source=self.source,
            scope=SCOPE,
            counts=self,
            now=self.now,
            clock=seconds_so_far,
            follow_rewrites=follow_rewrites,
            note_behavior=note_behavior,
        )

    def synced(self, status: SyncStatus) -> None:
        """Record the status at the end of a sync."""
        self.counted.append(status)

    def now(self) -> datetime:
        """Return the wall clock time."""
        return build.NOW + timedelta(seconds=seconds_so_far())

    async def sync(self, **files: str | None) -> str:
        """Commit files (`disk` is disk.yaml), sync, and return the commit."""
        if files:
            self.source.commit({f"{name}.yaml": text for name, text in files.items()})
        await self.syncer.sync()
        return self.source.head

    def active(self) -> dict[str, str]:
        """Return the commit of each active operario by its name."""
        catalog = self.syncer.catalog
        return {} if catalog is None else {o.name: o.origin.commit for o in catalog.operarios}


def failing(error: Exception, *, operation: str = "fetch") -> Callable[[str], Awaitable[None]]:
    """Return a `trouble` that fails one operation."""

    async def trouble(name: str) -> None:
        if name == operation:
            raise error

    return trouble


async def nothing(_: str) -> None:
    """Let every operation succeed."""


class TestSwap:
    """A new revision replaces the active one."""

    @in_virtual_time
    async def test_a_new_commit_becomes_active(self) -> None:
        """Catalog, status and reported status are of the new commit."""
        desk = Desk()
        assert desk.syncer.catalog is None
        assert not desk.syncer.attempted.is_set()
        first = await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await asyncio.sleep(60)
        second = await desk.sync(node=operario_file("node"))
        catalog, status = desk.syncer.catalog, desk.syncer.status
        assert catalog is not None
        assert first != second == catalog.revision.commit
        assert desk.active() == {"openfero-disk-firing": second, "openfero-node-firing": second}
        assert catalog.envelope.limits.concurrent == 3
        assert status.revision == catalog.revision
        assert (status.origin, status.operarios, status.problems) == ("git", 2, 0)
        assert status.error is status.failing_since is status.refused is None
        assert status.last_success == status.active_since == desk.now()
        assert desk.counted[-1] == status
        assert desk.syncer.attempted.is_set()

    @in_virtual_time
    async def test_the_same_commit_is_not_activated_again(self) -> None:
        """A sync without a new commit succeeds, but does not notify listeners."""
        desk = Desk()
        calls: list[str] = []
        desk.syncer.on_change(lambda: calls.append("swap"))
        await desk.sync(disk=operario_file("disk"))
        before, since = desk.syncer.catalog, desk.syncer.status.active_since
        await asyncio.sleep(60)
        await desk.sync()
        assert desk.syncer.catalog is before
        assert desk.syncer.status.active_since == since
        assert desk.syncer.status.last_success == desk.now()
        assert calls == ["swap"]

    @in_virtual_time
    async def test_listeners_are_notified_after_each_swap(self) -> None:
        """A listener sees the new catalog and its status."""
        desk = Desk()
        seen: list[tuple[str, str]] = []

        def listener() -> None:
            catalog, revision = desk.syncer.catalog, desk.syncer.status.revision
            assert catalog is not None
            assert revision is not None
            seen.append((catalog.revision.commit, revision.commit))

        desk.syncer.on_change(listener)
        desk.syncer.on_change(listener)
        commits = [await desk.sync(disk=operario_file("disk", str(step))) for step in range(3)]
        desk.source.trouble = failing(SourceError(DOWN))
        await desk.sync(disk=operario_file("disk", "never read"))
        assert seen == [(commit, commit) for commit in commits for _ in range(2)]

    @in_virtual_time
    async def test_only_one_sync_runs_at_a_time(self) -> None:
        """Concurrent syncs run one after another, and all complete."""
        desk = Desk()
        desk.source.commit({"disk.yaml": operario_file("disk")})
        running = most = 0

        async def slow(operation: str) -> None:
            nonlocal running, most
            if operation == "fetch":
                running += 1
                most = max(most, running)
                await asyncio.sleep(5)
                running -= 1

        desk.source.trouble = slow
        await asyncio.gather(*(desk.sync() for _ in range(3)))
        assert most == 1
        assert len(desk.counted) == 3
        assert desk.counted[-1].seconds == pytest.approx(5)

    @in_virtual_time
    async def test_files_are_parsed_in_a_thread(self) -> None:
        """Parsing does not block the event loop, which serves the webhook."""
        desk = Desk()
        threads: set[int] = set()
        read = desk.syncer._memo.read

        def recorded(file: SourceFile, watch: Watch | None = None) -> FileReading:
            threads.add(threading.get_ident())
            return read(file, watch)

        desk.syncer._memo.read = recorded  # type: ignore[method-assign]
        await desk.sync(disk=operario_file("disk"), node=BROKEN)
        assert threads
        assert threading.get_ident() not in threads


ROLES = """\
kind: Role
apiVersion: rbac.authorization.k8s.io/v1
metadata: {name: r}
rules: [{apiGroups: [""], resources: [pods], verbs: [delete]}]
---
kind: RoleBinding
apiVersion: rbac.authorization.k8s.io/v1
metadata: {name: b}
subjects: [{kind: ServiceAccount, name: default}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
"""


class TestBehavior:
    """What an activated catalog changes, in words."""

    @in_virtual_time
    async def test_it_is_recorded_with_the_activation(self) -> None:
        """The words of `diff` are about the operarios and the roles beside them."""
        desk = Desk(note_behavior=note_behavior)
        await desk.sync(disk=operario_file("disk"))
        await desk.sync(pod=operario_file("pod"), roles=ROLES)

        latest, first = desk.syncer.status.history
        assert first.behavior is None
        assert latest.behavior is not None
        texts = [f"{line.operario} {line.text}" for line in latest.behavior.lines]
        assert any("openfero-pod-firing is new; it matches alert" in text for text in texts)
        assert any("may now delete pods" in text for text in texts)

    @in_virtual_time
    async def test_a_description_that_fails_stops_no_sync(self) -> None:
        """The catalog is active, and the error is logged."""

        def fail(*_: object) -> BehaviorNote:
            raise RuntimeError("a defect")

        desk = Desk(note_behavior=fail)
        await desk.sync(disk=operario_file("disk"))
        with capture_logs() as logs:
            await desk.sync(pod=operario_file("pod"))

        assert set(desk.active()) == {"openfero-disk-firing", "openfero-pod-firing"}
        assert desk.syncer.status.error is None
        assert "cannot describe what the catalog changes" in [log["event"] for log in logs]

    @in_virtual_time
    async def test_roles_unknown_to_the_mirror_are_no_change(self) -> None:
        """After a start from the mirror, only the operarios are compared."""
        source = Commits()
        first = Desk(source)
        await first.sync(disk=operario_file("disk"), roles=ROLES)
        catalog = first.syncer.catalog
        assert catalog is not None
        desk = Desk(source, note_behavior=note_behavior)
        await desk.syncer.restore(Snapshot(catalog.revision, catalog.root, catalog.files), None)
        await desk.sync(pod=operario_file("pod"))

        behavior = desk.syncer.status.history[0].behavior
        assert behavior is not None
        assert behavior.lines
        assert not [line for line in behavior.lines if "may now" in line.text]


class TestFailure:
    """A failed sync keeps the active catalog, and is reported."""

    @in_virtual_time
    async def test_a_failing_fetch_keeps_the_catalog(self) -> None:
        """A lasting error is logged once, and the status has the time of its start."""
        desk = Desk()
        commit = await desk.sync(disk=operario_file("disk"))
        success = desk.syncer.status.last_success
        desk.source.trouble = failing(SourceError(DOWN))
        with capture_logs() as logs:
            for _ in range(5):
                await asyncio.sleep(60)
                await desk.sync()
            desk.source.trouble = failing(SourceError("the password is wrong"))
            await desk.sync()
        status = desk.syncer.status
        assert desk.active() == {"openfero-disk-firing": commit}
        assert [entry["error"] for entry in logs if entry["log_level"] == "warning"] == [
            DOWN,
            "the password is wrong",
        ]
        assert status.error == "the password is wrong"
        assert status.failing_since == build.NOW + timedelta(seconds=60)
        assert status.last_attempt == build.NOW + timedelta(seconds=300)
        assert status.last_success == success
        assert status.refused is None
        assert (status.origin, status.operarios) == ("git", 1)

    @in_virtual_time
    async def test_a_success_clears_the_error(self) -> None:
        """A success clears the error even without a newer commit."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        desk.source.trouble = failing(SourceError(DOWN))
        await desk.sync()
        desk.source.trouble = nothing
        await asyncio.sleep(60)
        await desk.sync()
        assert desk.syncer.status.error is desk.syncer.status.failing_since is None
        assert desk.syncer.status.last_success == desk.now()
        desk.source.trouble = failing(SourceError(DOWN))
        await asyncio.sleep(60)
        await desk.sync()
        assert desk.syncer.status.failing_since == desk.now()

    @pytest.mark.parametrize("lasting", [True, False])
    @in_virtual_time
    async def test_a_lasting_error_of_the_first_sync_is_reported(self, *, lasting: bool) -> None:
        """`lasting_error` is set only for an error that a retry does not resolve."""
        error = SourceError(DOWN)
        error.lasting = lasting
        desk = Desk()
        desk.source.commit({"disk.yaml": operario_file("disk")})
        desk.source.trouble = failing(error)
        await desk.sync()
        assert desk.syncer.attempted.is_set()
        assert desk.syncer.catalog is None
        assert desk.syncer.lasting_error == (DOWN if lasting else None)
        desk.source.trouble = nothing
        await desk.sync()
        assert desk.syncer.lasting_error is None

    @in_virtual_time
    async def test_an_error_while_reading_older_versions_is_not_a_refusal(self) -> None:
        """If older versions cannot be read, the sync fails, but the revision is not refused."""
        desk = Desk()
        first = await desk.sync(disk=operario_file("disk"))
        desk.source.trouble = failing(SourceError("the disk is full"), operation="versions")
        await desk.sync(disk=BROKEN)
        assert desk.active() == {"openfero-disk-firing": first}
        assert desk.syncer.status.error == "the disk is full"
        assert desk.syncer.status.refused is None

    @in_virtual_time
    async def test_a_cancelled_sync_changes_nothing(self) -> None:
        """The next sync after a cancelled one can run."""
        desk = Desk()
        commit = await desk.sync(disk=operario_file("disk"))
        status = desk.syncer.status

        async def hang(_: str) -> None:
            await asyncio.Event().wait()

        desk.source.trouble = hang
        async with in_background(desk.sync()):
            await asyncio.sleep(60)
        assert desk.syncer.status == status
        assert desk.active() == {"openfero-disk-firing": commit}
        desk.source.trouble = nothing
        second = await desk.sync(node=operario_file("node"))
        assert desk.active()["openfero-node-firing"] == second


class TestQuarantine:
    """A broken file does not affect other files."""

    @in_virtual_time
    async def test_the_newest_valid_version_stays_active(self) -> None:
        """The older version is stale and has its own commit; other files are current."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk", "oldest"), node=operario_file("node"))
        good = await desk.sync(disk=operario_file("disk", "newer"))
        desk.source.commit({"disk.yaml": BROKEN})
        newest = await desk.sync(node=operario_file("node", "changed"))
        catalog = desk.syncer.catalog
        assert catalog is not None
        assert desk.active() == {"openfero-disk-firing": good, "openfero-node-firing": newest}
        stale = [o.name for o in catalog.operarios if o.origin.stale]
        assert stale == ["openfero-disk-firing"]
        assert "newer" in str([o.job for o in catalog.operarios if o.origin.stale])
        errors = [problem for problem in catalog.problems if problem.is_error]
        assert [(problem.path, problem.commit) for problem in errors] == [("disk.yaml", newest)]
        assert (desk.syncer.status.error, desk.syncer.status.problems) == (None, 1)

    @in_virtual_time
    async def test_a_starting_replica_builds_the_same_catalog(self) -> None:
        """The catalog depends on the commit, not on earlier catalogs."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        await desk.sync(disk=BROKEN)
        fresh = Desk(desk.source)
        await fresh.sync()
        assert fresh.syncer.catalog == desk.syncer.catalog

    @in_virtual_time
    async def test_a_fixed_file_is_no_longer_stale(self) -> None:
        """A fixed file is current, and a removed file is not replaced by an older version."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        await desk.sync(disk=BROKEN)
        fixed = await desk.sync(disk=operario_file("disk", "fixed"))
        assert desk.active()["openfero-disk-firing"] == fixed
        last = await desk.sync(disk=None)
        assert desk.active() == {"openfero-node-firing": last}

    @in_virtual_time
    async def test_a_file_without_a_valid_version_is_left_out(self) -> None:
        """A broken file without an older version contributes no operario."""
        desk = Desk()
        commit = await desk.sync(disk=BROKEN, node=operario_file("node"))
        assert desk.active() == {"openfero-node-firing": commit}


class TestRefusal:
    """A revision that is refused as a whole."""

    @pytest.mark.parametrize(
        ("text", "word"),
        [(None, "was deleted"), ("limits: {concurent: 3}\n", "concurent"), ("paused: [", "")],
        ids=["missing", "unknown key", "no YAML"],
    )
    @in_virtual_time
    async def test_a_revision_without_a_valid_envelope_is_refused(
        self, text: str | None, word: str
    ) -> None:
        """A missing or invalid envelope refuses the revision; the status has the reason."""
        desk = Desk()
        good = await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await asyncio.sleep(60)
        bad = await desk.sync(disk=operario_file("disk", "new"), openfero=text)
        status = desk.syncer.status
        assert desk.active() == {"openfero-disk-firing": good}
        assert status.error is not None
        assert word in status.error
        assert status.refused == RefusedRevision(bad, status.error, format_time(desk.now()))
        assert not desk.syncer.pause

    @in_virtual_time
    async def test_a_repeated_refusal_keeps_its_first_time(self) -> None:
        """The same refused commit keeps the time of its first refusal."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await desk.sync(openfero=None)
        first = desk.syncer.status.refused
        await asyncio.sleep(600)
        await desk.sync()
        assert desk.syncer.status.refused == first
        await desk.sync(node=operario_file("node"))
        assert desk.syncer.status.refused != first
        await desk.sync(openfero=ENVELOPE)
        assert desk.syncer.status.error is None

    @in_virtual_time
    async def test_an_emptied_envelope_is_accepted(self) -> None:
        """An emptied envelope removes the limits; a repository can start without one."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        commit = await desk.sync(openfero="")
        assert desk.active() == {"openfero-disk-firing": commit}
        fresh = Desk()
        await fresh.sync(disk=operario_file("disk"))
        assert list(fresh.active()) == ["openfero-disk-firing"]

    @pytest.mark.parametrize("root", ["", "clusters/prod"])
    @in_virtual_time
    async def test_a_starting_replica_searches_the_history_for_the_envelope(
        self, root: str
    ) -> None:
        """Without an active catalog, a deleted envelope is detected in the ancestors."""
        source = Commits(root)
        limited = source.commit({"disk.yaml": operario_file("disk"), "openfero.yaml": ENVELOPE})
        source.commit({"openfero.yaml": None})
        desk = Desk(source)
        await desk.sync()
        assert desk.active() == {"openfero-disk-firing": limited}
        assert "openfero.yaml" in (desk.syncer.lasting_error or "")
        source.commit({"openfero.yaml": ENVELOPE})
        await desk.sync()
        assert list(desk.active()) == ["openfero-disk-firing"]

    @in_virtual_time
    async def test_a_path_without_files_is_refused(self) -> None:
        """A revision that removes all operarios is refused."""
        desk = Desk()
        good = await desk.sync(disk=operario_file("disk"))
        bad = await desk.sync(disk=None)
        assert desk.active() == {"openfero-disk-firing": good}
        assert desk.syncer.status.refused is not None
        assert desk.syncer.status.refused.commit == bad

    @in_virtual_time
    async def test_a_rewritten_history_is_refused(self) -> None:
        """A rewritten history is refused unless following rewrites is enabled."""
        desk = Desk()
        old = await desk.sync(disk=operario_file("disk", "old"))
        good = await desk.sync(disk=operario_file("disk"))
        desk.source.rewrite({"disk.yaml": operario_file("disk", "forced")})
        bad = await desk.sync()
        assert desk.active() == {"openfero-disk-firing": good}
        assert desk.syncer.status.refused is not None
        assert desk.syncer.status.refused.commit == bad != old
        following = Desk(Commits(), follow_rewrites=True)
        await following.sync(disk=operario_file("disk"))
        following.source.rewrite({"disk.yaml": operario_file("disk", "forced")})
        forced = await following.sync()
        assert following.active() == {"openfero-disk-firing": forced}

    @pytest.mark.parametrize("cause", ["key", "rewritten"])
    @in_virtual_time
    async def test_a_refused_revision_with_paused_true_pauses(self, cause: str) -> None:
        """The pause lasts until a revision without `paused: true`, even a refused one."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        if cause == "key":
            await desk.sync(openfero="paused: true\nlimit: 3\n")
        else:
            desk.source.rewrite({"openfero.yaml": "paused: true\n"})
            await desk.sync()
        assert desk.syncer.pause
        desk.source.trouble = failing(SourceError(DOWN))
        await desk.sync()
        assert desk.syncer.pause
        desk.source.trouble = nothing
        if cause == "key":
            await desk.sync(openfero=ENVELOPE)
        else:
            desk.source.rewrite({"openfero.yaml": "paused: false\n"})
            await desk.sync()
        assert not desk.syncer.pause

    @in_virtual_time
    async def test_a_pause_in_git_has_its_commit(self) -> None:
        """The pause has its cause, the active catalog or a refused revision, and the commit."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        assert desk.syncer.pause is None
        refused = await desk.sync(openfero="paused: true\nlimit: 3\n")
        assert (pause := desk.syncer.pause)
        assert pause.cause is PauseCause.REFUSED_REVISION
        assert pause.by == f"refused revision {refused[:12]}"
        accepted = await desk.sync(openfero="paused: true\n")
        assert (pause := desk.syncer.pause)
        assert pause.cause is PauseCause.CONFIGURATION
        assert f"paused: true at commit {accepted[:12]}" in pause.message
        await desk.sync(openfero=ENVELOPE)
        assert desk.syncer.pause is None

    @in_virtual_time
    async def test_a_commit_that_cannot_be_read_does_not_end_a_pause(self) -> None:
        """Only a commit with a readable envelope ends the pause of the earlier commit."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await desk.sync(openfero="paused: true\nlimit: 3\n")
        unread = Unusable("it holds no such folder", build.REVISION)
        desk.source.trouble = failing(unread)
        await desk.sync()
        assert desk.syncer.pause
        unsigned = Unusable("it is not signed", build.REVISION, Snapshot(build.REVISION, "", ()))
        desk.source.trouble = failing(unsigned)
        await desk.sync()
        assert not desk.syncer.pause

    @in_virtual_time
    async def test_listeners_are_notified_of_new_refusals(self) -> None:
        """Listeners are notified of a new refusal and of its end, but not of a repeated one."""
        desk = Desk()
        calls: list[bool] = []
        desk.syncer.on_refusal(lambda: calls.append(bool(desk.syncer.pause)))
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await desk.sync(openfero="paused: true\nlimit: 3\n")
        await desk.sync()
        await desk.sync(openfero=ENVELOPE)
        await desk.sync(disk=operario_file("disk", "again"))
        assert calls == [True, False]


class TestMirror:
    """A syncer starts from the mirror."""

    @pytest.mark.parametrize("complete", [True, False], ids=["complete", "head only"])
    @in_virtual_time
    async def test_the_pause_of_a_refused_revision_survives_a_restart(
        self, *, complete: bool
    ) -> None:
        """A replica that starts without Git is paused until it syncs a revision without a pause."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        snapshot = await desk.source.fetch()
        await desk.sync(openfero="paused: true\nlimit: 3\n")
        mirror = write_mirror(snapshot, "ns", desk.syncer.status.refused)
        fresh = Desk(desk.source)
        fresh.source.trouble = failing(SourceError(DOWN))
        if complete:
            await fresh.syncer.restore(
                read_mirror(mirror.head, mirror.shards), read_refused(mirror.head)
            )
        else:
            fresh.syncer.restore_refused(read_refused(mirror.head))
        await fresh.sync()
        assert fresh.syncer.pause
        fresh.source.trouble = nothing
        await fresh.sync(openfero=ENVELOPE)
        assert not fresh.syncer.pause
        after = write_mirror(snapshot, "ns", fresh.syncer.status.refused)
        assert read_refused(after.head) == fresh.syncer.status.refused

    @in_virtual_time
    async def test_a_restored_catalog_is_active_until_git_is_available(self) -> None:
        """Revision, last refusal and origin of the status are those of the mirror."""
        desk = Desk()
        commit = await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        snapshot = await desk.source.fetch()
        refused = RefusedRevision("e" * 40, "its openfero.yaml is gone", "T")
        fresh = Desk(desk.source)
        fresh.source.trouble = failing(SourceError(DOWN))
        calls: list[str] = []
        fresh.syncer.on_change(lambda: calls.append(fresh.syncer.status.origin))
        await fresh.syncer.restore(snapshot, refused)
        await fresh.sync()
        status = fresh.syncer.status
        assert set(fresh.active().values()) == {commit}
        assert (status.origin, status.refused, status.error) == ("mirror", refused, DOWN)
        assert status.last_success is None
        assert calls == ["mirror"]

    @in_virtual_time
    async def test_the_same_revision_from_git_replaces_a_restored_one(self) -> None:
        """After a sync, the catalog has the problems of the revision and the origin git."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        await desk.sync(disk=BROKEN, node=operario_file("node"))
        active_catalog = desk.syncer.catalog
        assert active_catalog is not None
        snapshot = await desk.source.fetch()
        mirrored = type(snapshot)(snapshot.revision, snapshot.root, active_catalog.files)
        fresh = Desk(desk.source)
        calls: list[str] = []
        fresh.syncer.on_change(lambda: calls.append(fresh.syncer.status.origin))
        await fresh.syncer.restore(mirrored, None)
        assert fresh.active() == desk.active()
        assert fresh.syncer.status.problems == 0
        await fresh.sync()
        assert fresh.syncer.catalog == active_catalog
        assert fresh.syncer.status.problems == 1
        assert calls == ["mirror", "git"]

    @in_virtual_time
    async def test_restoring_does_not_access_git(self) -> None:
        """A file in the mirror that is invalid for this version is left out without Git."""
        desk = Desk()
        desk.source.commit({"disk.yaml": BROKEN, "node.yaml": operario_file("node")})
        snapshot = await desk.source.fetch()
        desk.source.requests.clear()
        desk.source.trouble = failing(SourceError(DOWN), operation="versions")
        await desk.syncer.restore(snapshot, None)
        assert list(desk.active()) == ["openfero-node-firing"]
        assert desk.source.requests == []

    @in_virtual_time
    async def test_restoring_does_not_replace_an_active_catalog(self) -> None:
        """A restore during a sync does not change its result."""
        desk = Desk()
        old = Commits()
        old.commit({"disk.yaml": operario_file("disk", "mirrored")})
        snapshot = await old.fetch()

        async def slow(_: str) -> None:
            await asyncio.sleep(5)

        desk.source.trouble = slow
        refused = RefusedRevision("e" * 40, "gone", "T")
        synced = asyncio.create_task(desk.sync(node=operario_file("node")))
        await asyncio.sleep(1)
        await desk.syncer.restore(snapshot, refused)
        await synced
        assert list(desk.active()) == ["openfero-node-firing"]
        assert desk.syncer.status.origin == "git"
        assert desk.syncer.status.refused is None

    @in_virtual_time
    async def test_a_mirror_with_an_invalid_envelope_is_an_error(self) -> None:
        """An invalid envelope in the mirror is an error, and no catalog is active."""
        desk = Desk()
        desk.source.commit({"openfero.yaml": "limit: 3\n", "disk.yaml": operario_file("disk")})
        with pytest.raises(SourceError, match="limit"):
            await desk.syncer.restore(await desk.source.fetch(), None)
        assert desk.syncer.catalog is None
        assert desk.syncer.status == SyncStatus()


class TestHistory:
    """The history of syncs has their changes, durations and errors."""

    @in_virtual_time
    async def test_the_changes_of_a_commit_are_recorded(self) -> None:
        """A record has the added, changed, removed and quarantined operarios, and both commits."""
        desk = Desk()
        first = await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        [record] = desk.syncer.status.history
        assert (record.before, record.after, record.error) == ("", first, None)
        assert record.changes == Changes(added=("openfero-disk-firing", "openfero-node-firing"))
        assert set(record.steps) == {"fetch", "judge", "build"}
        moved = "# a comment\n" + operario_file("disk")
        second = await desk.sync(
            disk=moved, node=None, web=operario_file("web"), broken="kind: Job\nspec: [\n"
        )
        record = desk.syncer.status.history[0]
        assert (record.before, record.after) == (first, second)
        assert record.changes == Changes(
            added=("openfero-web-firing",),
            removed=("openfero-node-firing",),
            quarantined=("broken.yaml",),
        )
        await desk.sync(
            web=operario_file("web").replace("registry.example/", "registry.example/v2/"),
            openfero=ENVELOPE,
        )
        changes = desk.syncer.status.history[0].changes
        assert (changes.changed, changes.envelope) == (("openfero-web-firing",), True)

    @in_virtual_time
    async def test_a_lasting_failure_is_one_record(self) -> None:
        """The record has the first and last time and the count; a later success is a new record."""
        desk = Desk()
        first = await desk.sync(disk=operario_file("disk"))
        began = desk.now()
        desk.source.trouble = failing(SourceError("the server is away"))
        for _ in range(5):
            await desk.sync()
            await asyncio.sleep(60)
        failed, _ = desk.syncer.status.history
        assert (failed.error, failed.times, failed.before) == ("the server is away", 5, first)
        assert (failed.at, failed.until) == (began, began + timedelta(seconds=240))
        assert list(failed.steps) == ["fetch"]
        desk.source.trouble = nothing
        await desk.sync(node=operario_file("node"))
        assert [record.error for record in desk.syncer.status.history] == [None, failed.error, None]

    @in_virtual_time
    async def test_the_history_is_bounded(self) -> None:
        """The history keeps the last twenty records."""
        desk = Desk()
        for number in range(30):
            await desk.sync(**{f"n{number}": operario_file(f"n{number}")})
        history = desk.syncer.status.history
        assert len(history) == 20
        assert history[0].changes.added == ("openfero-n29-firing",)

    @in_virtual_time
    async def test_a_sync_without_changes_adds_no_record(self) -> None:
        """A sync without a new commit keeps the history unchanged."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        history = desk.syncer.status.history
        await desk.sync()
        assert desk.syncer.status.history == history


class TestSchedule:
    """The schedule of syncs, with the real clock."""

    async def test_it_runs_at_once_and_on_request(self) -> None:
        """The first run and a requested run do not wait for the interval."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(len(runs))

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: len(runs) == 1)
            schedule.now()
            await until(lambda: len(runs) == 2)
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    async def test_a_request_during_a_run_starts_another_run(self) -> None:
        """A request during a run is followed by a run after it."""
        runs: list[str] = []
        go_on = asyncio.Event()

        async def work() -> None:
            runs.append("begins")
            await go_on.wait()
            runs.append("ends")

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: runs == ["begins"])
            schedule.now()
            await asyncio.sleep(0.1)
            assert runs == ["begins"]
            go_on.set()
            await until(lambda: runs == ["begins", "ends"] * 2)
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_the_delay_is_computed_after_each_run(self) -> None:
        """The delay before the next run is read when a run has ended."""
        runs: list[int] = []
        delays = [timedelta(hours=1), timedelta(seconds=0.01), timedelta(hours=1)]

        async def work() -> None:
            runs.append(len(runs))

        schedule = Schedule(work, lambda: delays[len(runs)])
        schedule.start()
        try:
            await until(lambda: len(runs) == 2)
            await asyncio.sleep(0.1)
            assert len(runs) == 2
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_many_requests_during_a_run_start_one_run(self) -> None:
        """A hundred requests during a run are followed by one more run."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(len(runs))
            await asyncio.sleep(0.2)

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: len(runs) == 1)
            for _ in range(100):
                schedule.now()
            await until(lambda: len(runs) == 2)
            await asyncio.sleep(0.5)
            assert len(runs) == 2
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_a_failure_does_not_end_it(self) -> None:
        """The schedule continues after an exception."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(len(runs))
            raise ZeroDivisionError

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: len(runs) == 1)
            schedule.now()
            await until(lambda: len(runs) == 2)
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_stopping_cancels_the_current_run(self) -> None:
        """Stopping cancels a hanging run; stopping again has no effect."""
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        await asyncio.sleep(0.05)
        schedule.stop()
        schedule.stop()
        await until(lambda: ended)
        await asyncio.sleep(0.01)
        schedule.stop()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

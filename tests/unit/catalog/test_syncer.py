"""Git to the catalog in force, with fetches that fail and commits that cannot be taken."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from openfero_gitops.catalog.build import Scope
from openfero_gitops.catalog.mirror import read_mirror, read_refused, write_mirror
from openfero_gitops.catalog.schedule import Schedule
from openfero_gitops.catalog.syncer import Syncer
from openfero_gitops.domain.catalog import Snapshot
from openfero_gitops.domain.errors import SourceError, Unusable
from openfero_gitops.domain.pause import PauseCause
from openfero_gitops.domain.sync import Changes, RefusedRevision, SyncStatus
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

    from openfero_gitops.catalog.files import FileReading
    from openfero_gitops.domain.catalog import SourceFile

SCOPE = Scope(jobs_namespace=build.JOBS_NAMESPACE, allowed_namespaces=(build.JOBS_NAMESPACE,))
BROKEN = operario_file("disk").replace("restartPolicy: Never", "restartPolicy: Always")
ENVELOPE = "limits: {concurrent: 3}\n"
DOWN = "Git repository https://git.example/ops: no connection"


class Desk:
    """A syncer, the history that it follows, and what it counted."""

    def __init__(self, source: Commits | None = None, *, follow_rewrites: bool = False) -> None:
        self.source = source or Commits()
        self.counted: list[SyncStatus] = []
        self.syncer = Syncer(
            source=self.source,
            scope=SCOPE,
            counts=self,
            now=self.now,
            clock=seconds_so_far,
            follow_rewrites=follow_rewrites,
        )

    def synced(self, status: SyncStatus) -> None:
        """A sync ended."""
        self.counted.append(status)

    def now(self) -> datetime:
        """The wall clock's time."""
        return build.NOW + timedelta(seconds=seconds_so_far())

    async def sync(self, **files: str | None) -> str:
        """Commit files (`disk` is disk.yaml), sync, and return the commit."""
        if files:
            self.source.commit({f"{name}.yaml": text for name, text in files.items()})
        await self.syncer.sync()
        return self.source.head

    def in_force(self) -> dict[str, str]:
        """The operarios in force, by name, with the commit of each."""
        catalog = self.syncer.catalog
        return {} if catalog is None else {o.name: o.origin.commit for o in catalog.operarios}


def failing(error: Exception, *, only: str = "fetch") -> Callable[[str], Awaitable[None]]:
    """Let one kind of request fail."""

    async def trouble(what: str) -> None:
        if what == only:
            raise error

    return trouble


async def nothing(_: str) -> None:
    """Let everything succeed again."""


class TestSwap:
    """A new revision takes the place of the one before."""

    @in_virtual_time
    async def test_a_new_commit_comes_into_force_whole(self) -> None:
        """The catalog, its status and the count of it speak of the same commit."""
        desk = Desk()
        assert desk.syncer.catalog is None
        assert not desk.syncer.attempted.is_set()
        first = await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await asyncio.sleep(60)
        second = await desk.sync(node=operario_file("node"))
        catalog, status = desk.syncer.catalog, desk.syncer.status
        assert catalog is not None
        assert first != second == catalog.revision.commit
        assert desk.in_force() == {"openfero-disk-firing": second, "openfero-node-firing": second}
        assert catalog.envelope.limits.concurrent == 3
        assert status.revision == catalog.revision
        assert (status.origin, status.operarios, status.problems) == ("git", 2, 0)
        assert status.error is status.failing_since is status.refused is None
        assert status.last_success == status.active_since == desk.now()
        assert desk.counted[-1] == status
        assert desk.syncer.attempted.is_set()

    @in_virtual_time
    async def test_the_same_commit_is_not_taken_again(self) -> None:
        """A sync without news swaps nothing, tells nobody, and is a success all the same."""
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
    async def test_listeners_are_told_after_each_swap(self) -> None:
        """Whoever is told finds the new catalog and its status in force."""
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
    async def test_one_sync_at_a_time(self) -> None:
        """A push's call and the clock's do not fetch at once, and both end."""
        desk = Desk()
        desk.source.commit({"disk.yaml": operario_file("disk")})
        under_way = most = 0

        async def slow(what: str) -> None:
            nonlocal under_way, most
            if what == "fetch":
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(5)
                under_way -= 1

        desk.source.trouble = slow
        await asyncio.gather(*(desk.sync() for _ in range(3)))
        assert most == 1
        assert len(desk.counted) == 3
        assert desk.counted[-1].seconds == pytest.approx(5)

    @in_virtual_time
    async def test_the_loop_is_not_blocked_by_a_large_repository(self) -> None:
        """Files are read in a thread: the webhook is answered meanwhile."""
        desk = Desk()
        threads: set[int] = set()
        read = desk.syncer._memo.read

        def noted(file: SourceFile) -> FileReading:
            threads.add(threading.get_ident())
            return read(file)

        desk.syncer._memo.read = noted  # type: ignore[method-assign]
        await desk.sync(disk=operario_file("disk"), node=BROKEN)
        assert threads
        assert threading.get_ident() not in threads


class TestFailure:
    """What fails leaves the catalog in force, and is told."""

    @in_virtual_time
    async def test_a_failing_fetch_keeps_the_catalog(self) -> None:
        """The error is logged once, however long it lasts, and since when is known."""
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
        assert desk.in_force() == {"openfero-disk-firing": commit}
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
    async def test_a_success_ends_it(self) -> None:
        """Nothing of the error stays, also where there is no newer commit."""
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
    async def test_it_is_known_whether_trying_again_helps(self, *, lasting: bool) -> None:
        """A first sync that fails for good can end the program; one that may succeed does not."""
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
    async def test_trouble_with_the_history_refuses_no_revision(self) -> None:
        """That older versions could not be read says nothing against the newest commit."""
        desk = Desk()
        first = await desk.sync(disk=operario_file("disk"))
        desk.source.trouble = failing(SourceError("the disk is full"), only="versions")
        await desk.sync(disk=BROKEN)
        assert desk.in_force() == {"openfero-disk-firing": first}
        assert desk.syncer.status.error == "the disk is full"
        assert desk.syncer.status.refused is None

    @in_virtual_time
    async def test_a_cancelled_sync_leaves_everything_as_it_was(self) -> None:
        """The next one finds the way free."""
        desk = Desk()
        commit = await desk.sync(disk=operario_file("disk"))
        status = desk.syncer.status

        async def hangs(_: str) -> None:
            await asyncio.Event().wait()

        desk.source.trouble = hangs
        async with in_background(desk.sync()):
            await asyncio.sleep(60)
        assert desk.syncer.status == status
        assert desk.in_force() == {"openfero-disk-firing": commit}
        desk.source.trouble = nothing
        second = await desk.sync(node=operario_file("node"))
        assert desk.in_force()["openfero-node-firing"] == second


class TestQuarantine:
    """One bad file is left out alone."""

    @in_virtual_time
    async def test_its_newest_valid_version_stays_in_force(self) -> None:
        """Marked stale and with its own commit; the other files are of the newest one."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk", "oldest"), node=operario_file("node"))
        good = await desk.sync(disk=operario_file("disk", "newer"))
        desk.source.commit({"disk.yaml": BROKEN})
        newest = await desk.sync(node=operario_file("node", "changed"))
        catalog = desk.syncer.catalog
        assert catalog is not None
        assert desk.in_force() == {"openfero-disk-firing": good, "openfero-node-firing": newest}
        stale = [o.name for o in catalog.operarios if o.origin.stale]
        assert stale == ["openfero-disk-firing"]
        assert "newer" in str([o.job for o in catalog.operarios if o.origin.stale])
        errors = [problem for problem in catalog.problems if problem.is_error]
        assert [(problem.path, problem.commit) for problem in errors] == [("disk.yaml", newest)]
        assert (desk.syncer.status.error, desk.syncer.status.problems) == (None, 1)

    @in_virtual_time
    async def test_a_replica_that_starts_comes_to_the_same(self) -> None:
        """The catalog is a function of the commit, not of what was in force before."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        await desk.sync(disk=BROKEN)
        fresh = Desk(desk.source)
        await fresh.sync()
        assert fresh.syncer.catalog == desk.syncer.catalog

    @in_virtual_time
    async def test_a_mended_file_is_not_stale_any_more(self) -> None:
        """And one that was removed on purpose is gone, though older versions were valid."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        await desk.sync(disk=BROKEN)
        mended = await desk.sync(disk=operario_file("disk", "mended"))
        assert desk.in_force()["openfero-disk-firing"] == mended
        last = await desk.sync(disk=None)
        assert desk.in_force() == {"openfero-node-firing": last}

    @in_virtual_time
    async def test_a_file_that_never_was_valid_is_left_out(self) -> None:
        """There is nothing to put in its place."""
        desk = Desk()
        commit = await desk.sync(disk=BROKEN, node=operario_file("node"))
        assert desk.in_force() == {"openfero-node-firing": commit}


class TestRefusal:
    """A revision that is not taken at all."""

    @pytest.mark.parametrize(
        ("text", "word"),
        [(None, "was deleted"), ("limits: {concurent: 3}\n", "concurent"), ("paused: [", "")],
        ids=["missing", "unknown key", "no YAML"],
    )
    @in_virtual_time
    async def test_a_revision_without_its_envelope_is_refused(
        self, text: str | None, word: str
    ) -> None:
        """The limits that a human reviewed never go by accident; the reason is remembered."""
        desk = Desk()
        good = await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        await asyncio.sleep(60)
        bad = await desk.sync(disk=operario_file("disk", "new"), openfero=text)
        status = desk.syncer.status
        assert desk.in_force() == {"openfero-disk-firing": good}
        assert status.error is not None
        assert word in status.error
        assert status.refused == RefusedRevision(bad, status.error, format_time(desk.now()))
        assert not desk.syncer.pause

    @in_virtual_time
    async def test_it_is_remembered_since_when(self) -> None:
        """Being refused again at each sync makes it no younger; another commit is another."""
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
    async def test_an_emptied_envelope_is_a_choice(self) -> None:
        """To drop the limits, the file is emptied; to begin without is allowed, too."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        commit = await desk.sync(openfero="")
        assert desk.in_force() == {"openfero-disk-firing": commit}
        fresh = Desk()
        await fresh.sync(disk=operario_file("disk"))
        assert list(fresh.in_force()) == ["openfero-disk-firing"]

    @pytest.mark.parametrize("root", ["", "clusters/prod"])
    @in_virtual_time
    async def test_a_replica_that_starts_looks_for_the_envelope_in_the_history(
        self, root: str
    ) -> None:
        """Nothing is in force yet: that there were limits is read from the ancestors."""
        source = Commits(root)
        limited = source.commit({"disk.yaml": operario_file("disk"), "openfero.yaml": ENVELOPE})
        source.commit({"openfero.yaml": None})
        desk = Desk(source)
        await desk.sync()
        assert desk.in_force() == {"openfero-disk-firing": limited}
        assert "openfero.yaml" in (desk.syncer.lasting_error or "")
        source.commit({"openfero.yaml": ENVELOPE})
        await desk.sync()
        assert list(desk.in_force()) == ["openfero-disk-firing"]

    @in_virtual_time
    async def test_an_emptied_path_is_refused(self) -> None:
        """A repository from which everything vanished is more likely a mistake than a wish."""
        desk = Desk()
        good = await desk.sync(disk=operario_file("disk"))
        bad = await desk.sync(disk=None)
        assert desk.in_force() == {"openfero-disk-firing": good}
        assert desk.syncer.status.refused is not None
        assert desk.syncer.status.refused.commit == bad

    @in_virtual_time
    async def test_a_rewritten_history_is_refused(self) -> None:
        """Until a person says that it is meant; nor is the ref moved back unseen."""
        desk = Desk()
        old = await desk.sync(disk=operario_file("disk", "old"))
        good = await desk.sync(disk=operario_file("disk"))
        desk.source.rewrite({"disk.yaml": operario_file("disk", "forced")})
        bad = await desk.sync()
        assert desk.in_force() == {"openfero-disk-firing": good}
        assert desk.syncer.status.refused is not None
        assert desk.syncer.status.refused.commit == bad != old
        meant = Desk(Commits(), follow_rewrites=True)
        await meant.sync(disk=operario_file("disk"))
        meant.source.rewrite({"disk.yaml": operario_file("disk", "forced")})
        forced = await meant.sync()
        assert meant.in_force() == {"openfero-disk-firing": forced}

    @pytest.mark.parametrize("why", ["key", "rewritten"])
    @in_virtual_time
    async def test_a_refused_revision_that_says_paused_pauses(self, why: str) -> None:
        """Whatever else is wrong with it; until one is taken, or refused without the word."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        if why == "key":
            await desk.sync(openfero="paused: true\nlimit: 3\n")
        else:
            desk.source.rewrite({"openfero.yaml": "paused: true\n"})
            await desk.sync()
        assert desk.syncer.pause
        desk.source.trouble = failing(SourceError(DOWN))
        await desk.sync()
        assert desk.syncer.pause
        desk.source.trouble = nothing
        if why == "key":
            await desk.sync(openfero=ENVELOPE)
        else:
            desk.source.rewrite({"openfero.yaml": "paused: false\n"})
            await desk.sync()
        assert not desk.syncer.pause

    @in_virtual_time
    async def test_who_pauses_in_git_is_told_with_the_commit(self) -> None:
        """The catalog in force, or a refused revision; nobody where neither says so."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        assert desk.syncer.pause is None
        refused = await desk.sync(openfero="paused: true\nlimit: 3\n")
        assert (pause := desk.syncer.pause)
        assert pause.cause is PauseCause.REFUSED_REVISION
        assert pause.by == f"refused revision {refused[:12]}"
        taken = await desk.sync(openfero="paused: true\n")
        assert (pause := desk.syncer.pause)
        assert pause.cause is PauseCause.CONFIGURATION
        assert f"paused: true at commit {taken[:12]}" in pause.message
        await desk.sync(openfero=ENVELOPE)
        assert desk.syncer.pause is None

    @in_virtual_time
    async def test_a_commit_that_cannot_be_read_ends_no_pause(self) -> None:
        """Nobody knows what its envelope says; that of the one before it is known."""
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
    async def test_whoever_keeps_a_refusal_is_told_of_what_is_new_about_it(self) -> None:
        """That there is one, and that its pause is over; not of the same one again."""
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
    """Beginning from the mirror."""

    @pytest.mark.parametrize("whole", [True, False], ids=["whole", "head alone"])
    @in_virtual_time
    async def test_the_pause_of_a_refused_revision_outlasts_a_restart(self, *, whole: bool) -> None:
        """Git is down and every replica new: it pauses until one is taken that does not."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"), openfero=ENVELOPE)
        snapshot = await desk.source.fetch()
        await desk.sync(openfero="paused: true\nlimit: 3\n")
        mirror = write_mirror(snapshot, "ns", desk.syncer.status.refused)
        fresh = Desk(desk.source)
        fresh.source.trouble = failing(SourceError(DOWN))
        if whole:
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
    async def test_what_was_mirrored_serves_until_git_is_back(self) -> None:
        """The revision and the last refusal are those of the mirror, and so is the origin."""
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
        assert set(fresh.in_force().values()) == {commit}
        assert (status.origin, status.refused, status.error) == ("mirror", refused, DOWN)
        assert status.last_success is None
        assert calls == ["mirror"]

    @in_virtual_time
    async def test_the_same_revision_from_git_takes_its_place(self) -> None:
        """Only Git knows what was wrong with the revision; from then on it is Git's."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        await desk.sync(disk=BROKEN, node=operario_file("node"))
        in_force = desk.syncer.catalog
        assert in_force is not None
        snapshot = await desk.source.fetch()
        mirrored = type(snapshot)(snapshot.revision, snapshot.root, in_force.files)
        fresh = Desk(desk.source)
        calls: list[str] = []
        fresh.syncer.on_change(lambda: calls.append(fresh.syncer.status.origin))
        await fresh.syncer.restore(mirrored, None)
        assert fresh.in_force() == desk.in_force()
        assert fresh.syncer.status.problems == 0
        await fresh.sync()
        assert fresh.syncer.catalog == in_force
        assert fresh.syncer.status.problems == 1
        assert calls == ["mirror", "git"]

    @in_virtual_time
    async def test_it_asks_git_for_nothing(self) -> None:
        """Also where a file in the mirror is not valid for this version of the controller."""
        desk = Desk()
        desk.source.commit({"disk.yaml": BROKEN, "node.yaml": operario_file("node")})
        snapshot = await desk.source.fetch()
        desk.source.asked.clear()
        desk.source.trouble = failing(SourceError(DOWN), only="versions")
        await desk.syncer.restore(snapshot, None)
        assert list(desk.in_force()) == ["openfero-node-firing"]
        assert desk.source.asked == []

    @in_virtual_time
    async def test_it_never_replaces_a_catalog_in_force(self) -> None:
        """Nor overtakes a sync that is under way, or mixes with what that one says."""
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
        assert list(desk.in_force()) == ["openfero-node-firing"]
        assert desk.syncer.status.origin == "git"
        assert desk.syncer.status.refused is None

    @in_virtual_time
    async def test_a_mirror_that_is_no_catalog_is_said_to_be_none(self) -> None:
        """A broken envelope in it is an error, and nothing is in force."""
        desk = Desk()
        desk.source.commit({"openfero.yaml": "limit: 3\n", "disk.yaml": operario_file("disk")})
        with pytest.raises(SourceError, match="limit"):
            await desk.syncer.restore(await desk.source.fetch(), None)
        assert desk.syncer.catalog is None
        assert desk.syncer.status == SyncStatus()


class TestStory:
    """A sync is told as what it changed, how long it took, and why it failed since when."""

    @in_virtual_time
    async def test_what_a_commit_changed_is_told(self) -> None:
        """Added, changed, removed and quarantined are named, from which commit to which."""
        desk = Desk()
        first = await desk.sync(disk=operario_file("disk"), node=operario_file("node"))
        [chapter] = desk.syncer.status.history
        assert (chapter.before, chapter.after, chapter.error) == ("", first, None)
        assert chapter.changes == Changes(added=("openfero-disk-firing", "openfero-node-firing"))
        assert set(chapter.steps) == {"fetch", "judge", "build"}
        moved = "# a comment\n" + operario_file("disk")
        second = await desk.sync(
            disk=moved, node=None, web=operario_file("web"), broken="kind: Job\nspec: [\n"
        )
        chapter = desk.syncer.status.history[0]
        assert (chapter.before, chapter.after) == (first, second)
        assert chapter.changes == Changes(
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
    async def test_a_failure_that_goes_on_is_one_chapter(self) -> None:
        """It tells since when, how often, and until when; a success after it is a new one."""
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
    async def test_the_story_is_bounded(self) -> None:
        """However long a replica runs, it remembers the last twenty chapters."""
        desk = Desk()
        for number in range(30):
            await desk.sync(**{f"n{number}": operario_file(f"n{number}")})
        story = desk.syncer.status.history
        assert len(story) == 20
        assert story[0].changes.added == ("openfero-n29-firing",)

    @in_virtual_time
    async def test_a_sync_without_news_tells_nothing(self) -> None:
        """Nor does it forget."""
        desk = Desk()
        await desk.sync(disk=operario_file("disk"))
        story = desk.syncer.status.history
        await desk.sync()
        assert desk.syncer.status.history == story


class TestSchedule:
    """What calls for a sync, by the real clock."""

    async def test_it_runs_at_once_and_when_it_is_asked_to(self) -> None:
        """The first run is not an interval away, nor is one after a push."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(len(runs))

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: len(runs) == 1, within=5)
            schedule.now()
            await until(lambda: len(runs) == 2, within=5)
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    async def test_what_is_asked_for_during_a_run_is_run_after_it(self) -> None:
        """A push that comes while a sync is under way may be newer than what that one fetched."""
        runs: list[str] = []
        go_on = asyncio.Event()

        async def work() -> None:
            runs.append("begins")
            await go_on.wait()
            runs.append("ends")

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: runs == ["begins"], within=5)
            schedule.now()
            await asyncio.sleep(0.1)
            assert runs == ["begins"]
            go_on.set()
            await until(lambda: runs == ["begins", "ends"] * 2, within=5)
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_it_rests_as_long_as_it_is_told_after_each_run(self) -> None:
        """A pause that grows with failures is asked for when a run has ended."""
        runs: list[int] = []
        pauses = [timedelta(hours=1), timedelta(seconds=0.01), timedelta(hours=1)]

        async def work() -> None:
            runs.append(len(runs))

        schedule = Schedule(work, lambda: pauses[len(runs)])
        schedule.start()
        try:
            await until(lambda: len(runs) == 2, within=5)
            await asyncio.sleep(0.1)
            assert len(runs) == 2
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_a_flood_of_requests_is_one_run(self) -> None:
        """Whoever asks a hundred times during a run gets one more."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(len(runs))
            await asyncio.sleep(0.2)

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: len(runs) == 1, within=5)
            for _ in range(100):
                schedule.now()
            await until(lambda: len(runs) == 2, within=5)
            await asyncio.sleep(0.5)
            assert len(runs) == 2
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_a_failure_does_not_end_it(self) -> None:
        """What crashed is run again."""
        runs: list[int] = []

        async def work() -> None:
            runs.append(len(runs))
            raise ZeroDivisionError

        schedule = Schedule(work, lambda: timedelta(hours=1))
        schedule.start()
        try:
            await until(lambda: len(runs) == 1, within=5)
            schedule.now()
            await until(lambda: len(runs) == 2, within=5)
        finally:
            schedule.stop()
            await asyncio.sleep(0.01)

    async def test_a_run_under_way_ends_with_it(self) -> None:
        """Stopping cancels what hangs; stopping twice is the same as once."""
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
        await until(lambda: ended, within=5)
        await asyncio.sleep(0.01)
        schedule.stop()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

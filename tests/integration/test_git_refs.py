"""What may come into force after what: refs that move, vanish and are rewritten.

Each test shows what is in force, what a reader is told, and how it goes on.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.app import Controller
from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.catalog.mirrorer import restore_from_mirror
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain.errors import Unavailable
from openfero_gitops.settings import load_settings
from openfero_gitops.sources.tree import Budgets
from tests.support.follower import NAMESPACE, Follower, followers
from tests.support.repository import Repository
from tests.support.workers import Wire, operario_file, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from openfero_gitops.cluster.config_maps import ConfigMapStore
    from tests.support.relay import Act, Request

DISK, NODE = "openfero-disk-firing", "openfero-node-firing"
BROKEN = operario_file("disk").replace("restartPolicy: Never", "restartPolicy: Always")
ENVELOPE = "limits: {concurrent: 3}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Give a repository with two operarios and two commits."""
    made = Repository(tmp_path / "origin")
    made.write("disk.yaml", operario_file("disk"))
    made.commit("First")
    made.write("node.yaml", operario_file("node"))
    made.commit("Second")
    return made


@pytest.fixture
async def replicas(
    repository: Repository, tmp_path: Path
) -> AsyncIterator[Callable[..., Follower]]:
    """Give a function that makes replicas of one cluster, each with a cache of its own."""
    async with followers(repository.url, tmp_path) as made:
        yield made


def change(repository: Repository, text: str = "changed") -> str:
    """Commit another version of an operario."""
    repository.write("disk.yaml", operario_file("disk", text))
    return repository.commit(text)


def rewrite(repository: Repository) -> str:
    """Put another commit in the place of the newest, as a force push does."""
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    return change(repository, "forced")


class TestBranches:
    """A branch, and the remote's default."""

    async def test_a_force_push_is_refused_until_it_continues_what_was_in_force(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """What was in force stays, the reader is told what to do, and doing it helps."""
        one = replicas(ref="main")
        await one.sync()
        before, in_force = one.commit, one.catalog
        forced = rewrite(repository)

        status = await one.sync()

        assert one.catalog is in_force
        assert status.error == (
            f"commit {forced[:12]} does not continue the active commit {before[:12]}: the ref was"
            f" rewritten, or points to another history; merge {before[:12]} into it, or set"
            " --follow-rewrites to allow this"
        )
        assert status.refused is not None
        assert (status.refused.commit, status.refused.reason) == (forced, status.error)
        repository.git("merge", "--quiet", "--strategy", "ours", "--no-edit", before)
        status = await one.sync()
        assert (status.error, one.commit) == (None, repository.head)

    async def test_a_force_push_is_followed_where_that_is_allowed(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Also by a replica that starts with the mirror of what was in force."""
        one = replicas(follow_rewrites=True)
        await one.sync()
        await one.mirror()
        forced = rewrite(repository)

        for replica in (one, replicas(follow_rewrites=True)):
            assert (await replica.start()).error is None
            assert replica.commit == forced

    async def test_a_branch_that_was_moved_back_is_refused_until_it_goes_on(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """An older commit was reviewed once, and something has been mended since."""
        one = replicas()
        await one.sync()
        before = one.commit
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        older = repository.head

        status = await one.sync()

        assert one.commit == before
        assert status.error == (
            f"commit {older[:12]} is older than the active commit {before[:12]}: the ref was"
            " moved back; use git revert to undo a change, or set --follow-rewrites to allow this"
        )
        repository.git("reset", "--quiet", "--hard", before)
        repository.git("revert", "--no-edit", "HEAD")
        assert (await one.sync()).error is None
        assert one.in_force == {DISK: repository.head}

    async def test_a_deleted_branch_empties_nothing_and_is_followed_again_when_it_is_back(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """It refuses no revision: there is none."""
        repository.branch("live")
        one = replicas(ref="live")
        await one.sync()
        in_force = one.catalog
        repository.switch("main")
        repository.git("branch", "-D", "live")

        status = await one.sync()

        assert one.catalog is in_force
        assert "there is no branch or tag live; correct --ref, or restore" in one.error
        assert status.refused is None
        repository.branch("live")
        commit = change(repository)
        assert (await one.sync()).error is None
        assert one.commit == commit

    async def test_a_tag_in_the_place_of_a_deleted_branch_must_continue_it(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Who may delete a branch and push a tag does not thereby choose what runs."""
        repository.branch("live")
        change(repository)
        one = replicas(ref="live")
        await one.sync()
        before = one.commit
        repository.switch("main")
        repository.git("branch", "-D", "live")
        repository.tag("live")

        await one.sync()

        assert one.commit == before
        assert "is older than" in one.error

    async def test_a_renamed_default_branch_is_followed(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """HEAD goes with the name; a ref that names the branch is told that it is gone."""
        by_default, by_name = replicas(), replicas(ref="main")
        for one in (by_default, by_name):
            await one.sync()
        before = by_name.commit
        repository.git("branch", "--move", "main", "trunk")
        commit = change(repository)

        for one in (by_default, by_name):
            await one.sync()

        assert (by_default.commit, by_default.error) == (commit, "")
        assert by_name.commit == before
        assert "there is no branch or tag main" in by_name.error
        repository.git("branch", "main")
        await by_name.sync()
        assert (by_name.commit, by_name.error) == (commit, "")

    async def test_another_default_branch_with_an_unrelated_history_is_refused(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Until the histories are joined by a person."""
        one = replicas()
        await one.sync()
        before = one.commit
        repository.git("checkout", "--quiet", "--orphan", "other")
        unrelated = change(repository, "unrelated")

        await one.sync()

        assert one.commit == before
        assert (
            f"commit {unrelated[:12]} does not continue the active commit {before[:12]}"
            in one.error
        )
        repository.git("merge", "--quiet", "-sours", "--allow-unrelated-histories", before)
        await one.sync()
        assert (one.commit, one.error) == (repository.head, "")


class TestTags:
    """A tag, annotated or not."""

    @pytest.mark.parametrize("message", ["", "annotated"])
    async def test_a_moved_tag_is_followed_forwards_alone(
        self, repository: Repository, replicas: Callable[..., Follower], message: str
    ) -> None:
        """Forwards is a release; back, or aside, is refused like a branch that was rewritten."""
        first = repository.git("rev-parse", "HEAD~1")
        repository.tag("live", message)
        one = replicas(ref="live")
        await one.sync()
        second = change(repository)
        options = ("--annotate", f"--message={message}") if message else ()
        repository.git("tag", "--force", *options, "live")
        await one.sync()
        assert (one.commit, one.error) == (second, "")

        repository.git("tag", "--force", *options, "live", first)
        await one.sync()
        assert one.commit == second
        assert f"commit {first[:12]} is older than the active commit {second[:12]}" in one.error
        aside = rewrite(repository)
        repository.git("tag", "--force", *options, "live")
        await one.sync()
        assert one.commit == second
        assert f"commit {aside[:12]} does not continue the active commit {second[:12]}" in one.error

        repository.git("tag", "--force", *options, "live", second)
        await one.sync()
        assert (one.commit, one.error) == (second, "")


class TestSettings:
    """A person's own word about what counts."""

    async def test_another_ref_in_the_settings_need_not_continue_the_one_before(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Going back to a pinned commit, or over to another branch, is what was asked for."""
        first = repository.git("rev-parse", "HEAD~1")
        one = replicas(ref="main")
        await one.sync()
        await one.mirror()

        pinned = replicas(ref=first)
        status = await pinned.start()

        assert (status.error, pinned.commit) == (None, first)
        await pinned.mirror()
        back = replicas(ref="main")
        status = await back.start()
        assert (status.error, back.commit) == (None, repository.head)


class TestRestart:
    """A replica that starts with an empty cache."""

    @pytest.mark.parametrize("damage", ["", "files"])
    @pytest.mark.parametrize("how", ["back", "aside"])
    async def test_what_was_in_force_before_a_restart_is_not_left(
        self, repository: Repository, replicas: Callable[..., Follower], how: str, damage: str
    ) -> None:
        """The mirror remembers it, even where its files are damaged: then nothing is in force."""
        one = replicas()
        await one.sync()
        before = one.commit
        await one.mirror()
        if damage:
            await drop_files(one.store)
        if how == "back":
            repository.git("reset", "--quiet", "--hard", "HEAD~1")
        else:
            rewrite(repository)

        fresh = replicas()
        status = await fresh.start()

        assert status.error is not None
        assert f"does not continue the active commit {before[:12]}" in status.error
        assert "the ref was moved back or rewritten" in status.error
        if damage:
            assert fresh.syncer.catalog is None
        else:
            assert (fresh.commit, status.origin) == (before, "mirror")
        repository.git("reset", "--quiet", "--hard", before)
        await fresh.sync()
        assert (fresh.commit, fresh.error) == (before, "")

    async def test_the_mirror_is_asked_before_anything_is_fetched(
        self,
        repository: Repository,
        replicas: Callable[..., Follower],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An API server that does not answer is no reason to forget what was in force."""
        monkeypatch.setattr("openfero_gitops.app._MIRROR_RETRY_SECONDS", 0.1)
        one = replicas()
        await one.sync()
        await one.mirror()
        before = one.commit
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        fresh = replicas()
        wire = Wire(fresh.cluster)
        failed: list[str] = []

        async def trouble(request: Request, act: Act) -> Any:
            if request.name == HEAD and len(failed) < 3:
                failed.append(str(controller.syncer.status.last_attempt))
                raise Unavailable("cannot connect")
            return await act()

        wire.trouble = trouble
        settings = load_settings(
            {
                "repo": repository.url,
                "listen": "127.0.0.1:0",
                "namespace": NAMESPACE,
                "cache_dir": tmp_path,
            }
        )
        where = settings.resolve_namespaces(NAMESPACE)
        controller = Controller(settings, where, wire, fresh.source, "in memory")
        stop = asyncio.Event()
        running = asyncio.create_task(controller.run(stop, lambda _: None))
        await until(lambda: controller.syncer.status.last_attempt)
        await until(controller.syncer.attempted.is_set)
        stop.set()
        await running

        assert failed == ["None"] * 3
        assert controller.syncer.catalog is not None
        assert controller.syncer.catalog.revision.commit == before
        assert "the ref was moved back or rewritten" in (controller.syncer.status.error or "")

    async def test_without_a_usable_tip_the_mirrors_revision_is_taken(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """And why the tip was refused is remembered over the restart, before it is fetched."""
        repository.write("openfero.yaml", ENVELOPE)
        good = repository.commit("Limits")
        one = replicas()
        await one.sync()
        repository.write("openfero.yaml", "limits: {concurent: 3}\n")
        bad = repository.commit("Misspelt")
        refused = (await one.sync()).refused
        assert refused is not None
        assert refused.commit == bad
        await one.mirror()

        fresh = replicas()
        await restore_from_mirror(fresh.store, fresh.syncer)

        assert fresh.syncer.status.refused == refused
        assert (fresh.commit, fresh.syncer.status.origin) == (good, "mirror")
        status = await fresh.sync()
        assert fresh.commit == good
        assert "concurent" in fresh.error
        assert status.refused is not None
        assert (status.refused.commit, status.refused.reason) == (bad, refused.reason)

    @pytest.mark.parametrize("why", ["envelope", "emptied", "path", "large"])
    async def test_without_a_mirror_the_newest_acceptable_ancestor_is_taken(
        self, repository: Repository, replicas: Callable[..., Follower], why: str
    ) -> None:
        """It is what a replica has that saw each commit; the reader is told of the tip."""
        repository.write("ops/openfero.yaml", ENVELOPE)
        repository.write("ops/disk.yaml", operario_file("disk"))
        repository.commit("Good")
        repository.write("ops/disk.yaml", operario_file("disk", "better"))
        good = repository.commit("Better")
        few = Budgets(files=5)
        lasting = replicas(path="ops", budgets=few)
        await lasting.sync()
        for number in range(2):
            told = spoil(repository, why, number)
            await lasting.sync()

        fresh = replicas(path="ops", budgets=few, cluster=MemoryCluster())
        status = await fresh.start()

        assert fresh.catalog == lasting.catalog
        assert (fresh.commit, status.origin) == (good, "git")
        assert told in fresh.error
        assert status.refused is not None
        assert status.refused.commit == repository.head
        assert status.failing_since is not None
        repository.git("revert", "--no-edit", "HEAD", "HEAD~1")
        await fresh.sync()
        assert (fresh.commit, fresh.error) == (repository.head, "")

    async def test_where_no_ancestor_is_acceptable_nothing_is_in_force(
        self, replicas: Callable[..., Follower]
    ) -> None:
        """There is nothing to fall back on, and that is said to be lasting."""
        one = replicas(path="nowhere")

        await one.start()

        assert one.syncer.catalog is None
        assert "nowhere does not exist" in (one.syncer.lasting_error or "")


class TestReplicas:
    """The catalog is a function of the commit."""

    @pytest.mark.parametrize("seed", range(3))
    async def test_a_fresh_replica_has_the_catalog_of_one_that_saw_each_commit(
        self, repository: Repository, replicas: Callable[..., Follower], seed: int
    ) -> None:
        """Broken files, their older versions, merges and removed files: on any history."""
        chance = Random(seed)  # noqa: S311 - the same history each time
        lasting = replicas()
        await lasting.sync()
        for number in range(12):
            name = chance.choice(["disk", "node", "extra"])
            good = operario_file(name, str(number))
            bad = good.replace("restartPolicy: Never", "restartPolicy: Always")
            if chance.random() < 0.2:
                repository.branch(f"side{number}")
                repository.write(f"{name}.yaml", good)
                repository.commit("Never in force")
                repository.write(f"{name}.yaml", bad)
                repository.commit("Broken at once")
                repository.switch("main")
                repository.merge(f"side{number}", "Merge")
            elif chance.random() < 0.15 and (repository.folder / f"{name}.yaml").exists():
                repository.delete(f"{name}.yaml")
                repository.commit("Removed")
            else:
                repository.write(f"{name}.yaml", chance.choice([good, bad, bad]))
                repository.commit(f"Change {number}")
            await lasting.sync()
        stale = [one for one in lasting.catalog.operarios if one.origin.stale]

        fresh = replicas(cluster=MemoryCluster())
        await fresh.start()

        assert lasting.error == fresh.error == ""
        assert fresh.catalog == lasting.catalog
        assert fresh.catalog.problems
        for one in stale:
            held = repository.git("show", f"{one.origin.commit}:{one.origin.path}")
            assert "restartPolicy: Never" in held

    async def test_an_older_version_stands_in_for_a_broken_file_on_both(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """The other file is of the newest commit, the stale one of the last that was good."""
        lasting = replicas()
        await lasting.sync()
        good = repository.head
        repository.write("disk.yaml", BROKEN)
        repository.commit("Broken")
        repository.write("node.yaml", operario_file("node", "newer"))
        tip = repository.commit("Newer")
        await lasting.sync()

        fresh = replicas(cluster=MemoryCluster())
        await fresh.start()

        assert fresh.in_force == lasting.in_force == {DISK: good, NODE: tip}
        assert fresh.catalog == lasting.catalog


def spoil(repository: Repository, why: str, number: int) -> str:
    """Commit what cannot be taken, and return what a reader is told of it."""
    match why:
        case "envelope":
            repository.write("ops/openfero.yaml", f"limit: {number}\n")
            told = "limit"
        case "emptied":
            if number == 0:
                repository.delete("ops")
            repository.write("ops/README.md", f"{number}")
            told = "has no YAML or JSON file in ops"
        case "path":
            if number == 0:
                repository.git("mv", "ops", "moved")
            repository.write("other.txt", f"{number}")
            told = "ops does not exist in commit"
        case _:
            for name in range(6):
                repository.write(f"ops/many/{name}.yaml", f"{number}")
            told = "more than 5 YAML and JSON files"
    repository.commit(f"Spoilt {number}")
    return told


async def drop_files(store: ConfigMapStore) -> None:
    """Delete every ConfigMap of the mirror but its head."""
    for one in await store.labelled("openfero.io/mirror=true"):
        if one["metadata"]["name"] != HEAD:
            await store.delete(one)

"""Which revision may become active after which: refs that move, disappear and are rewritten.

Each test checks what is active, what is reported, and the recovery.
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
from tests.support.follower import NAMESPACE, Follower
from tests.support.repository import Repository
from tests.support.workers import Wire, operario_file, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.cluster.config_maps import ConfigMapStore
    from tests.support.relay import Act, Request

DISK, NODE = "openfero-disk-firing", "openfero-node-firing"
BROKEN = operario_file("disk").replace("restartPolicy: Never", "restartPolicy: Always")
ENVELOPE = "limits: {concurrent: 3}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with two operarios and two commits."""
    repository = Repository(tmp_path / "origin")
    repository.write("disk.yaml", operario_file("disk"))
    repository.commit("First")
    repository.write("node.yaml", operario_file("node"))
    repository.commit("Second")
    return repository


def change(repository: Repository, text: str = "changed") -> str:
    """Commit another version of an operario."""
    repository.write("disk.yaml", operario_file("disk", text))
    return repository.commit(text)


def rewrite(repository: Repository) -> str:
    """Replace the newest commit, like a force push."""
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    return change(repository, "forced")


class TestBranches:
    """Test a branch, and the remote's default branch."""

    async def test_a_force_push_is_refused_until_it_continues_what_was_in_force(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """The former catalog stays active, the status has advice; following it resolves it."""
        replica = replicas(ref="main")
        await replica.sync()
        before, in_force = replica.commit, replica.catalog
        forced = rewrite(repository)

        status = await replica.sync()

        assert replica.catalog is in_force
        assert status.error == (
            f"commit {forced[:12]} does not continue the active commit {before[:12]}: the ref was"
            f" rewritten, or points to another history; merge {before[:12]} into it, or set"
            " --follow-rewrites to allow this"
        )
        assert status.refused is not None
        assert (status.refused.commit, status.refused.reason) == (forced, status.error)
        repository.git("merge", "--quiet", "--strategy", "ours", "--no-edit", before)
        status = await replica.sync()
        assert (status.error, replica.commit) == (None, repository.head)

    async def test_a_force_push_is_followed_if_allowed(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """This includes a replica that starts with the mirror of the former revision."""
        running = replicas(follow_rewrites=True)
        await running.sync()
        await running.mirror()
        forced = rewrite(repository)

        for replica in (running, replicas(follow_rewrites=True)):
            assert (await replica.start()).error is None
            assert replica.commit == forced

    async def test_a_branch_that_was_moved_back_is_refused_until_it_goes_on(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """An older commit may have a defect that was fixed since."""
        replica = replicas()
        await replica.sync()
        before = replica.commit
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        older = repository.head

        status = await replica.sync()

        assert replica.commit == before
        assert status.error == (
            f"commit {older[:12]} is older than the active commit {before[:12]}: the ref was"
            " moved back; use git revert to undo a change, or set --follow-rewrites to allow this"
        )
        repository.git("reset", "--quiet", "--hard", before)
        repository.git("revert", "--no-edit", "HEAD")
        assert (await replica.sync()).error is None
        assert replica.active == {DISK: repository.head}

    async def test_a_deleted_branch_empties_nothing_and_is_followed_again_when_it_is_back(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """No revision is rejected, because there is none."""
        repository.branch("live")
        replica = replicas(ref="live")
        await replica.sync()
        in_force = replica.catalog
        repository.switch("main")
        repository.git("branch", "-D", "live")

        status = await replica.sync()

        assert replica.catalog is in_force
        assert "there is no branch or tag live; correct --ref, or restore" in replica.error
        assert status.refused is None
        repository.branch("live")
        commit = change(repository)
        assert (await replica.sync()).error is None
        assert replica.commit == commit

    async def test_a_tag_in_the_place_of_a_deleted_branch_must_continue_it(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """A tag that replaces a deleted branch must continue the active commit."""
        repository.branch("live")
        change(repository)
        replica = replicas(ref="live")
        await replica.sync()
        before = replica.commit
        repository.switch("main")
        repository.git("branch", "-D", "live")
        repository.tag("live")

        await replica.sync()

        assert replica.commit == before
        assert "is older than" in replica.error

    async def test_a_renamed_default_branch_is_followed(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """HEAD follows the new name; a ref with the old name is an error."""
        by_default, by_name = replicas(), replicas(ref="main")
        for replica in (by_default, by_name):
            await replica.sync()
        before = by_name.commit
        repository.git("branch", "--move", "main", "trunk")
        commit = change(repository)

        for replica in (by_default, by_name):
            await replica.sync()

        assert (by_default.commit, by_default.error) == (commit, "")
        assert by_name.commit == before
        assert "there is no branch or tag main" in by_name.error
        repository.git("branch", "main")
        await by_name.sync()
        assert (by_name.commit, by_name.error) == (commit, "")

    async def test_another_default_branch_with_an_unrelated_history_is_refused(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """The error lasts until the histories are merged."""
        replica = replicas()
        await replica.sync()
        before = replica.commit
        repository.git("checkout", "--quiet", "--orphan", "other")
        unrelated = change(repository, "unrelated")

        await replica.sync()

        assert replica.commit == before
        assert (
            f"commit {unrelated[:12]} does not continue the active commit {before[:12]}"
            in replica.error
        )
        repository.git("merge", "--quiet", "-sours", "--allow-unrelated-histories", before)
        await replica.sync()
        assert (replica.commit, replica.error) == (repository.head, "")


class TestTags:
    """Test tags, annotated or not."""

    @pytest.mark.parametrize("message", ["", "annotated"])
    async def test_a_moved_tag_is_followed_forwards_alone(
        self, repository: Repository, replicas: Callable[..., Follower], message: str
    ) -> None:
        """A tag may move forward; moving back or aside is rejected like a rewritten branch."""
        first = repository.git("rev-parse", "HEAD~1")
        repository.tag("live", message)
        replica = replicas(ref="live")
        await replica.sync()
        second = change(repository)
        options = ("--annotate", f"--message={message}") if message else ()
        repository.git("tag", "--force", *options, "live")
        await replica.sync()
        assert (replica.commit, replica.error) == (second, "")

        repository.git("tag", "--force", *options, "live", first)
        await replica.sync()
        assert replica.commit == second
        assert f"commit {first[:12]} is older than the active commit {second[:12]}" in replica.error
        aside = rewrite(repository)
        repository.git("tag", "--force", *options, "live")
        await replica.sync()
        assert replica.commit == second
        assert (
            f"commit {aside[:12]} does not continue the active commit {second[:12]}"
            in replica.error
        )

        repository.git("tag", "--force", *options, "live", second)
        await replica.sync()
        assert (replica.commit, replica.error) == (second, "")


class TestSettings:
    """Test changes of the settings."""

    async def test_another_ref_in_the_settings_need_not_continue_the_one_before(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """A different ref may be older or unrelated, because the change is deliberate."""
        first = repository.git("rev-parse", "HEAD~1")
        running = replicas(ref="main")
        await running.sync()
        await running.mirror()

        pinned = replicas(ref=first)
        status = await pinned.start()

        assert (status.error, pinned.commit) == (None, first)
        await pinned.mirror()
        back = replicas(ref="main")
        status = await back.start()
        assert (status.error, back.commit) == (None, repository.head)


class TestRestart:
    """Test replicas that start with an empty cache."""

    @pytest.mark.parametrize("damage", ["", "files"])
    @pytest.mark.parametrize("how", ["back", "aside"])
    async def test_what_was_in_force_before_a_restart_is_not_left(
        self, repository: Repository, replicas: Callable[..., Follower], how: str, damage: str
    ) -> None:
        """The mirror keeps the active revision; if its files are damaged, none is active."""
        running = replicas()
        await running.sync()
        before = running.commit
        await running.mirror()
        if damage:
            await drop_files(running.store)
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
        """Without the API server the active revision is unknown, and Git is not used."""
        monkeypatch.setattr("openfero_gitops.app._MIRROR_RETRY_SECONDS", 0.1)
        mirrored = replicas()
        await mirrored.sync()
        await mirrored.mirror()
        before = mirrored.commit
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
        """The reason for the rejection is restored from the mirror, before Git is fetched."""
        repository.write("openfero.yaml", ENVELOPE)
        good = repository.commit("Limits")
        running = replicas()
        await running.sync()
        repository.write("openfero.yaml", "limits: {concurent: 3}\n")
        bad = repository.commit("Misspelt")
        refused = (await running.sync()).refused
        assert refused is not None
        assert refused.commit == bad
        await running.mirror()

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
        """This equals the catalog of a replica that saw each commit; the tip is reported."""
        repository.write("ops/openfero.yaml", ENVELOPE)
        repository.write("ops/disk.yaml", operario_file("disk"))
        repository.commit("Good")
        repository.write("ops/disk.yaml", operario_file("disk", "better"))
        good = repository.commit("Better")
        few = Budgets(files=5)
        lasting = replicas(path="ops", budgets=few)
        await lasting.sync()
        for number in range(2):
            message = spoil(repository, why, number)
            await lasting.sync()

        fresh = replicas(path="ops", budgets=few, cluster=MemoryCluster())
        status = await fresh.start()

        assert fresh.catalog == lasting.catalog
        assert (fresh.commit, status.origin) == (good, "git")
        assert message in fresh.error
        assert status.refused is not None
        assert status.refused.commit == repository.head
        assert status.failing_since is not None
        repository.git("revert", "--no-edit", "HEAD", "HEAD~1")
        await fresh.sync()
        assert (fresh.commit, fresh.error) == (repository.head, "")

    async def test_without_an_acceptable_ancestor_nothing_is_active(
        self, replicas: Callable[..., Follower]
    ) -> None:
        """There is no fallback, and the error is reported as lasting."""
        replica = replicas(path="nowhere")

        await replica.start()

        assert replica.syncer.catalog is None
        assert "nowhere does not exist" in (replica.syncer.lasting_error or "")


class TestReplicas:
    """Test that the catalog is a function of the commit."""

    @pytest.mark.parametrize("seed", range(3))
    async def test_a_fresh_replica_has_the_catalog_of_one_that_saw_each_commit(
        self, repository: Repository, replicas: Callable[..., Follower], seed: int
    ) -> None:
        """This includes broken files, their older versions, merges and removed files."""
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
                repository.commit("Never active")
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
        stale = [operario for operario in lasting.catalog.operarios if operario.origin.stale]

        fresh = replicas(cluster=MemoryCluster())
        await fresh.start()

        assert lasting.error == fresh.error == ""
        assert fresh.catalog == lasting.catalog
        assert fresh.catalog.problems
        for stale_operario in stale:
            held = repository.git(
                "show", f"{stale_operario.origin.commit}:{stale_operario.origin.path}"
            )
            assert "restartPolicy: Never" in held

    async def test_an_older_version_replaces_a_broken_file_on_both(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """The other file is of the newest commit, the stale one of the last valid commit."""
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

        assert fresh.active == lasting.active == {DISK: good, NODE: tip}
        assert fresh.catalog == lasting.catalog


def spoil(repository: Repository, why: str, number: int) -> str:
    """Commit something that is rejected, and return the expected message."""
    match why:
        case "envelope":
            repository.write("ops/openfero.yaml", f"limit: {number}\n")
            message = "limit"
        case "emptied":
            if number == 0:
                repository.delete("ops")
            repository.write("ops/README.md", f"{number}")
            message = "has no YAML or JSON file in ops"
        case "path":
            if number == 0:
                repository.git("mv", "ops", "moved")
            repository.write("other.txt", f"{number}")
            message = "ops does not exist in commit"
        case _:
            for name in range(6):
                repository.write(f"ops/many/{name}.yaml", f"{number}")
            message = "more than 5 YAML and JSON files"
    repository.commit(f"Spoilt {number}")
    return message


async def drop_files(store: ConfigMapStore) -> None:
    """Delete every ConfigMap of the mirror except its head."""
    config_maps: list[dict[str, Any]] = []
    await store.labelled("openfero.io/mirror=true", config_maps.append)
    for config_map in config_maps:
        if config_map["metadata"]["name"] != HEAD:
            await store.delete(config_map)

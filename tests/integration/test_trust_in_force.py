"""What signatures keep out of force, and what stays: the whole way from a push to a Job."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.catalog.mirror import write_mirror
from openfero_gitops.catalog.mirrorer import load_mirror, restore_from_mirror
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain import keys
from openfero_gitops.domain.signature import Verify
from openfero_gitops.jobs.render import render
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.web import shapes
from tests.support.build import alert, delivery
from tests.support.follower import NAMESPACE, Follower, followers
from tests.support.repository import Repository
from tests.support.signing import allow, fingerprint, ssh_signer, stop_signing
from tests.support.workers import operario_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.signing import Signer

DISK = "openfero-disk-firing"
BROKEN = operario_file("disk").replace("restartPolicy: Never", "restartPolicy: Always")


@pytest.fixture
def ada(tmp_path: Path) -> Signer:
    """Give somebody who is trusted."""
    return ssh_signer(tmp_path, "ada@git.example")


@pytest.fixture
def trust(ada: Signer, tmp_path: Path) -> Trust:
    """Demand commits that Ada signed."""
    return Trust(Verify.COMMIT, allow(tmp_path / "allowed_signers", ada))


@pytest.fixture
def repository(tmp_path: Path, ada: Signer) -> Repository:
    """Give a repository with one operario, in a commit that Ada signed."""
    made = Repository(tmp_path / "origin")
    ada.sign_in(made)
    made.write("disk.yaml", operario_file("disk"))
    made.commit("Reviewed")
    return made


@pytest.fixture
async def replicas(
    repository: Repository, tmp_path: Path, trust: Trust
) -> AsyncIterator[Callable[..., Follower]]:
    """Give a function that makes replicas of one cluster, each with a cache of its own."""
    async with followers(repository.url, tmp_path, trust=trust) as made:
        yield made


def change(repository: Repository, text: str) -> str:
    """Commit another version of an operario."""
    repository.write("disk.yaml", operario_file("disk", text))
    return repository.commit(text)


class TestRefused:
    """A revision that nobody who is trusted signed."""

    async def test_an_unsigned_push_leaves_what_is_in_force_until_a_signer_looked_at_it(
        self, repository: Repository, replicas: Callable[..., Follower], ada: Signer
    ) -> None:
        """The reader is told which commit, why, and who must do what; it is done, and helps."""
        one = replicas()
        await one.sync()
        in_force = one.catalog
        stop_signing(repository)
        pushed = change(repository, "pushed")

        status = await one.sync()

        assert one.catalog is in_force
        assert status.error == (
            f"Git repository {repository.url}: commit {pushed[:12]} is not signed; have a trusted"
            " signer sign a commit on top of it (git commit --allow-empty --gpg-sign)"
        )
        assert status.refused is not None
        assert (status.refused.commit, status.refused.reason) == (pushed, status.error)
        assert shapes.sync(status)["refused"]["commit"] == pushed
        ada.sign_in(repository)
        commit = repository.commit("I have looked at it")
        assert (await one.sync()).error is None
        assert one.in_force == {DISK: commit}

    async def test_an_unsigned_commit_that_says_paused_pauses(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """To let nothing start is the safe side: it takes a push, and `resume` outweighs it."""
        one = replicas()
        await one.sync()
        stop_signing(repository)
        repository.write("openfero.yaml", "paused: true\n")
        repository.commit("Stop!")

        await one.sync()

        assert one.syncer.pause
        assert not one.catalog.envelope.paused

    async def test_a_fresh_replica_takes_the_newest_signed_ancestor(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Not the tip, not what is older still: what the other replicas have in force."""
        signed = change(repository, "signed")
        lasting = replicas()
        await lasting.sync()
        stop_signing(repository)
        change(repository, "unsigned")
        change(repository, "unsigned, too")
        await lasting.sync()

        fresh = replicas(cluster=MemoryCluster())
        status = await fresh.start()

        assert fresh.catalog == lasting.catalog
        assert fresh.in_force == {DISK: signed}
        assert "is not signed" in (status.error or "")

    async def test_limits_that_only_an_unsigned_commit_held_are_missed_all_the_same(
        self, repository: Repository, replicas: Callable[..., Follower], ada: Signer
    ) -> None:
        """That something was there is no reason to trust it, and reason enough to ask."""
        reviewed = repository.head
        stop_signing(repository)
        repository.write("openfero.yaml", "limits: {concurrent: 1}\n")
        repository.commit("Unsigned limits")
        ada.sign_in(repository)
        repository.delete("openfero.yaml")
        repository.commit("Signed, without limits")
        fresh = replicas()

        await fresh.start()

        assert "openfero.yaml was deleted" in fresh.error
        assert fresh.commit == reviewed

    async def test_a_commit_dated_before_the_one_in_force_is_refused(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """A key is held against the date that its holder wrote: one that ran out signs no more."""
        one = replicas()
        await one.sync()
        before = one.commit
        repository._clock = 1_500_000_000
        dated = change(repository, "said to be of 2017")

        for replica in (one, replicas()):
            if replica is one:
                await one.mirror()
            await replica.start()
            assert replica.commit == before
            assert f"commit {dated[:12]} is dated" in replica.error
        repository._clock = 1_790_100_000
        commit = repository.commit("Of today")
        await one.sync()
        assert (one.commit, one.error) == (commit, "")

    async def test_a_signer_whose_clock_is_ahead_locks_nobody_out(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """What is dated today is not refused for a commit that is dated in seventy years."""
        one = replicas()
        repository._clock = 4_000_000_000
        change(repository, "said to be of 2096")
        await one.sync()
        repository._clock = int(time.time())
        commit = change(repository, "of today")

        await one.sync()

        assert (one.commit, one.error) == (commit, "")


class TestStale:
    """An older version that stands in for a broken file."""

    async def test_an_unsigned_version_never_stands_in(
        self, repository: Repository, replicas: Callable[..., Follower], ada: Signer
    ) -> None:
        """Who may push, and has no key, cannot bring a version in by breaking the next one."""
        lasting = replicas()
        await lasting.sync()
        reviewed = lasting.commit
        stop_signing(repository)
        change(repository, "evil")
        ada.sign_in(repository)
        repository.write("disk.yaml", BROKEN)
        repository.commit("Broken by a signer")
        await lasting.sync()

        fresh = replicas(cluster=MemoryCluster())
        await fresh.start()

        assert lasting.in_force == {DISK: reviewed}
        assert fresh.catalog == lasting.catalog
        [operario] = fresh.catalog.operarios
        assert operario.origin.stale
        assert operario.origin.verified_signer.startswith("ada@git.example ")
        assert "evil" not in str(operario.job)

    async def test_a_tag_lets_no_older_version_in(
        self,
        repository: Repository,
        replicas: Callable[..., Follower],
        trust: Trust,
    ) -> None:
        """A broken file is left out then, and the reader is told of it."""
        repository.write("node.yaml", operario_file("node"))
        repository.write("disk.yaml", BROKEN)
        repository.commit("Broken")
        repository.tag("live", "Released")
        one = replicas(ref="live", trust=Trust(Verify.TAG, trust.allowed_signers_file))

        await one.start()

        assert list(one.in_force) == ["openfero-node-firing"]
        assert [problem.path for problem in one.catalog.problems if problem.is_error] == [
            "disk.yaml"
        ]


class TestMirror:
    """What a restart without Git begins with."""

    async def test_the_signer_comes_back_from_the_mirror_and_is_on_the_job(
        self, repository: Repository, replicas: Callable[..., Follower], tmp_path: Path, ada: Signer
    ) -> None:
        """Also for an older version that stands in, whose signer may be another."""
        repository.write("node.yaml", operario_file("node"))
        repository.write("disk.yaml", BROKEN)
        repository.commit("Broken")
        one = replicas()
        await one.sync()
        await one.mirror()
        repository.folder.rename(tmp_path / "away")

        fresh = replicas()
        status = await fresh.start()

        signer = f"ada@git.example {fingerprint(ada, tmp_path)}"
        assert status.origin == "mirror"
        assert status.revision is not None
        assert status.revision.verified_signer == signer
        assert fresh.catalog.operarios == one.catalog.operarios
        for operario in fresh.catalog.operarios:
            rendered = render(
                alert(),
                operario,
                fresh.catalog.envelope,
                fresh.catalog.revision,
                delivery(),
                jobs_namespace="jobs",
            )
            annotations = rendered.manifest["metadata"]["annotations"]
            assert annotations[keys.VERIFIED_SIGNER] == signer

    async def test_a_mirror_without_a_signer_is_not_used_where_one_is_demanded(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Signatures were demanded since: what came in before does not stay by a restart."""
        stop_signing(repository)
        change(repository, "unsigned")
        before = replicas(trust=Trust())
        await before.sync()
        await before.mirror()

        fresh = replicas()
        await restore_from_mirror(fresh.store, fresh.syncer)
        assert fresh.syncer.catalog is None
        await fresh.sync()

        assert fresh.commit == repository.git("rev-parse", "HEAD~1")
        assert "is not signed" in fresh.error

    async def test_a_mirror_of_another_time_binds_a_replica_that_starts(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """A forge that shows an older signed commit to a fresh replica does not get it in."""
        older = repository.head
        newest = change(repository, "mended")
        one = replicas()
        await one.sync()
        await one.mirror()
        repository.git("reset", "--quiet", "--hard", older)

        fresh = replicas()
        await fresh.start()

        assert fresh.commit == newest
        assert (
            f"commit {older[:12]} does not continue the active commit {newest[:12]}" in fresh.error
        )

    async def test_a_mirror_that_was_made_by_somebody_else_does_not_come_into_force(
        self, repository: Repository, replicas: Callable[..., Follower], tmp_path: Path
    ) -> None:
        """Whoever may write ConfigMaps makes every digest, and claims any signer."""
        one = replicas(keys=[b"the key of the mirror"])
        await one.sync()
        await one.mirror()
        snapshot, _ = await load_mirror(one.store) or pytest.fail("there is no mirror")
        evil = replace(snapshot.files[0], content=operario_file("disk", "evil").encode())
        forged = write_mirror(replace(snapshot, files=(evil,)), NAMESPACE)
        for body in (forged.head, *forged.shards):
            await one.store.put(body, lambda: None)
        repository.folder.rename(tmp_path / "away")

        fooled, warned = replicas(), replicas(keys=[b"the key of the mirror"])
        for replica in (fooled, warned):
            await replica.start()

        assert "evil" in str(fooled.catalog.operarios)
        assert warned.syncer.catalog is None
        (tmp_path / "away").rename(repository.folder)
        await warned.sync()
        assert warned.catalog == one.catalog
        await warned.mirror()
        assert await load_mirror(one.store, lambda: warned.keys) == (snapshot, None)


class TestAttackers:
    """What somebody can do who has taken a part of the way."""

    async def test_a_stolen_token_changes_nothing_that_is_in_force(
        self, repository: Repository, replicas: Callable[..., Follower], tmp_path: Path
    ) -> None:
        """Pushing, forcing, deleting, tagging, signing with a key of one's own: all in vain."""
        eve = ssh_signer(tmp_path, "eve@git.example")
        older = repository.head
        reviewed = change(repository, "reviewed")
        one = replicas(ref="main")
        await one.sync()
        in_force = one.catalog

        async def in_vain(told: str) -> None:
            assert told in ((await one.sync()).error or "nothing")
            assert one.catalog is in_force
            repository.git("checkout", "--quiet", "-B", "main", reviewed)

        stop_signing(repository)
        change(repository, "pushed")
        await in_vain("is not signed")
        eve.sign_in(repository)
        change(repository, "signed with a key of one's own")
        await in_vain("not an allowed signer")
        repository.git("reset", "--quiet", "--hard", older)
        await in_vain("is older than")
        repository.git("reset", "--quiet", "--hard", older)
        change(repository, "forced")
        await in_vain("not an allowed signer")
        stop_signing(repository)
        repository.tag("main")
        repository.git("checkout", "--quiet", "--detach")
        repository.git("branch", "-D", "main")
        change(repository, "behind a tag")
        repository.git("tag", "--force", "main")
        await in_vain("is not signed")

        assert (await one.sync()).error is None
        assert one.catalog is in_force

    async def test_a_forge_cannot_pass_a_commit_off_as_signed(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Another tree under a signature that was made for one, and another author's name."""
        one = replicas()
        await one.sync()
        in_force = one.catalog
        signed = repository.git("cat-file", "commit", repository.head)
        change(repository, "evil")
        tree = repository.git("rev-parse", "HEAD^{tree}")
        for forged in (
            signed.replace(signed.split()[1], tree),
            signed.replace("author Ada Example", "author Eve Example"),
        ):
            commit = repository.git(
                *("hash-object", "-w", "-t", "commit", "--stdin"), stdin=f"{forged}\n".encode()
            )
            repository.git("update-ref", "refs/heads/main", commit)

            await one.sync()

            assert one.catalog is in_force
            assert f"the signature of commit {commit[:12]} is not valid" in one.error

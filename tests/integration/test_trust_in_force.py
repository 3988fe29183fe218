"""Signature checks from a push to a Job: what is rejected and what stays active."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.catalog.mirror import write_mirror
from openfero_gitops.catalog.mirrorer import load_mirror, restore_from_mirror
from openfero_gitops.demo.cluster import MemoryCluster
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import blob_id
from openfero_gitops.domain.signature import Verify
from openfero_gitops.jobs.render import render
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.web.api.sync_shape import sync_shape
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
    """Create a trusted signer."""
    return ssh_signer(tmp_path, "ada@git.example")


@pytest.fixture
def trust(ada: Signer, tmp_path: Path) -> Trust:
    """Require commits signed by Ada."""
    return Trust(Verify.COMMIT, allow(tmp_path / "allowed_signers", ada))


@pytest.fixture
def repository(tmp_path: Path, ada: Signer) -> Repository:
    """Create a repository with one operario, in a commit signed by Ada."""
    repository = Repository(tmp_path / "origin")
    ada.sign_in(repository)
    repository.write("disk.yaml", operario_file("disk"))
    repository.commit("Reviewed")
    return repository


@pytest.fixture
async def replicas(
    repository: Repository, tmp_path: Path, trust: Trust
) -> AsyncIterator[Callable[..., Follower]]:
    """Return a function that creates replicas of one cluster, each with its own cache."""
    async with followers(repository.url, tmp_path, trust=trust) as make_replica:
        yield make_replica


def change(repository: Repository, text: str) -> str:
    """Commit another version of an operario."""
    repository.write("disk.yaml", operario_file("disk", text))
    return repository.commit(text)


class TestRefused:
    """Test revisions without a trusted signature."""

    async def test_an_unsigned_push_is_rejected_until_a_signer_approves_it(
        self, repository: Repository, replicas: Callable[..., Follower], ada: Signer
    ) -> None:
        """The status says which commit was rejected, why, and what to do; that resolves it."""
        replica = replicas()
        await replica.sync()
        in_force = replica.catalog
        stop_signing(repository)
        pushed = change(repository, "pushed")

        status = await replica.sync()

        assert replica.catalog is in_force
        assert status.error == (
            f"Git repository {repository.url}: commit {pushed[:12]} is not signed; have a trusted"
            " signer sign a commit on top of it (git commit --allow-empty --gpg-sign)"
        )
        assert status.refused is not None
        assert (status.refused.commit, status.refused.reason) == (pushed, status.error)
        assert sync_shape(status).refused.commit == pushed
        ada.sign_in(repository)
        commit = repository.commit("I have looked at it")
        assert (await replica.sync()).error is None
        assert replica.active == {DISK: commit}

    async def test_an_unsigned_commit_that_says_paused_pauses(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Pausing is safe, so it needs only a push; `resume` overrides it."""
        replica = replicas()
        await replica.sync()
        stop_signing(repository)
        repository.write("openfero.yaml", "paused: true\n")
        repository.commit("Stop!")

        await replica.sync()

        assert replica.syncer.pause
        assert not replica.catalog.envelope.paused

    async def test_a_fresh_replica_takes_the_newest_signed_ancestor(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """A new replica starts with the newest signed ancestor, as other replicas have it."""
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
        assert fresh.active == {DISK: signed}
        assert "is not signed" in (status.error or "")

    async def test_limits_that_only_an_unsigned_commit_had_are_missed(
        self, repository: Repository, replicas: Callable[..., Follower], ada: Signer
    ) -> None:
        """An envelope in an unsigned ancestor is not trusted, but its absence is reported."""
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
        """A commit dated before the active one is rejected, so that an expired key cannot sign."""
        running = replicas()
        await running.sync()
        before = running.commit
        repository._clock = 1_500_000_000
        dated = change(repository, "said to be of 2017")

        for replica in (running, replicas()):
            if replica is running:
                await running.mirror()
            await replica.start()
            assert replica.commit == before
            assert f"commit {dated[:12]} is dated" in replica.error
        repository._clock = 1_790_100_000
        commit = repository.commit("Of today")
        await running.sync()
        assert (running.commit, running.error) == (commit, "")

    async def test_a_signer_whose_clock_is_ahead_blocks_nobody(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """A commit dated in the far future does not cause later commits to be rejected."""
        replica = replicas()
        repository._clock = 4_000_000_000
        change(repository, "said to be of 2096")
        await replica.sync()
        repository._clock = int(time.time())
        commit = change(repository, "of today")

        await replica.sync()

        assert (replica.commit, replica.error) == (commit, "")


class TestStale:
    """Test older versions that replace a broken file."""

    async def test_an_unsigned_version_never_stands_in(
        self, repository: Repository, replicas: Callable[..., Follower], ada: Signer
    ) -> None:
        """Without a key, breaking a file cannot activate an unsigned version of it."""
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

        assert lasting.active == {DISK: reviewed}
        assert fresh.catalog == lasting.catalog
        [operario] = fresh.catalog.operarios
        assert operario.origin.stale
        assert operario.origin.verified_signer.startswith("ada@git.example ")
        assert "evil" not in str(operario.job)

    async def test_a_tag_activates_no_older_version(
        self,
        repository: Repository,
        replicas: Callable[..., Follower],
        trust: Trust,
    ) -> None:
        """A broken file is left out, and this is reported."""
        repository.write("node.yaml", operario_file("node"))
        repository.write("disk.yaml", BROKEN)
        repository.commit("Broken")
        repository.tag("live", "Released")
        replica = replicas(ref="live", trust=Trust(Verify.TAG, trust.allowed_signers_file))

        await replica.start()

        assert list(replica.active) == ["openfero-node-firing"]
        assert [problem.path for problem in replica.catalog.problems if problem.is_error] == [
            "disk.yaml"
        ]


class TestMirror:
    """Test restarts without Git, from the mirror."""

    async def test_the_signer_comes_back_from_the_mirror_and_is_on_the_job(
        self, repository: Repository, replicas: Callable[..., Follower], tmp_path: Path, ada: Signer
    ) -> None:
        """This includes an older version of a file, whose signer may differ."""
        repository.write("node.yaml", operario_file("node"))
        repository.write("disk.yaml", BROKEN)
        repository.commit("Broken")
        replica = replicas()
        await replica.sync()
        await replica.mirror()
        repository.folder.rename(tmp_path / "away")

        fresh = replicas()
        status = await fresh.start()

        signer = f"ada@git.example {fingerprint(ada, tmp_path)}"
        assert status.origin == "mirror"
        assert status.revision is not None
        assert status.revision.verified_signer == signer
        assert fresh.catalog.operarios == replica.catalog.operarios
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
        """After signatures become required, a restart does not activate an unsigned mirror."""
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
        """A new replica rejects a signed commit that is older than the mirror's."""
        older = repository.head
        newest = change(repository, "mended")
        replica = replicas()
        await replica.sync()
        await replica.mirror()
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
        """With write access to ConfigMaps anyone can compute digests and claim any signer."""
        mirrored = replicas(keys=[b"the key of the mirror"])
        await mirrored.sync()
        await mirrored.mirror()
        snapshot, _ = await load_mirror(mirrored.store) or pytest.fail("there is no mirror")
        content = operario_file("disk", "evil").encode()
        evil = replace(snapshot.files[0], content=content, blob=blob_id(content))
        forged = write_mirror(replace(snapshot, files=(evil,)), NAMESPACE)
        for body in (forged.head, *forged.shards):
            await mirrored.store.put(body, lambda: None)
        repository.folder.rename(tmp_path / "away")

        fooled, warned = replicas(), replicas(keys=[b"the key of the mirror"])
        for replica in (fooled, warned):
            await replica.start()

        assert "evil" in str(fooled.catalog.operarios)
        assert warned.syncer.catalog is None
        (tmp_path / "away").rename(repository.folder)
        await warned.sync()
        assert warned.catalog == mirrored.catalog
        await warned.mirror()
        assert await load_mirror(mirrored.store, lambda: warned.keys) == (snapshot, None)


class TestAttackers:
    """Test attackers who control a part of the path."""

    async def test_a_stolen_token_changes_nothing_that_is_in_force(
        self, repository: Repository, replicas: Callable[..., Follower], tmp_path: Path
    ) -> None:
        """Pushing, forcing, deleting, tagging and signing with an untrusted key have no effect."""
        eve = ssh_signer(tmp_path, "eve@git.example")
        older = repository.head
        reviewed = change(repository, "reviewed")
        replica = replicas(ref="main")
        await replica.sync()
        in_force = replica.catalog

        async def has_no_effect(message: str) -> None:
            assert message in ((await replica.sync()).error or "nothing")
            assert replica.catalog is in_force
            repository.git("checkout", "--quiet", "-B", "main", reviewed)

        stop_signing(repository)
        change(repository, "pushed")
        await has_no_effect("is not signed")
        eve.sign_in(repository)
        change(repository, "signed with a key of one's own")
        await has_no_effect("not an allowed signer")
        repository.git("reset", "--quiet", "--hard", older)
        await has_no_effect("is older than")
        repository.git("reset", "--quiet", "--hard", older)
        change(repository, "forced")
        await has_no_effect("not an allowed signer")
        stop_signing(repository)
        repository.tag("main")
        repository.git("checkout", "--quiet", "--detach")
        repository.git("branch", "-D", "main")
        change(repository, "behind a tag")
        repository.git("tag", "--force", "main")
        await has_no_effect("is not signed")

        assert (await replica.sync()).error is None
        assert replica.catalog is in_force

    async def test_a_forge_cannot_pass_a_commit_off_as_signed(
        self, repository: Repository, replicas: Callable[..., Follower]
    ) -> None:
        """Another tree under an existing signature, and a forged author, are rejected."""
        replica = replicas()
        await replica.sync()
        in_force = replica.catalog
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

            await replica.sync()

            assert replica.catalog is in_force
            assert f"the signature of commit {commit[:12]} is not valid" in replica.error

"""Repositories whose IDs are SHA-256: 64 digits instead of 40."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import SourceError, Unverified
from openfero_gitops.domain.signature import Verify
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from tests.support.git_servers import file_server, http_server, ssh_server
from tests.support.repository import AUTHOR, Repository, lose
from tests.support.signing import allow, key_ring, ssh_signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario and three commits."""
    repository = Repository(tmp_path / "origin", object_format="sha256")
    for number in (1, 2, 3):
        repository.write("a.yaml", f"a: {number}\n")
        repository.commit(f"Commit {number}")
    return repository


@dataclass(frozen=True)
class Address:
    """Where a repository is, and how it is reached."""

    url: str
    access: GitAccess


@pytest.fixture(params=["file", "http", "dumb http", "ssh"])
def address(
    request: pytest.FixtureRequest, repository: Repository, tmp_path: Path
) -> Iterator[Address]:
    """Serve the repository by one transport."""
    folder = repository.folder
    match request.param:
        case "file":
            yield Address(repository.url, GitAccess())
        case "http":
            with http_server(folder.parent) as server:
                yield Address(server.url("origin"), GitAccess())
        case "dumb http":
            repository.git("update-server-info")
            with file_server(folder) as url:
                yield Address(f"{url}/.git", GitAccess())
        case "ssh":
            (tmp_path / "sshd").mkdir()
            with ssh_server(tmp_path / "sshd") as sshd:
                access = GitAccess(ssh_key_file=sshd.key, known_hosts_file=sshd.known_hosts)
                yield Address(sshd.url(folder), access)


async def fetch(url: str, tmp_path: Path, **settings: Any) -> Snapshot:
    """Fetch once with a new source, which uses the same cache each time."""
    source = GitSource(GitSettings(url=url, cache_dir=tmp_path / "cache", **settings))
    try:
        return await source.fetch()
    finally:
        await source.aclose()


async def test_a_repository_is_read_over_each_transport(
    repository: Repository, address: Address, tmp_path: Path
) -> None:
    """The first fetch makes a cache with the remote's hash; the next ones use it."""
    first = await fetch(address.url, tmp_path, access=address.access)
    [cache] = (tmp_path / "cache").iterdir()
    inode = (cache / "repository.git").stat().st_ino
    repository.write("b.yaml", "b: 1\n")
    newest = repository.commit("Another file")
    repository.git("update-server-info")
    second = await fetch(address.url, tmp_path, access=address.access)

    assert (len(first.revision.commit), first.revision.author) == (64, AUTHOR)
    assert first.files[0].blob == repository.git("rev-parse", "HEAD:a.yaml")
    assert second.revision.commit == newest
    assert [file.content for file in second.files] == [b"a: 3\n", b"b: 1\n"]
    assert (cache / "repository.git").stat().st_ino == inode


@pytest.mark.parametrize("ref", ["HEAD", "main", "v1", "v2", "refs/tags/v2", "commit", "older"])
async def test_each_kind_of_ref_is_resolved(
    repository: Repository, tmp_path: Path, ref: str
) -> None:
    """Branches, tags, annotated tags and full commit IDs name commits."""
    repository.tag("v1")
    repository.tag("v2", "Second")
    commit = repository.head
    if ref == "older":
        commit = ref = repository.git("rev-parse", "HEAD~1")
    elif ref == "commit":
        ref = commit

    assert (await fetch(repository.url, tmp_path, ref=ref)).revision.commit == commit


async def test_the_history_of_a_file_is_read(repository: Repository, tmp_path: Path) -> None:
    """Older versions, ancestors and merge bases are found, as in any repository."""
    oldest, middle, newest = repository.git("rev-list", "--reverse", "HEAD").split()
    source = GitSource(GitSettings(url=repository.url, cache_dir=tmp_path / "cache"))
    try:
        await source.fetch()
        versions = await source.versions("a.yaml", newest)
        assert [(file.commit, file.content) for file in versions] == [
            (middle, b"a: 2\n"),
            (oldest, b"a: 1\n"),
        ]
        assert await source.existed("a.yaml", newest)
        assert await source.ancestors(newest) == [middle, oldest]
        assert await source.merge_base(oldest, newest) == oldest
        assert await source.is_ancestor(oldest, newest)
        assert not await source.is_ancestor("0" * 40, newest)
        assert (await source.snapshot(oldest)).files[0].content == b"a: 1\n"
    finally:
        await source.aclose()


async def test_a_long_history_is_deepened_when_needed(
    repository: Repository, tmp_path: Path
) -> None:
    """A commit older than what the first fetch brings is fetched when it is asked for."""
    oldest = repository.git("rev-list", "--max-parents=0", "HEAD")
    for number in range(120):
        repository.commit(f"Empty {number}")
    source = GitSource(GitSettings(url=repository.url, cache_dir=tmp_path / "cache"))
    try:
        newest = (await source.fetch()).revision.commit
        assert await source.is_ancestor(oldest, newest)
    finally:
        await source.aclose()


async def test_a_rewritten_branch_is_followed(repository: Repository, tmp_path: Path) -> None:
    """The new commit is read, and the former one is found not to be its ancestor."""
    former = repository.head
    source = GitSource(GitSettings(url=repository.url, cache_dir=tmp_path / "cache"))
    try:
        await source.fetch()
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        rewritten = repository.commit("Rewritten")
        assert (await source.fetch()).revision.commit == rewritten
        assert not await source.is_ancestor(former, rewritten)
    finally:
        await source.aclose()


async def test_a_lost_blob_makes_a_new_cache_of_the_same_hash(
    repository: Repository, tmp_path: Path
) -> None:
    """Contents are compared with their IDs, and what is missing is fetched again."""
    blob = (await fetch(repository.url, tmp_path)).files[0].blob
    [cache] = (tmp_path / "cache").iterdir()
    lose(cache / "repository.git", blob)
    repository.commit("News")

    assert (await fetch(repository.url, tmp_path)).files[0].content == b"a: 3\n"


@pytest.mark.parametrize(("before", "after"), [("sha1", "sha256"), ("sha256", "sha1")])
@pytest.mark.parametrize("protocol", ["file", "http", "old http"])
async def test_a_repository_that_is_converted_is_fetched_anew(
    tmp_path: Path, before: str, after: str, protocol: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A remote that changes its hash is no damage of the cache; the old commit is no ancestor."""
    folder = tmp_path / "origin"
    former = Repository(folder, object_format=before)
    former.write("a.yaml", "a: 1\n")
    old_commit = former.commit("First")
    with http_server(tmp_path) as server:
        server.old_protocol = protocol == "old http"
        url = former.url if protocol == "file" else server.url("origin")
        source = GitSource(GitSettings(url=url, cache_dir=tmp_path / "cache"))
        try:
            await source.fetch()
            shutil.rmtree(folder)
            converted = Repository(folder, object_format=after)
            converted.write("a.yaml", "a: 1\n")
            commit = converted.commit("Converted")
            snapshot = await source.fetch()
            assert not await source.is_ancestor(old_commit, commit)
        finally:
            await source.aclose()

    assert snapshot.revision.commit == commit
    assert snapshot.files[0].content == b"a: 1\n"
    log = capfd.readouterr().out
    assert "changed its object format" in log
    assert "damaged" not in log


async def test_a_commit_id_of_the_other_hash_is_not_found(
    repository: Repository, tmp_path: Path
) -> None:
    """A ref of 40 digits is no commit of a repository with 64."""
    with pytest.raises(SourceError, match=f"no commit {'a' * 40} on any branch"):
        await fetch(repository.url, tmp_path, ref="a" * 40)


@pytest.mark.parametrize("kind", ["ssh", "openpgp"])
@pytest.mark.parametrize("verify", [Verify.COMMIT, Verify.TAG])
async def test_signatures_are_verified(
    repository: Repository, tmp_path: Path, kind: str, verify: Verify
) -> None:
    """A trusted signer's commit or tag is accepted, another's and an unsigned one are refused."""
    ref = "v1" if verify is Verify.TAG else "HEAD"

    def publish() -> None:
        repository.commit("News")
        repository.git("tag", "--force", "--annotate", "--message", "Release", "v1")

    with key_ring() as ring:
        if kind == "ssh":
            ada, eve = (ssh_signer(tmp_path, f"{name}@git.example") for name in ("ada", "eve"))
            trust = Trust(verify, allow(tmp_path / "allowed_signers", ada))
        else:
            ada, eve = (ring.signer(f"{name} <{name}@git.example>") for name in ("Ada", "Eve"))
            keyring = tmp_path / "keyring"
            keyring.write_bytes(ring.export(ada))
            trust = Trust(verify, openpgp_keyring_file=keyring)
        publish()
        with pytest.raises(Unverified, match="is not signed"):
            await fetch(repository.url, tmp_path, ref=ref, trust=trust)
        eve.sign_in(repository)
        publish()
        with pytest.raises(Unverified, match=r"not an\W+allowed signer|not in the keyring"):
            await fetch(repository.url, tmp_path, ref=ref, trust=trust)
        ada.sign_in(repository)
        publish()
        snapshot = await fetch(repository.url, tmp_path, ref=ref, trust=trust)

    assert snapshot.revision.commit == repository.head
    assert "ada" in snapshot.revision.verified_signer.lower()


async def test_the_first_fetch_costs_two_requests_more(
    repository: Repository, tmp_path: Path
) -> None:
    """SHA-1 is tried first, which most repositories use; nothing is transferred by that."""
    common = Repository(tmp_path / "common")
    for number in (1, 2, 3):
        common.write("a.yaml", f"a: {number}\n")
        common.commit(f"Commit {number}")
    counts = []
    with http_server(tmp_path) as server:
        for name in ("common", repository.folder.name):
            server.hosts.clear()
            await fetch(server.url(name), tmp_path)
            counts.append(len(server.hosts))

    assert counts[1] <= counts[0] + 2


def test_git_agrees(repository: Repository) -> None:
    """The fixture really has another hash."""
    printed = subprocess.run(
        ["git", "-C", str(repository.folder), "rev-parse", "--show-object-format"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert printed.stdout == b"sha256\n"

"""Reading a repository commit by commit, and the robustness of the cache."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import time
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.errors import SourceError
from openfero_gitops.domain.problem import Severity
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.tree import Budgets
from tests.support.descendants import descendants, open_files
from tests.support.optional import missing
from tests.support.paths import ROOT
from tests.support.repository import AUTHOR, Repository, lose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot


_NOBODY = 65534


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with one operario at its root."""
    repository = Repository(tmp_path / "origin")
    repository.write("a.yaml", "a: 1\n")
    repository.commit("First")
    return repository


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a path for the cache; it does not exist yet."""
    return tmp_path / "cache"


def bare(cache: Path) -> Path:
    """Return the only bare repository in a cache."""
    [folder] = directories(cache)
    return folder / "repository.git"


def content(snapshot: Snapshot) -> dict[str, bytes]:
    """Return the contents of the snapshot's files by path."""
    return {file.path: file.content for file in snapshot.files}


def directories(cache: Path) -> list[Path]:
    """Return the directories of a cache: one for each repository."""
    return list(cache.iterdir())


def written(folder: Path) -> int:
    """Return the total size of the files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def change_owner(folder: Path, owner: int) -> None:
    """Change the owner of a folder and everything in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner)


def make_read_only(disk: Path) -> None:
    """Remount a disk read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=60)


async def fetch(url: str, cache: Path, **settings: Any) -> Snapshot:
    """Fetch once with a new source."""
    source = GitSource(GitSettings(url=url, cache_dir=cache, **settings))
    try:
        return await source.fetch()
    finally:
        await source.aclose()


class TestReading:
    """Test the content of a snapshot."""

    async def test_a_snapshot_names_its_commit(self, repository: Repository, cache: Path) -> None:
        """A revision has its author and its time in UTC; its files do not repeat them."""
        snapshot = await fetch(repository.url, cache)

        revision = snapshot.revision
        assert (revision.repository, revision.ref) == (repository.url, "HEAD")
        assert (revision.commit, revision.author) == (repository.head, AUTHOR)
        assert revision.time == "2026-09-21T14:14:20.000000Z"
        [file] = snapshot.files
        assert (file.path, file.content) == ("a.yaml", b"a: 1\n")
        assert file.blob == repository.git("rev-parse", "HEAD:a.yaml")
        assert (file.commit, file.stale) == ("", False)  # that of the revision

    async def test_only_the_configured_folder_is_read(
        self, repository: Repository, cache: Path
    ) -> None:
        """Paths are relative to the repository's root; a folder's name is not a prefix match."""
        for path in ("ops/b.yaml", "ops/deep/c.json", "ops/tests/t.yaml", "ops-old/d.yaml"):
            repository.write(path, path)
        repository.commit("Folders")

        snapshot = await fetch(repository.url, cache, path="./ops/")

        assert snapshot.root == "ops"
        assert sorted(content(snapshot)) == ["ops/b.yaml", "ops/deep/c.json"]

    async def test_any_content_is_read_unchanged(self, repository: Repository, cache: Path) -> None:
        """Empty files, binary files and all line endings are read byte for byte."""
        wild = {
            "empty.yaml": b"",
            "binary.yaml": bytes(range(256)) * 7,
            "lines.yaml": b"a\r\nb\rc\n\n",
            "no-end.yaml": b"x: y",
            "ünï cödé.yaml": "ü".encode(),
            "twin.yaml": b"x: y",
            "*.yaml": b"star",
        }
        for path, text in wild.items():
            repository.write(path, text)
        repository.commit("Wild")

        assert content(await fetch(repository.url, cache)) == {"a.yaml": b"a: 1\n", **wild}

    @pytest.mark.parametrize("path", ["*", ":(top)ops", "[o]ps"])
    async def test_a_path_is_not_a_pattern(
        self, repository: Repository, cache: Path, path: str
    ) -> None:
        """A configured path is literal: Git's pattern characters have no meaning."""
        repository.write("ops/b.yaml", "b")
        repository.commit("Folder")

        with pytest.raises(SourceError, match="does not exist in commit"):
            await fetch(repository.url, cache, path=path)

    @pytest.mark.parametrize(
        ("path", "message"),
        [("nowhere", "nowhere does not exist"), ("a.yaml", "a.yaml is not a folder")],
    )
    async def test_a_path_that_is_not_a_folder_is_an_error(
        self, repository: Repository, cache: Path, path: str, message: str
    ) -> None:
        """A wrong path is an error, not an empty catalog."""
        with pytest.raises(SourceError, match=message):
            await fetch(repository.url, cache, path=path)

    async def test_a_folder_without_operarios_is_an_empty_snapshot(
        self, repository: Repository, cache: Path
    ) -> None:
        """An emptied path yields an empty snapshot; the syncer decides whether that is allowed."""
        repository.write("ops/README.md", "nothing yet")
        commit = repository.commit("Prepare")

        snapshot = await fetch(repository.url, cache, path="ops")

        assert (snapshot.revision.commit, snapshot.files) == (commit, ())

    async def test_a_commit_in_the_cache_is_read_without_the_remote(
        self, repository: Repository, cache: Path
    ) -> None:
        """Every fetched commit and its ancestors stay readable by their ids."""
        first = repository.head
        repository.write("a.yaml", "a: 2\n")
        repository.commit("Second")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        shutil.rmtree(repository.folder)

        snapshot = await source.snapshot(first)

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}
        assert snapshot.revision == await source.revision(first)
        assert (snapshot.revision.commit, snapshot.revision.author) == (first, AUTHOR)
        await source.aclose()

    @pytest.mark.parametrize("commit", ["0" * 40, "HEAD", "main", "--all", ""])
    async def test_a_commit_that_is_not_in_the_cache_is_an_error(
        self, repository: Repository, cache: Path, commit: str
    ) -> None:
        """Only the full id of a fetched commit is accepted."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()

        for read in (source.snapshot, source.revision, lambda sha: source.versions("a.yaml", sha)):
            with pytest.raises(SourceError, match=r"commit|40 characters"):
                await read(commit)
        await source.aclose()

    async def test_a_commit_that_was_written_by_hand_is_read(
        self, repository: Repository, cache: Path
    ) -> None:
        """The files of a commit with an invalid date and an unknown encoding are read."""
        tree = repository.git("rev-parse", "HEAD^{tree}")
        signature = "A <a@b> 99999999999999 +0000"
        people = f"author {signature}\ncommitter {signature}"
        raw = f"tree {tree}\n{people}\nencoding no-such-encoding\n\nx\n"
        commit = repository.git(
            "hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=raw.encode()
        )
        repository.git("update-ref", "refs/heads/main", commit)

        snapshot = await fetch(repository.url, cache)

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}
        assert (snapshot.revision.commit, snapshot.revision.time) == (commit, "")

    async def test_an_author_is_one_printable_line(
        self, repository: Repository, cache: Path
    ) -> None:
        """An author's name is cleaned of control characters and shortened."""
        tree = repository.git("rev-parse", "HEAD^{tree}")
        identity = "A\x1b[31m\u202e" + "x" * 500 + " <a@b> 1 +0000"
        raw = f"tree {tree}\nauthor {identity}\ncommitter {identity}\n\nx\n"
        commit = repository.git(
            "hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=raw.encode()
        )
        repository.git("update-ref", "refs/heads/main", commit)

        author = (await fetch(repository.url, cache)).revision.author

        assert author.startswith("A\\x1b[31m\\u202exxx")
        assert author.isprintable()
        assert len(author) < 250


class TestRefs:
    """Test the resolution of refs on the remote."""

    async def test_a_branch_a_tag_and_a_commit_can_be_requested(
        self, repository: Repository, cache: Path
    ) -> None:
        """Each way to name a commit resolves to it; an annotated tag resolves to its commit."""
        repository.tag("light")
        repository.tag("annotated", "Released")
        repository.tag("refs-of-tag", "First")
        first = repository.head
        repository.branch("feature/x")
        repository.write("a.yaml", "feature")
        second = repository.commit("Feature")
        repository.switch("main")
        expected = {
            "HEAD": first,
            "main": first,
            "light": first,
            "annotated": first,
            "refs/tags/annotated": first,
            "feature/x": second,
            "refs/heads/feature/x": second,
            first: first,
            second: second,
        }

        for ref, commit in expected.items():
            revision = (await fetch(repository.url, cache, ref=ref)).revision
            assert (revision.ref, revision.commit) == (ref, commit)

    async def test_a_tag_of_a_tag_is_peeled_to_its_commit(
        self, repository: Repository, cache: Path
    ) -> None:
        """A chain of tags resolves to the commit at its end."""
        repository.tag("inner", "one")
        repository.git("tag", "--annotate", "--message", "two", "outer", "inner")

        assert (await fetch(repository.url, cache, ref="outer")).revision.commit == repository.head

    async def test_a_tag_of_another_object_is_rejected(
        self, repository: Repository, cache: Path
    ) -> None:
        """A tag of a folder or a file is an error."""
        repository.git("tag", "tree", "HEAD^{tree}")
        repository.git("tag", "--annotate", "--message", "x", "blob", "HEAD:a.yaml")

        for ref, kind in (("tree", "tree"), ("blob", "blob")):
            with pytest.raises(SourceError, match=f"is a {kind}; set --ref to a branch"):
                await fetch(repository.url, cache, ref=ref)

    async def test_a_tag_cannot_take_the_place_of_a_branch(
        self, repository: Repository, cache: Path
    ) -> None:
        """A tag with the name of the followed branch is ignored."""
        reviewed = repository.head
        repository.branch("evil")
        repository.write("a.yaml", "evil")
        repository.commit("Evil")
        repository.tag("main")

        snapshot = await fetch(repository.url, cache, ref="main")

        assert snapshot.revision.commit == reviewed
        assert content(snapshot) == {"a.yaml": b"a: 1\n"}

    async def test_a_fetched_pinned_commit_needs_no_remote(
        self, repository: Repository, cache: Path
    ) -> None:
        """A pinned commit is fetched only once."""
        first = repository.head
        await fetch(repository.url, cache, ref=first)
        shutil.rmtree(repository.folder)

        assert (await fetch(repository.url, cache, ref=first)).revision.commit == first

    @pytest.mark.parametrize(
        ("ref", "message"),
        [
            ("nope", "there is no branch or tag nope"),
            ("refs/heads/nope", "there is no ref refs/heads/nope"),
            ("f" * 40, "there is no commit f{40} on any branch"),
            ("abcdef1", "there is no branch or tag abcdef1"),
            ("origin/main", "there is no branch or tag origin/main"),
        ],
    )
    async def test_an_unknown_ref_is_an_error(
        self, repository: Repository, cache: Path, ref: str, message: str
    ) -> None:
        """An error about an unknown ref names it and says what to do."""
        with pytest.raises(SourceError, match=f"{repository.url}: {message}.*; correct --ref"):
            await fetch(repository.url, cache, ref=ref)

    async def test_an_empty_repository_is_an_error(self, tmp_path: Path, cache: Path) -> None:
        """A repository without a commit is an error, not an empty catalog."""
        empty = Repository(tmp_path / "empty")

        with pytest.raises(
            SourceError, match="the repository is empty, or its default branch does not exist"
        ):
            await fetch(empty.url, cache)

    async def test_a_missing_repository_is_an_error(self, tmp_path: Path, cache: Path) -> None:
        """A wrong address is reported as such."""
        for url in (str(tmp_path / "nowhere"), f"file://{tmp_path}"):
            with pytest.raises(SourceError, match="the repository does not exist"):
                await fetch(url, cache)

    async def test_a_deleted_branch_is_an_error_until_it_is_back(
        self, repository: Repository, cache: Path
    ) -> None:
        """A deleted branch yields an error, although its last commit is in the cache."""
        repository.branch("live")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache, ref="live"))
        before = await source.fetch()
        repository.switch("main")
        repository.git("branch", "-D", "live")

        with pytest.raises(SourceError, match="no branch or tag live"):
            await source.fetch()
        assert await source.snapshot(before.revision.commit) == before

        repository.branch("live")
        assert (await source.fetch()).revision == before.revision
        await source.aclose()

    async def test_a_renamed_default_branch_is_followed(
        self, repository: Repository, cache: Path
    ) -> None:
        """HEAD is the remote's current default branch."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        repository.git("branch", "--move", "main", "trunk")
        repository.write("a.yaml", "a: 2\n")
        commit = repository.commit("On the trunk")

        assert (await source.fetch()).revision.commit == commit
        await source.aclose()

    async def test_a_force_push_is_recognised(self, repository: Repository, cache: Path) -> None:
        """A rewritten branch is read as not continued; the old commit stays readable."""
        first = repository.head
        repository.write("a.yaml", "a: 2\n")
        second = repository.commit("Second")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        repository.git("reset", "--quiet", "--hard", first)
        repository.write("a.yaml", "a: 3\n")
        rewritten = repository.commit("Rewritten")

        snapshot = await source.fetch()

        assert snapshot.revision.commit == rewritten
        assert await source.is_ancestor(first, rewritten)
        assert await source.is_ancestor(rewritten, rewritten)
        assert not await source.is_ancestor(second, rewritten)
        assert not await source.is_ancestor("0" * 40, rewritten)
        assert not await source.is_ancestor("--all", rewritten)
        assert content(await source.snapshot(second)) == {"a.yaml": b"a: 2\n"}
        await source.aclose()

    async def test_unrelated_history_is_not_a_continuation(
        self, repository: Repository, cache: Path
    ) -> None:
        """A branch with an unrelated history does not continue the active commit."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        before = (await source.fetch()).revision.commit
        repository.git("checkout", "--quiet", "--orphan", "anew")
        repository.commit("Anew")
        repository.git("branch", "--force", "main")

        repository.switch("main")
        after = (await source.fetch()).revision.commit

        assert after != before
        assert not await source.is_ancestor(before, after)
        await source.aclose()

    async def test_a_moved_tag_is_followed(self, repository: Repository, cache: Path) -> None:
        """A tag that was moved by force is read at its new commit."""
        repository.tag("live", "one")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache, ref="live"))
        await source.fetch()
        repository.write("a.yaml", "a: 2\n")
        commit = repository.commit("Second")
        repository.git("tag", "--force", "--annotate", "--message", "two", "live")

        assert (await source.fetch()).revision.commit == commit
        await source.aclose()


class TestHostileTrees:
    """Test trees that no working copy could contain."""

    async def test_a_symlink_is_reported_and_not_followed(
        self, repository: Repository, cache: Path, tmp_path: Path
    ) -> None:
        """A symlink to a path outside the repository reads nothing from there."""
        (tmp_path / "secret.yaml").write_text("secret")
        (repository.folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
        (repository.folder / "folder").symlink_to(tmp_path)
        repository.commit("Links")

        snapshot = await fetch(repository.url, cache)

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}
        problems = [
            (problem.path, problem.rule, problem.severity, problem.commit)
            for problem in snapshot.problems
        ]
        assert problems == [
            ("folder", "linked-folder", Severity.WARNING, repository.head),
            ("link.yaml", "symlink", Severity.ERROR, repository.head),
        ]

    async def test_the_configured_path_must_not_be_a_symlink(
        self, repository: Repository, cache: Path
    ) -> None:
        """A folder that was replaced by a symlink does not exist."""
        repository.write("real/b.yaml", "b")
        (repository.folder / "ops").symlink_to("real")
        repository.commit("Link")

        for path in ("ops", "ops/deeper"):
            with pytest.raises(SourceError, match=r"not a folder|does not exist"):
                await fetch(repository.url, cache, path=path)

    async def test_a_submodule_is_reported_and_not_fetched(
        self, repository: Repository, cache: Path
    ) -> None:
        """A submodule is not fetched."""
        tree = repository.make_tree(
            ("100644", repository.git("rev-parse", "HEAD:a.yaml"), b"a.yaml"),
            ("160000", "1" * 40, b"lib"),
        )
        repository.git("update-ref", "refs/heads/main", repository.commit_tree(tree, "Submodule"))

        snapshot = await fetch(repository.url, cache)

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}
        assert [(problem.path, problem.rule) for problem in snapshot.problems] == [
            ("lib", "submodule")
        ]

    async def test_an_lfs_pointer_is_reported(self, repository: Repository, cache: Path) -> None:
        """An LFS pointer is reported and not parsed."""
        repository.write("big.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        repository.commit("Pointer")

        snapshot = await fetch(repository.url, cache)

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}
        assert [(problem.path, problem.rule) for problem in snapshot.problems] == [
            ("big.yaml", "lfs-pointer")
        ]

    @pytest.mark.parametrize("name", [b"..", b".", b".git", b".GIT"])
    async def test_a_tree_that_would_leave_its_folder_is_refused_by_git_itself(
        self, repository: Repository, cache: Path, name: bytes
    ) -> None:
        """The complete fetch fails, and earlier commits stay readable."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        before = await source.fetch()
        inner = repository.git("rev-parse", "HEAD^{tree}")
        tree = repository.make_tree(("40000", inner, name))
        commit = repository.commit_tree(tree, "Out", repository.head)
        repository.git("update-ref", "refs/heads/main", commit)

        with pytest.raises(SourceError, match="an object that Git's check refuses"):
            await source.fetch()

        assert await source.snapshot(before.revision.commit) == before
        with pytest.raises(SourceError, match="not in the cache"):
            await source.snapshot(commit)
        await source.aclose()

    async def test_names_that_cannot_be_printed_are_reported(
        self, repository: Repository, cache: Path
    ) -> None:
        """A file with control characters or an invalid encoding in its name is left out."""
        blob = repository.git("rev-parse", "HEAD:a.yaml")
        names = (b"\xff.yaml", b"a\nb.yaml", b"fine.yaml")
        tree = repository.make_tree(*(("100644", blob, name) for name in sorted(names)))
        repository.git("update-ref", "refs/heads/main", repository.commit_tree(tree, "Names"))

        snapshot = await fetch(repository.url, cache)

        assert list(content(snapshot)) == ["fine.yaml"]
        assert [(problem.path, problem.rule) for problem in snapshot.problems] == [
            ("\\xff.yaml", "path-not-utf-8"),
            ("a\\nb.yaml", "path-not-printable"),
        ]

    async def test_a_tree_bomb_is_refused_before_it_fills_the_memory(
        self, repository: Repository, cache: Path
    ) -> None:
        """A few objects that expand to ten thousand million files are rejected at the limit."""
        blob = repository.git("rev-parse", "HEAD:a.yaml")
        tree = repository.make_tree(*(("100644", blob, b"f%d.yaml" % n) for n in range(10)))
        for _ in range(9):
            tree = repository.make_tree(*(("40000", tree, b"d%d" % n) for n in range(10)))
        repository.git("update-ref", "refs/heads/main", repository.commit_tree(tree, "Bomb"))

        began = time.monotonic()
        with pytest.raises(SourceError, match="more than 2000 entries below the path"):
            await fetch(repository.url, cache, budgets=Budgets(entries=2000))

        assert time.monotonic() - began < 120

    async def test_a_file_over_its_budget_is_left_out_unread(
        self, repository: Repository, cache: Path
    ) -> None:
        """A file that is too large is a problem."""
        repository.write("big.yaml", b"openfero-" * 25_000)
        repository.commit("Big")

        snapshot = await fetch(repository.url, cache, budgets=Budgets(file_bytes=199_999))

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}
        assert [(problem.path, problem.rule) for problem in snapshot.problems] == [
            ("big.yaml", "file-too-large")
        ]

    async def test_a_repository_over_its_budget_does_not_fill_the_disk(
        self, repository: Repository, cache: Path
    ) -> None:
        """A fetch that would write too much is stopped, and its files are removed."""
        source = GitSource(
            GitSettings(url=repository.url, cache_dir=cache, access=GitAccess(pack_bytes=1_000_000))
        )
        before = await source.fetch()
        repository.write("noise.bin", os.urandom(3_000_000))
        repository.commit("Noise")

        with pytest.raises(
            SourceError, match="is larger than the 1000000 bytes that --git-max-size allows"
        ):
            await source.fetch()

        assert await source.snapshot(before.revision.commit) == before
        assert written(cache) < 100_000
        await source.aclose()

    async def test_repeatedly_rewritten_history_does_not_fill_the_disk(
        self, repository: Repository, cache: Path
    ) -> None:
        """Unreachable objects are removed, and each new commit is still read."""
        first = repository.head
        source = GitSource(
            GitSettings(url=repository.url, cache_dir=cache, access=GitAccess(pack_bytes=1_000_000))
        )
        await source.fetch()

        for _ in range(8):
            repository.git("reset", "--quiet", "--hard", first)
            repository.write("noise.bin", os.urandom(300_000))
            commit = repository.commit("Rewritten")
            assert (await source.fetch()).revision.commit == commit
            assert written(cache) < 1_100_000

        await source.aclose()


class TestVersions:
    """Test earlier versions of a file."""

    async def test_older_versions_come_newest_first_each_with_a_commit_that_holds_it(
        self, repository: Repository, cache: Path
    ) -> None:
        """Each content is listed once, with the newest first-parent ancestor that has it."""
        repository.write("a.yaml", "a: 2\n")
        repository.commit("Second")
        repository.write("other.yaml", "x")
        second = repository.commit("Another file")
        repository.write("a.yaml", "a: 1\n")
        again = repository.commit("First content again")
        repository.write("a.yaml", "broken")
        repository.commit("Broken")
        repository.write("other.yaml", "y")
        tip = repository.commit("Still broken")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()

        versions = await source.versions("a.yaml", tip)

        assert [(file.content, file.commit) for file in versions] == [
            (b"a: 1\n", again),
            (b"a: 2\n", second),
        ]
        for file in versions:
            assert file.stale
            assert (file.path, file.commit_author) == ("a.yaml", AUTHOR)
            assert repository.git("rev-parse", f"{file.commit}:a.yaml") == file.blob
            assert file.commit_time == (await source.revision(file.commit)).time
        assert await source.versions("nowhere.yaml", tip) == []
        assert await source.versions("*.yaml", tip) == []
        await source.aclose()

    async def test_a_deleted_file_has_its_versions(
        self, repository: Repository, cache: Path
    ) -> None:
        """The versions of a deleted file are found, also if a folder has its name now."""
        first = repository.head
        repository.delete("a.yaml")
        before_deletion = repository.commit("Gone")
        repository.write("a.yaml/b.yaml", "b")
        folder = repository.commit("A folder")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()

        for commit in (before_deletion, folder):
            [file] = await source.versions("a.yaml", commit)
            assert (file.content, file.commit) == (b"a: 1\n", first)
        await source.aclose()

    async def test_the_second_parent_of_a_merge_is_not_looked_at(
        self, repository: Repository, cache: Path
    ) -> None:
        """Commits of a merged branch were never active and are not versions."""
        first = repository.head
        repository.branch("side")
        repository.write("a.yaml", "unreviewed")
        repository.commit("Unreviewed")
        repository.write("a.yaml", "reviewed")
        repository.commit("Reviewed")
        repository.switch("main")
        merged = repository.merge("side", "Merge")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()

        [file] = await source.versions("a.yaml", merged)

        assert (file.content, file.commit) == (b"a: 1\n", first)
        await source.aclose()

    async def test_symlinks_pointers_and_large_files_are_no_versions(
        self, repository: Repository, cache: Path
    ) -> None:
        """Current rules apply to earlier versions."""
        first = repository.head
        (repository.folder / "a.yaml").unlink()
        (repository.folder / "a.yaml").symlink_to("elsewhere")
        repository.commit("A symlink")
        (repository.folder / "a.yaml").unlink()
        repository.write("a.yaml", "version https://git-lfs.github.com/spec/v1\n")
        repository.commit("A pointer")
        repository.write("a.yaml", "x" * 2000)
        repository.commit("Large")
        repository.write("a.yaml", "broken")
        tip = repository.commit("Broken")
        source = GitSource(
            GitSettings(url=repository.url, cache_dir=cache, budgets=Budgets(file_bytes=1000))
        )
        await source.fetch()

        [file] = await source.versions("a.yaml", tip)

        assert file.commit == first
        await source.aclose()

    @pytest.mark.parametrize("seed", range(3))
    async def test_versions_are_those_that_a_walk_over_the_ancestors_finds(
        self, repository: Repository, cache: Path, seed: int
    ) -> None:
        """On any history, the result equals that of walking each ancestor in turn."""
        chance = Random(seed)  # noqa: S311 - the same history each time
        for number in range(25):
            if chance.random() < 0.2:
                repository.branch(f"side{number}")
                repository.write("a.yaml", f"side {number}")
                repository.commit("Side")
                repository.switch("main")
                repository.write(f"{number}.txt", "")
                repository.commit("Main goes on")
                repository.merge(f"side{number}", "Merge")
            elif chance.random() < 0.15 and (repository.folder / "a.yaml").exists():
                repository.delete("a.yaml")
            elif chance.random() < 0.6:
                repository.write("a.yaml", f"a: {chance.randrange(5)}")
            repository.commit(f"Commit {number}")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        line = repository.git("rev-list", "--first-parent", "HEAD").split()
        listed = repository.git("log", "--first-parent", "--format=%H", "--", "a.yaml").split()
        assert len(listed) > 5
        holds = {sha: repository.git("ls-tree", sha, "--", "a.yaml").split()[2:3] for sha in line}

        for start, limit in ((0, 100), (0, 7), (3, 12), (len(line) - 1, 100), (0, 0)):
            expected: dict[str, str] = {}
            for sha in line[start + 1 : start + 1 + limit]:
                for blob in holds[sha]:
                    if [blob] != holds[line[start]]:
                        expected.setdefault(blob, sha)
            versions = await source.versions("a.yaml", line[start], limit)
            assert [(file.blob, file.commit) for file in versions] == list(expected.items())
        await source.aclose()


class TestCache:
    """Test the cache directory."""

    async def test_an_unchanged_ref_gives_the_same_snapshot(
        self, repository: Repository, cache: Path
    ) -> None:
        """If nothing changed, nothing is read again."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))

        first = await source.fetch()

        assert await source.fetch() is first
        await source.aclose()

    async def test_known_content_is_not_read_again(
        self, repository: Repository, cache: Path
    ) -> None:
        """The cost of a fetch depends on the change: unchanged contents are the same objects."""
        for number in range(20):
            repository.write(f"{number}.yaml", f"n: {number}\n")
        repository.commit("Many")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        before = content(await source.fetch())
        repository.write("7.yaml", "changed\n")
        repository.commit("One")

        after = content(await source.fetch())

        changed = [path for path in after if after[path] is not before[path]]
        assert changed == ["7.yaml"]
        await source.aclose()

    async def test_two_repositories_do_not_mix(
        self, repository: Repository, tmp_path: Path, cache: Path
    ) -> None:
        """Each URL has its own directory in the cache."""
        second = Repository(tmp_path / "other")
        second.write("b.yaml", "b")
        second.commit("Other")

        assert content(await fetch(repository.url, cache)) == {"a.yaml": b"a: 1\n"}
        assert content(await fetch(second.url, cache)) == {"b.yaml": b"b"}
        assert len(directories(cache)) == 2

    async def test_nothing_of_the_environment_reaches_git(
        self, repository: Repository, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Git's environment variables and hostile configuration change nothing."""
        config = tmp_path / "gitconfig"
        config.write_text(f'[url "file://{tmp_path}/nowhere"]\n\tinsteadOf = file://\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".gitconfig").write_bytes(config.read_bytes())
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
        monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "nowhere"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere"))
        monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))

        snapshot = await fetch(repository.url, cache)

        assert content(snapshot) == {"a.yaml": b"a: 1\n"}

    async def test_no_hook_runs(
        self, repository: Repository, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Hooks of a system-wide template are not installed in the cache."""
        template = tmp_path / "template"
        hook = template / "hooks" / "reference-transaction"
        hook.parent.mkdir(parents=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
        hook.chmod(0o755)
        monkeypatch.setenv("GIT_TEMPLATE_DIR", str(template))

        await fetch(repository.url, cache)

        assert not (bare(cache) / "hooks").exists()
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda git: (git / "HEAD").write_text(""),
            lambda git: (git / "config").write_text("[["),
            lambda git: shutil.rmtree(git / "objects"),
            lambda git: shutil.rmtree(git / "refs"),
            lambda git: _overwrite(git, "objects/pack/*.pack", slice(12, None)),
            lambda git: _overwrite(git, "objects/pack/*.pack", slice(60, 90)),
            lambda git: _overwrite(git, "objects/pack/*.idx", slice(0, None)),
            lambda git: _overwrite(git, "refs/openfero/tip/*", slice(0, 40)),
            lambda git: (git / "HEAD").unlink(),
            lambda git: (git / "config").unlink(),
            lambda git: _truncate(git, "objects/pack/*.pack", 70),
            lambda git: _truncate(git, "objects/pack/*.idx", 0),
            lambda git: [path.unlink() for path in git.glob("objects/pack/*.pack")],
            lambda git: [path.unlink() for path in git.glob("objects/pack/*.idx")],
            lambda git: (git.rename(git.with_name("aside")), git.touch()),
            shutil.rmtree,
        ],
        ids=[
            *("head", "config", "objects", "refs", "packs", "holes", "indexes", "tip"),
            *("no-head", "no-config", "half-a-pack", "empty-index", "no-pack", "no-index"),
            *("a-file", "nothing"),
        ],
    )
    async def test_a_damaged_cache_is_recreated(
        self, repository: Repository, cache: Path, damage: Callable[[Path], object]
    ) -> None:
        """After any damage to the cache, the next fetches yield their commits."""
        repository.write("b.yaml", "b: 1\n" * 50)
        repository.commit("Second")
        before = await fetch(repository.url, cache)
        damage(bare(cache))

        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        assert await source.fetch() == before
        repository.write("b.yaml", "b: 2\n")
        commit = repository.commit("Third")
        assert (await source.fetch()).revision.commit == commit
        await source.aclose()
        repository.git(f"--git-dir={bare(cache)}", "fsck", "--full", "--connectivity-only")

    async def test_a_cache_of_another_repository_is_not_used(
        self, repository: Repository, tmp_path: Path, cache: Path
    ) -> None:
        """A cache that was copied from another repository's is not used."""
        foreign = Repository(tmp_path / "other")
        foreign.write("b.yaml", "b")
        foreign.commit("Other")
        before = await fetch(repository.url, cache)
        place = bare(cache)
        await fetch(foreign.url, tmp_path / "another cache")
        shutil.rmtree(place)
        shutil.copytree(bare(tmp_path / "another cache"), place)

        assert await fetch(repository.url, cache) == before

    async def test_a_cache_of_another_user_is_used_or_reported(
        self, repository: Repository, cache: Path
    ) -> None:
        """Root reads a cache of another user; a user without write access gets advice."""
        if os.geteuid() != 0:
            missing("the right to change owners", "run the tests as root")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        change_owner(cache, _NOBODY)
        repository.write("a.yaml", "a: 2\n")
        commit = repository.commit("Second")
        assert (await source.fetch()).revision.commit == commit
        repository.commit("Third")
        change_owner(cache, 0)

        os.seteuid(_NOBODY)
        try:
            with pytest.raises(
                SourceError, match=r"cannot use the cache directory .* \(Permission"
            ):
                await source.fetch()
        finally:
            os.seteuid(0)

        assert (await source.fetch()).revision.commit == repository.head
        await source.aclose()

    async def test_damage_found_while_reading_is_repaired_by_the_next_fetch(
        self, repository: Repository, cache: Path
    ) -> None:
        """Unreadable history is an error only until the next fetch."""
        older = repository.git("rev-parse", "HEAD:a.yaml")
        repository.write("a.yaml", "a: 2\n")
        tip = repository.commit("Second")
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        before = await source.fetch()
        lose(bare(cache), older)

        with pytest.raises(SourceError, match=f"the cache is damaged .*{older} missing"):
            await source.versions("a.yaml", tip)
        assert await source.fetch() == before

        [file] = await source.versions("a.yaml", tip)
        assert file.blob == older
        await source.aclose()

    async def test_a_remote_that_is_damaged_leaves_what_was_read(
        self, repository: Repository, cache: Path
    ) -> None:
        """A remote that lost an object is an error at every fetch."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        before = await source.fetch()
        repository.write("a.yaml", "a: 2\n")
        repository.commit("Second")
        blob = repository.git("rev-parse", "HEAD:a.yaml")
        lost = repository.folder / ".git" / "objects" / blob[:2] / blob[2:]
        content_lost = lost.read_bytes()
        lost.unlink()

        for _ in range(2):
            with pytest.raises(SourceError):
                await source.fetch()
        assert await source.snapshot(before.revision.commit) == before

        lost.write_bytes(content_lost)
        assert content(await source.fetch()) == {"a.yaml": b"a: 2\n"}
        await source.aclose()

    async def test_a_cache_is_kept_while_the_remote_is_down(
        self, repository: Repository, cache: Path
    ) -> None:
        """A failed fetch keeps every commit."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        before = await source.fetch()
        repository.folder.rename(repository.folder.with_name("away"))

        for _ in range(3):
            with pytest.raises(SourceError, match="repository does not exist"):
                await source.fetch()

        assert await source.snapshot(before.revision.commit) == before
        repository.folder.with_name("away").rename(repository.folder)
        assert await source.fetch() == before
        await source.aclose()

    async def test_leftovers_of_a_killed_git_are_removed(
        self, repository: Repository, cache: Path
    ) -> None:
        """A partial pack is removed at once, a lock file when it is older than the deadline."""
        source = GitSource(
            GitSettings(url=repository.url, cache_dir=cache, access=GitAccess(timeout=30))
        )
        await source.fetch()
        git = bare(cache)
        half = git / "objects" / "pack" / "tmp_pack_abc123"
        half.write_bytes(b"x" * 1000)
        old, young = git / "packed-refs.lock", git / "config.lock"
        old.touch()
        young.touch()
        os.utime(old, (time.time() - 31, time.time() - 31))
        (git.parent / "fresh.git").mkdir()
        (git.parent / "old.git").mkdir()
        repository.commit("Second")

        await source.fetch()

        left = {path.name for path in (half, old, young) if path.exists()}
        assert left == {"config.lock"}
        assert not (git.parent / "fresh.git").exists()
        assert not (git.parent / "old.git").exists()
        await source.aclose()

    async def test_a_blocking_lock_is_reported(self, repository: Repository, cache: Path) -> None:
        """A lock of a git that was just killed is reported for one deadline."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        [tip] = (bare(cache) / "refs" / "openfero" / "tip").iterdir()
        lock = tip.with_name(tip.name + ".lock")
        lock.touch()
        repository.write("a.yaml", "a: 2\n")
        commit = repository.commit("Second")

        with pytest.raises(SourceError, match="another git process left a lock file"):
            await source.fetch()

        os.utime(lock, (0, 0))
        assert (await source.fetch()).revision.commit == commit
        await source.aclose()

    async def test_two_sources_share_a_cache(self, repository: Repository, cache: Path) -> None:
        """Two sources that concurrently fetch different refs each get their own."""
        repository.branch("side")
        repository.write("side.yaml", "0")
        repository.commit("Side")
        repository.switch("main")
        first_source = GitSource(GitSettings(url=repository.url, cache_dir=cache, ref="main"))
        second_source = GitSource(GitSettings(url=repository.url, cache_dir=cache, ref="side"))
        third_source = GitSource(GitSettings(url=repository.url, cache_dir=cache, ref="main"))

        for number in range(5):
            repository.write("a.yaml", str(number))
            main = repository.commit("Main")
            snapshots = await asyncio.gather(
                first_source.fetch(),
                second_source.fetch(),
                third_source.fetch(),
                first_source.fetch(),
            )
            commits = [snapshot.revision.commit for snapshot in snapshots]
            assert commits == [main, repository.git("rev-parse", "side"), main, main]

        for source in (first_source, second_source, third_source):
            await source.aclose()

    async def test_replicas_share_a_cache(self, repository: Repository, cache: Path) -> None:
        """Processes that start together on an empty volume do not disturb each other."""
        script = (
            "import asyncio, sys, pathlib\n"
            "from openfero_gitops.sources.git.source import GitSettings, GitSource\n"
            "async def main():\n"
            "    source = GitSource(GitSettings(sys.argv[1], pathlib.Path(sys.argv[2])))\n"
            "    for _ in range(4):\n"
            "        print((await source.fetch()).revision.commit)\n"
            "    await source.aclose()\n"
            "asyncio.run(main())\n"
        )
        replicas = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", script, repository.url, str(cache)),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            for _ in range(3)
        ]

        for replica in replicas:
            out, err = await asyncio.wait_for(replica.communicate(), 60)
            assert replica.returncode == 0, err.decode()
            assert out.decode().split() == [repository.head] * 4

    async def test_a_lock_that_is_never_released_is_an_error_in_time(
        self, repository: Repository, cache: Path
    ) -> None:
        """A process that hangs while it holds the cache lock does not make others hang."""
        source = GitSource(
            GitSettings(url=repository.url, cache_dir=cache, access=GitAccess(timeout=1))
        )
        await source.fetch()
        with (bare(cache).parent / "lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert (await source.fetch()).revision.commit == repository.head  # nothing to fetch
            commit = repository.commit("Second")
            began = time.monotonic()
            with pytest.raises(SourceError, match="another process has been using"):
                await source.fetch()
            assert 0.9 < time.monotonic() - began < 120

        assert (await source.fetch()).revision.commit == commit
        await source.aclose()

    async def test_a_cache_directory_that_cannot_be_made_is_an_error(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """An error names what blocks the creation of the cache."""
        (tmp_path / "file").touch()

        with pytest.raises(
            SourceError, match=r"cannot use the cache directory .*/file/cache \(Not"
        ):
            await fetch(repository.url, tmp_path / "file" / "cache")

    async def test_a_full_or_read_only_disk_keeps_the_cache(
        self, repository: Repository, small_disk: Path
    ) -> None:
        """A full or read-only disk is an error that names it, and earlier commits stay readable."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=small_disk))
        before = await source.fetch()
        repository.write("noise.bin", os.urandom(3_000_000))
        repository.commit("Noise")

        with pytest.raises(SourceError, match="the disk of the cache directory is full"):
            await source.fetch()
        assert await source.snapshot(before.revision.commit) == before
        assert shutil.disk_usage(small_disk).free > 1_000_000

        make_read_only(small_disk)
        with pytest.raises(SourceError, match=r"cannot use .* \(Read-only file system\)"):
            await source.fetch()
        await source.aclose()

    async def test_packs_are_consolidated_and_nothing_grows(
        self, repository: Repository, cache: Path
    ) -> None:
        """Descriptors, children and packs stay level over many fetches of a changing branch."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        await source.fetch()
        files, children = open_files(), descendants()
        first = repository.head

        for number in range(60):
            repository.write("a.yaml", f"b: {number}\n")
            commit = repository.commit(f"Change {number}")
            assert (await source.fetch()).revision.commit == commit

        assert open_files() == files
        assert descendants() == children
        assert len(list((bare(cache) / "objects" / "pack").glob("*.pack"))) <= 30
        assert content(await source.snapshot(first)) == {"a.yaml": b"a: 1\n"}
        assert len(await source.versions("a.yaml", commit)) == 60
        await source.aclose()

    async def test_a_closed_source_is_an_error(self, repository: Repository, cache: Path) -> None:
        """A closed source starts nothing, and closing it twice is allowed."""
        source = GitSource(GitSettings(url=repository.url, cache_dir=cache))
        await source.fetch()
        await source.aclose()
        await source.aclose()

        with pytest.raises(SourceError, match="the source is closed"):
            await source.fetch()

    async def test_a_missing_git_is_reported(
        self, repository: Repository, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Without a git command the error is one line that says what to install."""
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(SourceError, match="the git command is not installed; install git"):
            await fetch(repository.url, cache)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if mounted.returncode != 0:
        missing("the right to mount a small disk", "run the tests as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=60)


def _overwrite(git: Path, pattern: str, where: slice) -> None:
    """Overwrite a part of every matching file with zeros."""
    for file in git.glob(pattern):
        data = bytearray(file.read_bytes())
        data[where] = b"\0" * len(data[where])
        file.chmod(0o600)
        file.write_bytes(data)


def _truncate(git: Path, pattern: str, length: int) -> None:
    """Truncate every matching file."""
    for file in git.glob(pattern):
        file.chmod(0o600)
        os.truncate(file, length)

"""A working copy is read like its commit, and the kind of source is detected."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.sources.folder import FolderSource
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.opening import open_source
from openfero_gitops.sources.tree import Budgets
from tests.support.repository import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.domain.catalog import Snapshot


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with all kinds of entries that a folder may hold."""
    repository = Repository(tmp_path / "work")
    for path in (
        "ops/openfero.yaml",
        "ops/a.yaml",
        "ops/deep/ünï.yml",
        "ops/tests/a/alert.json",
        "ops/_draft/b.yaml",
        "ops/.hidden.yaml",
        "ops/Case.json",
        "ops/case.json",
        "other/c.yaml",
    ):
        repository.write(path, f"# {path}\n")
    repository.write("ops/lfs.yaml", "version https://git-lfs.github.com/spec/v1\n")
    repository.write("ops/large.yaml", b"openfero-" * 250)
    repository.write(os.fsdecode(b"ops/\xff.yaml"), "x")
    repository.write("ops/a\nb.yaml", "x")
    (repository.folder / "ops" / "link.yaml").symlink_to("a.yaml")
    (repository.folder / "ops" / "linked").symlink_to("deep")
    repository.commit("All of it")
    return repository


def findings(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return the problems without their commit."""
    return [(problem.path, problem.rule, problem.severity) for problem in snapshot.problems]


async def fetch_folder(path: Path, subpath: str = ".", **budgets: int) -> Snapshot:
    """Read a folder once."""
    source = FolderSource(path, subpath, Budgets(**budgets))
    snapshot = await source.fetch()
    await source.aclose()
    return snapshot


class TestFolder:
    """Test the content of a folder."""

    @pytest.mark.parametrize("path", [".", "ops", "ops/deep"])
    async def test_a_working_copy_is_read_like_its_commit(
        self, repository: Repository, tmp_path: Path, path: str
    ) -> None:
        """Files, blob ids and problems are the same, so both have the same result."""
        budgets = Budgets(file_bytes=1000)
        settings = GitSettings(repository.url, tmp_path / "cache", path=path, budgets=budgets)
        git = GitSource(settings)
        committed = await git.fetch()
        await git.aclose()

        in_folder = await fetch_folder(repository.folder, path, file_bytes=1000)

        assert [(file.path, file.blob, file.content) for file in in_folder.files] == [
            (file.path, file.blob, file.content) for file in committed.files
        ]
        assert len(in_folder.files) >= 1
        assert findings(in_folder) == findings(committed)
        assert in_folder.root == committed.root

    async def test_every_rule_is_covered(self, repository: Repository) -> None:
        """Every entry that is not read is reported with its rule."""
        snapshot = await fetch_folder(repository.folder, "ops", file_bytes=1000)

        assert {rule for _, rule, _ in findings(snapshot)} == {
            "case-twins",
            "file-too-large",
            "lfs-pointer",
            "linked-folder",
            "path-not-printable",
            "path-not-utf-8",
            "symlink",
        }

    async def test_a_folder_has_no_commit(self, repository: Repository) -> None:
        """The revision of a folder has no commit."""
        source = FolderSource(repository.folder / "ops")
        snapshot = await source.fetch()

        assert snapshot.revision.repository == source.url == str(repository.folder)
        assert (snapshot.revision.commit, snapshot.revision.ref) == ("", "")
        assert {file.commit for file in snapshot.files} == {""}
        await source.aclose()

    async def test_paths_are_relative_to_the_root_of_the_repository(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However the folder is given, its files have the paths that git uses."""
        expected = ["ops/deep/ünï.yml"]
        monkeypatch.chdir(repository.folder / "ops")
        for path, subpath in (
            (repository.folder, "ops/deep"),
            (repository.folder / "ops", "deep"),
            (repository.folder / "ops" / "deep", "."),
            (repository.folder / "ops" / ".." / "ops", "./deep/"),
        ):
            snapshot = await fetch_folder(path, subpath)
            assert [file.path for file in snapshot.files] == expected
            assert snapshot.root == "ops/deep"

    async def test_a_folder_outside_any_repository_is_its_own_root(self, tmp_path: Path) -> None:
        """Paths are relative to the given folder."""
        file = tmp_path / "ops" / "deep" / "a.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("a")

        snapshot = await fetch_folder(tmp_path / "ops", "deep")

        assert [file.path for file in snapshot.files] == ["deep/a.yaml"]
        assert (snapshot.revision.repository, snapshot.root) == (str(tmp_path / "ops"), "deep")

    async def test_special_files_do_not_block(self, tmp_path: Path) -> None:
        """A pipe, a socket and a nested repository are reported and not read."""
        os.mkfifo(tmp_path / "pipe.yaml")
        (tmp_path / "lib" / ".git").mkdir(parents=True)
        (tmp_path / "lib" / "a.yaml").write_text("a")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket.json"))
            snapshot = await fetch_folder(tmp_path)

        assert snapshot.files == ()
        assert findings(snapshot) == [
            ("lib", "submodule", "warning"),
            ("pipe.yaml", "not-a-file", "error"),
            ("socket.json", "not-a-file", "error"),
        ]

    async def test_a_folder_above_a_limit_is_rejected(self, repository: Repository) -> None:
        """A folder above a limit is an error that names the folder."""
        with pytest.raises(SourceError, match=f"folder {repository.folder}: more than 3"):
            await fetch_folder(repository.folder, files=3)

    @pytest.mark.parametrize(
        ("path", "subpath", "message"),
        [
            ("nowhere", ".", "does not exist"),
            ("work", "nowhere", "does not exist"),
            ("work/ops/a.yaml", ".", "is a file"),
            ("work", "ops/a.yaml", "is a file"),
            ("work", "../work", r"without '\.\.'"),
            ("work", "out", "is a symlink to a folder outside"),
        ],
    )
    def test_a_path_that_is_not_a_folder_is_rejected(
        self, repository: Repository, tmp_path: Path, path: str, subpath: str, message: str
    ) -> None:
        """A wrong path is reported on one line before anything is read."""
        (repository.folder / "out").symlink_to(tmp_path)

        with pytest.raises(UsageError, match=message):
            FolderSource(tmp_path / path, subpath)


class TestOpenSource:
    """Test the detection of a source."""

    async def read(self, source: str, tmp_path: Path, ref: str = "HEAD", path: str = ".") -> str:
        """Open, fetch and close; return the content of ops/a.yaml."""
        opened = open_source(source, ref, path, tmp_path / "cache")
        try:
            snapshot = await opened.fetch()
        finally:
            await opened.aclose()
        [file] = [file for file in snapshot.files if file.path == "ops/a.yaml"]
        return file.content.decode()

    async def test_a_folder_is_read_as_is_and_a_url_as_committed(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An uncommitted edit is visible in the folder and not behind the URL."""
        repository.write("ops/a.yaml", "edited")
        monkeypatch.chdir(tmp_path)

        assert await self.read(str(repository.folder), tmp_path) == "edited"
        assert await self.read("work", tmp_path, path="ops") == "edited"
        assert await self.read(f"./{repository.folder.name}/ops", tmp_path) == "edited"
        assert await self.read(repository.url, tmp_path) == "# ops/a.yaml\n"

    async def test_a_folder_with_a_ref_is_read_at_that_commit(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """A ref is resolved in the repository that contains the folder."""
        first = repository.head
        repository.write("ops/a.yaml", "second")
        repository.commit("Second")
        repository.write("ops/a.yaml", "edited")

        work = repository.folder
        assert await self.read(str(work), tmp_path, ref="main") == "second"
        assert await self.read(str(work), tmp_path, ref=first) == "# ops/a.yaml\n"
        assert await self.read(str(work / "ops"), tmp_path, ref="main") == "second"
        assert await self.read(str(work), tmp_path, ref="main", path="ops") == "second"

    async def test_a_bare_repository_is_read_by_its_commits(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        """A repository without a working copy is read by its commits."""
        bare = tmp_path / "bare.git"
        repository.git("clone", "--quiet", "--bare", ".", str(bare))

        assert await self.read(str(bare), tmp_path) == "# ops/a.yaml\n"

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("nowhere", "is neither a folder nor a Git URL"),
            ("", "is neither a folder nor a Git URL"),
            ("-x", "is neither a folder nor a Git URL"),
            ("ext::sh -c id", "Git URL"),
            ("ftp://host/path", "Git URL"),
            ("https://ada:s3cret@host/path", "--git-credentials-file"),
            ("git@host:path", "ssh requires --git-ssh-key-file"),
        ],
    )
    def test_any_other_source_is_rejected(self, tmp_path: Path, source: str, message: str) -> None:
        """A source that is neither a folder nor a URL is reported on one line, without secrets."""
        with pytest.raises(UsageError, match=message) as refused:
            open_source(source, "HEAD", ".", tmp_path)

        assert "s3cret" not in str(refused.value)

    @pytest.mark.parametrize("ref", ["HEAD", "main"])
    def test_access_options_are_rejected_for_a_folder(self, tmp_path: Path, ref: str) -> None:
        """A key that would be unused is an error, for a working copy and for a commit."""
        source = str(Repository(tmp_path / "repository").folder)

        with pytest.raises(UsageError, match="--git-proxy is only for https URLs"):
            open_source(source, ref, ".", tmp_path, GitAccess(proxy="http://proxy:3128"))
        with pytest.raises(UsageError, match="--git-ssh-key-file is only for ssh URLs"):
            open_source(source, ref, ".", tmp_path, GitAccess(ssh_key_file=tmp_path / "key"))

    def test_a_ref_outside_any_repository_is_rejected(self, tmp_path: Path) -> None:
        """A plain folder has no refs."""
        (tmp_path / "plain").mkdir()

        with pytest.raises(UsageError, match="is not in a Git repository"):
            open_source(str(tmp_path / "plain"), "main", ".", tmp_path)


@pytest.mark.parametrize("is_commit", [False, True])
async def test_large_files_of_other_programs_are_ignored(tmp_path: Path, is_commit: bool) -> None:  # noqa: FBT001
    """A dashboard of megabytes is no operario; a large file with one is an error."""
    repository = Repository(tmp_path / "origin")
    repository.write("a.yaml", "a: 1\n")
    repository.write("dashboard.json", '{"panels": [' + '"x", ' * 400_000 + '"y"]}')
    many = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: openfero-a-firing}\n---\n" * 8_000
    repository.write("many.yaml", many)
    repository.write("B.YAML", "a: 1\n")
    repository.commit("Large files")
    if is_commit:
        source: FolderSource | GitSource = GitSource(
            GitSettings(repository.url, tmp_path / "cache")
        )
    else:
        source = FolderSource(tmp_path / "origin")
    async with contextlib.aclosing(source):
        snapshot = await source.fetch()
        again = await source.fetch()
    assert [file.path for file in snapshot.files] == ["a.yaml"]
    assert [(p.path, p.rule) for p in snapshot.problems] == [("many.yaml", "file-too-large")]
    assert [entry.path for entry in snapshot.ignored] == ["B.YAML", "dashboard.json"]
    assert snapshot.ignored[1].reason == "more than 512 KiB, and no operario in it"
    assert again.ignored == snapshot.ignored

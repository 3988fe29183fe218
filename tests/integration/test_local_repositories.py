"""Commits of the repository that a folder is in: what is read, and what is missing."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.cli import main
from openfero_gitops.sources.folder import FolderSource
from tests.support.replica import operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OTHER_USER = 12345
#: What `diff` prints when the second commit of `make` is compared with the first.
CHANGED = "backoffLimit"


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not let a command log to the captured stderr of a test, also after the test has ended."""
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)


def make(folder: Path, object_format: str = "sha1") -> Repository:
    """Make a repository whose second commit changes an operario."""
    repository = Repository(folder, object_format=object_format)
    repository.git("config", "uploadpack.allowFilter", "true")
    for number in (1, 2):
        job = json.loads(operario("NodeDown"))
        job["spec"]["backoffLimit"] = number
        repository.write("ops/heal.yaml", json.dumps(job))
        repository.commit(f"Commit {number}")
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with two commits."""
    return make(tmp_path / "origin")


@pytest.fixture
def diff(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs `diff` and returns its exit code and everything it printed."""

    def run(
        source: Path, base: str = "HEAD~1", head: str = "HEAD", path: str = "ops"
    ) -> tuple[int, str]:
        code = main(["diff", "--path", path, "--", str(source), base, head])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def own_by_another_user(folder: Path) -> None:
    """Give a folder and everything in it to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the owner of a file")
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, _OTHER_USER, _OTHER_USER)


def clone(repository: Repository, name: str, *options: str) -> Path:
    """Clone a repository beside itself."""
    target = repository.folder.parent / name
    repository.git("clone", "--quiet", *options, repository.url, str(target))
    return target


class TestReadable:
    """Test repositories whose commits can be read."""

    @pytest.mark.parametrize("object_format", ["sha1", "sha256"])
    @pytest.mark.parametrize("base", ["HEAD~1", "HEAD^", "abbreviated", "full", "v1", "annotated"])
    def test_any_revision_names_a_commit(
        self, tmp_path: Path, diff: Callable[..., tuple[int, str]], object_format: str, base: str
    ) -> None:
        """Names, abbreviated IDs and full IDs of 40 or 64 digits are resolved."""
        repository = make(tmp_path / "origin", object_format)
        first = repository.git("rev-parse", "HEAD~1")
        repository.git("tag", "v1", first)
        repository.git("tag", "annotated", first, "--annotate", "--message", "First")
        names = {"abbreviated": first[:8], "full": first}

        code, printed = diff(repository.folder, names.get(base, base))

        assert (code, CHANGED in printed) == (0, True)
        assert len(first) == {"sha1": 40, "sha256": 64}[object_format]

    @pytest.mark.parametrize("object_format", ["sha1", "sha256"])
    @pytest.mark.parametrize("kind", ["folder", "subfolder", "worktree", "submodule", "bare"])
    @pytest.mark.parametrize("owner", ["this user", "another user"])
    def test_a_folder_that_the_user_named_is_read_whoever_owns_it(
        self,
        tmp_path: Path,
        diff: Callable[..., tuple[int, str]],
        object_format: str,
        kind: str,
        owner: str,
    ) -> None:
        """Every kind of repository is read, also as another user's checkout."""
        repository = make(tmp_path / "place" / 'it\'s "a" folder', object_format)
        folder, path = repository.folder, "ops"
        match kind:
            case "subfolder":
                folder, path = folder / "ops", "."
            case "worktree":
                folder = repository.folder.parent / "worktree"
                repository.git("worktree", "add", "--quiet", str(folder))
            case "submodule":
                outer = Repository(tmp_path / "place" / "outer", object_format=object_format)
                allowed = ("-c", "protocol.file.allow=always")
                outer.git(*allowed, "submodule", "add", "--quiet", repository.url, "inner")
                folder = outer.folder / "inner"
            case "bare":
                folder = clone(repository, "bare.git", "--bare")
        if owner == "another user":
            own_by_another_user(tmp_path / "place")

        code, printed = diff(folder, path=path)

        assert (code, CHANGED in printed) == (0, True), printed

    @pytest.mark.parametrize("object_format", ["sha1", "sha256"])
    @pytest.mark.parametrize("kind", ["folder", "worktree", "submodule"])
    async def test_files_of_a_folder_have_the_ids_that_git_gives_them(
        self, tmp_path: Path, object_format: str, kind: str
    ) -> None:
        """The IDs have the hash of the repository, committed or not."""
        repository = make(tmp_path / "origin", object_format)
        folder = repository.folder
        match kind:
            case "worktree":
                folder = tmp_path / "worktree"
                repository.git("worktree", "add", "--quiet", str(folder))
            case "submodule":
                outer = Repository(tmp_path / "outer", object_format=object_format)
                allowed = ("-c", "protocol.file.allow=always")
                outer.git(*allowed, "submodule", "add", "--quiet", repository.url, "inner")
                folder = outer.folder / "inner"

        [file] = (await FolderSource(folder, "ops").fetch()).files

        assert file.blob == repository.git("rev-parse", "HEAD:ops/heal.yaml")

    def test_the_environment_of_a_hook_has_no_effect(
        self,
        repository: Repository,
        tmp_path: Path,
        diff: Callable[..., tuple[int, str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """In Git's hooks, variables name another repository than the given folder."""
        other = Repository(tmp_path / "other")
        monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
        monkeypatch.setenv("GIT_INDEX_FILE", str(other.folder / ".git" / "index"))
        monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.folder / ".git" / "objects"))

        code, printed = diff(repository.folder)

        assert (code, CHANGED in printed) == (0, True)

    def test_a_url_of_another_users_repository_is_not_trusted(
        self, repository: Repository, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Only a folder is; the message says that the owner is the reason."""
        own_by_another_user(repository.folder)

        assert main(["validate", repository.url]) == 2
        assert "belong to another user" in capsys.readouterr().err

    def test_a_named_ref_of_a_folder_is_read_whoever_owns_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`--ref` reads a commit of the folder's repository."""
        repository = make(tmp_path / "origin", "sha256")
        own_by_another_user(repository.folder)

        assert main(["validate", str(repository.folder), "--ref", "main", "--path", "ops"]) == 0
        assert "1 valid operario" in capsys.readouterr().out


class TestMissing:
    """Test what is said where a commit cannot be read."""

    @pytest.mark.parametrize(
        ("base", "said"),
        [
            ("HEAD~2", "has no commit 'HEAD~2': the history of HEAD has 2 commits"),
            ("HEAD~1~5", "the history of HEAD has 2 commits"),
            ("v1^", "has no commit 'v1^': v1 is the first commit, which has no parent"),
            ("HEAD^2", "has no commit 'HEAD^2': only a merge has a second parent"),
            ("origin/nope", "run `git fetch origin nope` in it"),
            ("HEAD:ops", "has no commit 'HEAD:ops': it is a tree"),
            ("blob", "has no commit 'blob': it is a blob"),
            ("nope", "has no commit 'nope': there is no such branch or tag; check the spelling"),
            ("0123456789", "has no commit '0123456789': if only the remote has this ID"),
            ("-", "has no commit '-': there is no such branch or tag"),
            ("--all", "has no commit '--all': there is no such branch or tag"),
        ],
    )
    def test_the_reason_is_said(
        self,
        repository: Repository,
        diff: Callable[..., tuple[int, str]],
        base: str,
        said: str,
    ) -> None:
        """A complete clone is not called a shallow one."""
        repository.git("tag", "v1", "HEAD~1")
        repository.git("tag", "blob", "HEAD:ops/heal.yaml")
        code, printed = diff(repository.folder, base)

        assert (code, said in printed) == (2, True), printed
        assert "shallow" not in printed

    @pytest.mark.parametrize("base", ["HEAD", "HEAD~1", "@^", "trunk", "trunk~3"])
    def test_a_branch_without_commits(
        self, tmp_path: Path, diff: Callable[..., tuple[int, str]], base: str
    ) -> None:
        """The branch is named."""
        Repository(tmp_path / "empty", "trunk")

        code, printed = diff(tmp_path / "empty", base)

        assert (code, "branch trunk has no commit yet" in printed) == (2, True), printed

    @pytest.mark.parametrize("base", ["HEAD~1", "main^", "older"])
    def test_a_shallow_clone(
        self, repository: Repository, diff: Callable[..., tuple[int, str]], base: str
    ) -> None:
        """The command that fetches the rest is named, and works."""
        base = repository.git("rev-parse", "HEAD~1") if base == "older" else base
        shallow = clone(repository, "shallow", "--depth=1")

        code, printed = diff(shallow, base)
        assert (code, "run `git fetch --unshallow` in it" in printed) == (2, True), printed

        repository.git("-C", str(shallow), "fetch", "--quiet", "--unshallow")
        assert diff(shallow, base)[0] == 0

    @pytest.mark.parametrize("object_format", ["sha1", "sha256"])
    @pytest.mark.parametrize("filtered", ["tree:0", "blob:none", "blob:limit=10"])
    def test_a_partial_clone(
        self,
        tmp_path: Path,
        diff: Callable[..., tuple[int, str]],
        filtered: str,
        object_format: str,
    ) -> None:
        """Nothing is fetched from its remote; the command that does is named, and works."""
        repository = make(tmp_path / "origin", object_format)
        partial = clone(repository, "partial", f"--filter={filtered}")
        away = repository.folder.rename(tmp_path / "away")

        code, printed = diff(partial)
        assert (code, "is a partial clone" in printed) == (2, True), printed
        assert "`git fetch --refetch --no-filter`" in printed

        repository.folder = away.rename(repository.folder)
        options = ("-c", "gc.auto=0", "-c", "maintenance.auto=false")
        fetch = ("fetch", "--quiet", "--refetch", "--no-filter")
        repository.git("-C", str(partial), *options, *fetch)
        assert diff(partial)[0] == 0

    @pytest.mark.parametrize("kind", ["worktree", "submodule", "other"])
    def test_a_repository_that_is_elsewhere(
        self,
        repository: Repository,
        tmp_path: Path,
        diff: Callable[..., tuple[int, str]],
        kind: str,
    ) -> None:
        """A worktree or submodule whose repository was not mounted names that repository."""
        owner = repository.folder
        match kind:
            case "worktree":
                folder = tmp_path / "worktree"
                repository.git("worktree", "add", "--quiet", str(folder))
                said = f"is a worktree of the repository {owner}, which does not exist here"
                shutil.rmtree(owner)
            case "submodule":
                outer = Repository(tmp_path / "outer")
                allowed = ("-c", "protocol.file.allow=always")
                outer.git(*allowed, "submodule", "add", "--quiet", repository.url, "inner")
                folder = outer.folder / "inner"
                said = f"is a submodule of the repository {outer.folder}, which does not exist here"
                shutil.rmtree(outer.folder / ".git")
            case _:
                folder = tmp_path / "separate"
                git_dir = tmp_path / "elsewhere.git"
                clone(repository, "separate", f"--separate-git-dir={git_dir}")
                said = f"names the repository {git_dir}, which does not exist here"
                shutil.rmtree(git_dir)

        code, printed = diff(folder)

        assert (code, said in printed) == (2, True), printed

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            ([], "is not in a Git repository"),
            ([".git"], ".git is not a Git repository"),
            ([".git", ".git/objects"], ".git is not a Git repository"),
        ],
    )
    def test_no_repository(
        self,
        repository: Repository,
        tmp_path: Path,
        diff: Callable[..., tuple[int, str]],
        names: list[str],
        said: str,
    ) -> None:
        """A repository that the folder happens to be in is not read instead of a damaged one."""
        folder = (repository.folder if names else tmp_path) / "none"
        folder.mkdir()
        for name in names:
            (folder / name).mkdir()

        code, printed = diff(folder, path=".")

        assert (code, said in printed) == (2, True), printed

    def test_an_ambiguous_abbreviation(
        self, repository: Repository, diff: Callable[..., tuple[int, str]]
    ) -> None:
        """More digits are asked for."""
        stream = "".join(
            f"commit refs/heads/many\ncommitter a <a> {second} +0000\ndata 0\n"
            for second in range(2000)
        )
        repository.git("fast-import", "--quiet", stdin=stream.encode())
        counts = Counter(commit[:4] for commit in repository.git("rev-list", "many").split())
        [(abbreviated, _)] = counts.most_common(1)

        code, printed = diff(repository.folder, abbreviated)

        assert (code, "write more digits" in printed) == (2, True), printed

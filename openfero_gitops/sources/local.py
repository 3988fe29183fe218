"""The Git repository that a folder on this machine is in, and what its refs name.

The folder is one that the user has named, so its owner does not matter: `safe.directory` is set to
exactly this repository, and only for the commands that read it. Nothing is fetched into it.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openfero_gitops.domain.catalog import is_commit
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.domain.text import plural, printable
from openfero_gitops.sources.git.errors import last_line
from openfero_gitops.sources.git.process import Finished, Git

_SECONDS: Final = 60.0  # that one command of Git may take
_MAX_LINK_BYTES: Final = 4096  # of a `.git` file
_LINK: Final = re.compile(r"gitdir: (?P<target>[^\n]+)\n?")
_HEXADECIMAL: Final = re.compile("[0-9a-f]{4,64}")
#: A revision such as `HEAD~2` or `main^`: what it starts from, and how it goes on.
_OLDER: Final = re.compile(r"(?P<start>[^~^]+)(?P<steps>[~^][~^0-9]*)")

_SHA256: Final = re.compile(r"^\s*objectformat\s*=\s*sha256\s*$", re.IGNORECASE | re.MULTILINE)
_DEEPENING: Final = (
    "`git fetch --unshallow` in it (with actions/checkout of GitHub, set `fetch-depth: 0`)"
)
#: A parent other than the first, which only merges have.
_OTHER_PARENT: Final = re.compile(r"\^(?:[2-9]|1\d)")


@dataclass(frozen=True, slots=True)
class LocalRepository:
    """A repository, or a worktree of one.

    Attributes:
        root: the folder that paths are relative to.
        directories: where Git keeps what belongs to it: more than one for a worktree.
        shallow: whether only the newest part of its history was fetched.
    """

    root: Path
    directories: tuple[Path, ...]
    shallow: bool

    @property
    def owned_paths(self) -> tuple[Path, ...]:
        """What Git checks the owner of: one of these, depending on its version and command."""
        return tuple(dict.fromkeys((self.root, self.root / ".git", *self.directories)))

    def resolve(self, ref: str) -> str:
        """Resolve a ref to the full ID of a commit.

        A ref may be anything that Git resolves (`HEAD~1`, `origin/main`, an abbreviated ID). A
        branch that only the remote has is found without `origin/`.

        Raises:
            UsageError: there is no such commit; the message says why, as far as it is known.
            SourceError: git does not work.
        """
        why = "that is not the name of a revision"
        if ref and "\0" not in ref:
            for name in (ref, f"origin/{ref}"):
                if commit := self._commit(name):
                    return commit
            why = self._why_missing(ref)
        raise UsageError(f"{printable(str(self.root))} has no commit {printable(ref)!r}: {why}")

    def _commit(self, name: str) -> str:
        """Return the full ID of a commit; empty where there is none."""
        resolved = self._parsed("--quiet", f"{name}^{{commit}}")
        commit = resolved.stdout.decode().strip()
        return commit if resolved.code == 0 and is_commit(commit) else ""

    def _parsed(self, *arguments: str) -> Finished:
        *options, name = arguments
        return _run(self.root, "rev-parse", "--verify", *options, "--end-of-options", name)

    def _why_missing(self, ref: str) -> str:
        """Explain why a ref names no commit, and what to do."""
        older = _OLDER.fullmatch(ref)
        if not self._commit("HEAD"):
            head = _run(self.root, "symbolic-ref", "--quiet", "--short", "HEAD")
            branch = head.stdout.decode("utf-8", "replace").strip()
            if (older["start"] if older else ref) in {"HEAD", "@", branch}:
                return f"branch {printable(branch)} has no commit yet; commit something first"
        kind = _run(self.root, "cat-file", "-t", ref) if not ref.startswith("-") else None
        if kind is not None and kind.code == 0:
            name = kind.stdout.decode().strip()
            return f"it is a {name}; name a branch, a tag or a commit"
        if older and (start := self._commit(older["start"])):
            return self._why_no_ancestor(older["steps"], printable(older["start"]), start)
        if "is ambiguous" in self._parsed(f"{ref}^{{commit}}").stderr:
            return "several objects have an ID that begins like this; write more digits"
        if _HEXADECIMAL.fullmatch(ref):
            advice = _DEEPENING if self.shallow else "`git fetch` in it"
            return f"if only the remote has this ID, run {advice}"
        return (
            "there is no such branch or tag; check the spelling, or, if only the remote has it,"
            f" run `git fetch origin {printable(ref.removeprefix('origin/'))}` in it"
        )

    def _why_no_ancestor(self, steps: str, start_name: str, start: str) -> str:
        if self.shallow:
            return f"it is a shallow clone, with only the newest commits; run {_DEEPENING}"
        listed = _run(self.root, "rev-list", "--count", "--first-parent", start)
        if listed.code != 0:
            return f"the history of {start_name} cannot be read (git: {last_line(listed.stderr)})"
        if _OTHER_PARENT.search(steps):
            return "only a merge has a second parent"
        count = int(listed.stdout)
        if count == 1:
            return f"{start_name} is the first commit, which has no parent"
        return f"the history of {start_name} has {plural(count, 'commit')}"


def find_root(path: Path) -> Path | None:
    """Return the root of the repository that a path is in; None outside of any repository."""
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        # Unlike `Path.exists`, this does not fail where a parent folder may not be searched.
        if os.path.exists(folder / ".git"):  # noqa: PTH110
            return folder
    return None


def object_format(git_dir: Path) -> str:
    """Return the hash of a repository's IDs, `sha1` or `sha256`.

    Raises:
        OSError: its configuration cannot be read.
    """
    config = (git_dir / "config").read_text(encoding="utf-8", errors="replace")
    return "sha256" if _SHA256.search(config) else "sha1"


def object_format_of(root: Path) -> str:
    """Return the hash of the IDs in a working tree's repository; `sha1` if there is none."""
    git_dir = _link_target(root / ".git") or root / ".git"
    try:
        if (git_dir / "commondir").is_file():  # a worktree
            git_dir /= os.fsdecode((git_dir / "commondir").read_bytes()).strip()
        return object_format(git_dir)
    except OSError:
        return "sha1"


def is_bare(folder: Path) -> bool:
    """Whether a folder is a bare repository."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def open_local(folder: Path) -> LocalRepository:
    """Open the repository that a folder is in.

    Raises:
        UsageError: it is in none, or in a worktree or submodule whose repository is elsewhere.
        SourceError: git does not work.
    """
    root = folder.resolve() if is_bare(folder) else find_root(folder)
    if root is None:
        raise UsageError(
            f"folder {printable(str(folder))!r} is not in a Git repository, so it has no commits"
        )
    described = _run(
        root,
        "rev-parse",
        "--is-shallow-repository",
        "--path-format=absolute",
        "--git-dir",
        "--git-common-dir",
    )
    lines = os.fsdecode(described.stdout).splitlines()
    if described.code != 0 or len(lines) != 3:  # noqa: PLR2004 - one for each question
        raise _unusable(root, described)
    shallow, *directories = lines
    return LocalRepository(root, tuple(map(Path, directories)), shallow == "true")


def _unusable(root: Path, described: Finished) -> UsageError | SourceError:
    """Explain why Git cannot open a repository."""
    where = printable(str(root))
    target = _link_target(root / ".git")
    if target is not None and not target.exists():
        target = Path(os.path.normpath(target))
        for part, kind in (("worktrees", "worktree"), ("modules", "submodule")):
            owner, separator, _ = str(target).rpartition(f"/{part}/")
            if separator:
                owner = printable(owner.removesuffix("/.git"))
                return UsageError(
                    f"{where} is a {kind} of the repository {owner}, which does not exist here;"
                    " make that repository available under this path, or use a clone"
                )
        return UsageError(
            f"{where}/.git names the repository {printable(str(target))}, which does not exist"
            " here; make it available under this path, or use a clone"
        )
    reason = last_line(described.stderr)
    if "not a git repository" in described.stderr:
        return UsageError(
            f"{where}/.git is not a Git repository (git: {reason}); use a complete clone"
        )
    return SourceError(f"Git repository {where}: cannot be read (git: {reason})")


def _link_target(link: Path) -> Path | None:
    """Return the folder that a `.git` file names; None if it is no such file."""
    try:
        if not link.is_file() or link.stat().st_size > _MAX_LINK_BYTES:
            return None
        text = os.fsdecode(link.read_bytes())
    except OSError:
        return None
    match = _LINK.fullmatch(text)
    return None if match is None else link.parent / match["target"]


def _run(root: Path, *arguments: str) -> Finished:
    """Run a command that reads this repository, whatever the environment and its owner."""
    git = Git(
        f"Git repository {printable(str(root))}",
        {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.devnull,
            "LC_ALL": "C",
            # If the folder is not a repository, do not use one that it is in.
            "GIT_CEILING_DIRECTORIES": str(root.parent),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
        },
        timeout=_SECONDS,
        stop=threading.Event(),
    )
    return git.run("-c", f"safe.directory={root}", "-C", str(root), *arguments)

"""Git repositories that tests write: a working copy with git's own command."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

AUTHOR = "Ada Example <ada@example.com>"
FIRST_COMMIT = 1_790_000_000  # seconds since 1970; each further commit is a minute later


class Repository:
    """A repository with a working copy in `folder`, on branch `branch`.

    Nothing of the machine's git configuration is used, and time is the repository's own, so that
    the same calls give the same commits everywhere. With the object format `sha256`, ids have 64
    digits instead of 40.
    """

    def __init__(self, folder: Path, branch: str = "main", object_format: str = "sha1") -> None:
        self.folder = folder
        self._clock = FIRST_COMMIT
        folder.mkdir(parents=True, exist_ok=True)
        hashed = f"--object-format={object_format}"
        self.git("init", "--quiet", f"--initial-branch={branch}", hashed)
        # As GitHub and GitLab do: a commit can be fetched by its id.
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    @property
    def url(self) -> str:
        """Where it can be fetched from, on this machine."""
        return f"file://{self.folder}"

    @property
    def head(self) -> str:
        """The full id of the commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file of the working copy, to be in the next commit."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def delete(self, path: str) -> None:
        """Remove a file or folder of the working copy."""
        self.git("rm", "-r", "--quiet", "--", path)

    def commit(self, message: str) -> str:
        """Commit the working copy as it is, changed or not, and return the commit's full id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def commit_tree(self, tree: str, message: str, *parents: str) -> str:
        """Commit a tree that was made by hand, and return the commit's full id."""
        options = [word for parent in parents for word in ("-p", parent)]
        return self.git("commit-tree", *options, "-m", message, tree)

    def make_tree(self, *entries: tuple[str, str, bytes]) -> str:
        """Make a tree of (mode, id, name), with any name at all, and return its id.

        It is written as an object of its own: `git mktree` refuses what a hostile author's own
        tool would not.
        """
        body = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha) for mode, sha, name in entries
        )
        return self.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=body)

    def make_blob(self, content: bytes) -> str:
        """Store a content and return its id."""
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def branch(self, name: str) -> None:
        """Create a branch at the current commit, and switch to it."""
        self.git("checkout", "--quiet", "-b", name)

    def switch(self, name: str) -> None:
        """Check a branch out."""
        self.git("checkout", "--quiet", name)

    def merge(self, name: str, message: str) -> str:
        """Merge a branch with a merge commit, and return that."""
        self.git("merge", "--quiet", "--no-ff", "--message", message, name)
        return self.head

    def tag(self, name: str, message: str = "") -> None:
        """Tag the commit that is checked out; with a message, by an annotated tag."""
        self.git("tag", *(("--annotate", "--message", message) if message else ()), name)

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in the working copy, and return its output without the last newline.

        Raises:
            RuntimeError: git failed; the text is its error output.
        """
        if arguments[0] in {"commit", "commit-tree", "merge", "fast-import", "tag"}:
            self._clock += 60
        date = f"{self._clock} +0200"
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        ran = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=_environment() | dates,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        if ran.returncode != 0:
            raise RuntimeError(f"git {' '.join(arguments)}: {ran.stderr.decode()}")
        return ran.stdout.decode().rstrip("\n")


def run_git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git on a bare repository, and return its output without surrounding whitespace."""
    argv = ["git", f"--git-dir={folder}", *arguments]
    ran = subprocess.run(
        argv, env=_environment(), input=stdin, stdout=subprocess.PIPE, timeout=120, check=True
    )
    return ran.stdout.decode().strip()


def lose(folder: Path, blob: str) -> None:
    """Delete an object from a bare repository."""
    packs = folder / "objects" / "pack"
    for pack in sorted(packs.glob("*.pack")):
        aside = folder / pack.name
        pack.rename(aside)
        pack.with_suffix(".idx").unlink()
        run_git(folder, "unpack-objects", "-q", stdin=aside.read_bytes())
    (folder / "objects" / blob[:2] / blob[2:]).unlink()


def _environment() -> dict[str, str]:
    """Return an environment without the machine's git configuration, and with a fixed author."""
    name, _, email = AUTHOR.partition(" <")
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email.rstrip(">"),
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email.rstrip(">"),
    }

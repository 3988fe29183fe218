"""From what a person wrote to the source that is meant."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.sources.folder import FolderSource, repository_root
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.process import Git
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.git.url import Protocol, Remote, is_commit, looks_like_url
from openfero_gitops.sources.tree import normalise, shown


def open_source(
    source: str, ref: str, path: str, cache_dir: Path, access: GitAccess | None = None
) -> FolderSource | GitSource:
    """Open a folder or a Git URL.

    A folder is read as it lies there; with another `ref` than HEAD, or where it is a bare
    repository, the commit that is meant is read instead.

    Args:
        source: a folder, or a Git URL.
        ref: HEAD where nobody asked for one.
        path: the part of it that counts.
        cache_dir: for what is fetched.
        access: the way to a Git URL.

    Raises:
        UsageError: it is neither, or cannot work.
    """
    url, access = source, access or GitAccess()
    if (folder := _folder(source)) is not None:
        if ref == "HEAD" and not _is_bare(folder):
            access.check(Remote(shown(source), Protocol.FILE))
            return FolderSource(folder, path)
        root, path = _repository(folder, path)
        url = str(root)
    return GitSource(
        GitSettings(url=url, cache_dir=cache_dir, ref=ref, path=path, access=access or GitAccess())
    )


def open_commit(
    source: str,
    ref: str,
    path: str,
    cache_dir: Path,
    trust: Trust | None = None,
    *,
    access: GitAccess | None = None,
) -> GitSource:
    """Open a Git URL, or the repository that a folder is in, at a commit and never as it lies.

    In a repository on this machine a ref may be anything that git takes for a commit (`HEAD~1`,
    `origin/main`, the first characters of an id); a branch that only the remote has is found
    without `origin/`, as a fresh clone has it.

    Args:
        source: a folder, or a Git URL.
        ref: which commit is meant.
        path: the part of it that counts.
        cache_dir: for what is fetched.
        trust: what must be signed; nothing, if left out.
        access: the way to a Git URL.

    Raises:
        UsageError: it is neither, or there is no such commit.
        SourceError: git does not work.
    """
    url = source
    if (folder := _folder(source)) is not None:
        root, path = _repository(folder, path)
        url, ref = str(root), resolve_commit(root, ref)
    return GitSource(
        GitSettings(
            url=url,
            cache_dir=cache_dir,
            ref=ref,
            path=path,
            access=access or GitAccess(),
            trust=trust or Trust(),
        )
    )


def _folder(source: str) -> Path | None:
    """The folder that is meant; None where it is a Git URL.

    Raises:
        UsageError: it is neither.
    """
    folder = Path(source)
    if looks_like_url(source) and ("://" in source or not folder.is_dir()):
        return None
    if not source or not folder.is_dir():
        raise UsageError(f"{shown(source)!r}: there is no such folder, and it is no Git URL either")
    return folder


def _repository(folder: Path, path: str) -> tuple[Path, str]:
    """The root of the repository that a folder is in, and the path from there.

    Raises:
        UsageError: it is in none.
    """
    root = folder.resolve() if _is_bare(folder) else repository_root(folder)
    if root is None:
        raise UsageError(f"{shown(str(folder))!r}: a ref is for a Git repository, this is none")
    return root, str(folder.resolve().relative_to(root) / normalise(path))


def resolve_commit(root: Path, ref: str) -> str:
    """Find the commit that a person means in a repository on this machine.

    Raises:
        UsageError: there is none.
        SourceError: git does not work.
    """
    git = Git(
        f"Git repository {root}",
        {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.devnull,
            "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_OPTIONAL_LOCKS": "0",
        },
        timeout=60.0,
        stop=threading.Event(),
    )
    if "\0" not in ref:
        for name in (ref, f"origin/{ref}"):
            asked = git.run(
                *("-c", "safe.directory=*", "-C", str(root)),
                *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"),
            )
            if asked.code == 0 and is_commit(commit := asked.stdout.decode().strip()):
                return commit
    raise UsageError(
        f"{shown(str(root))}: there is no commit {shown(ref)!r}; in a clone that was made with"
        " --depth, fetch what is missing (git fetch --unshallow)"
    )


def _is_bare(folder: Path) -> bool:
    """Whether a folder is a repository without a working copy."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()

"""From what a person wrote to the source that is meant."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path

from openfero_gitops.adapters.folder import FolderSource, repository_root
from openfero_gitops.adapters.git import GitSettings, GitSource
from openfero_gitops.adapters.git_process import Git
from openfero_gitops.adapters.git_trust import Trust
from openfero_gitops.adapters.git_url import is_commit, looks_like_url
from openfero_gitops.adapters.tree import normalise, shown
from openfero_gitops.domain.errors import UsageError


def open_source(
    source: str,
    ref: str,
    path: str,
    cache_dir: Path,
    *,
    credentials_file: Path | None = None,
    ssh_key_file: Path | None = None,
    known_hosts_file: Path | None = None,
    ca_file: Path | None = None,
) -> FolderSource | GitSource:
    """Open a folder or a Git URL.

    A folder is read as it lies there; with another `ref` than HEAD, or where it is a bare
    repository, the commit that is meant is read instead.

    Args:
        source: a folder, or a Git URL.
        ref: HEAD where nobody asked for one.
        path: the part of it that counts.
        cache_dir: for what is fetched.
        credentials_file: for Git over http and https.
        ssh_key_file: for Git over ssh.
        known_hosts_file: for the same.
        ca_file: for Git over https.

    Raises:
        UsageError: it is neither, or cannot work.
    """
    url = source
    if not looks_like_url(source) or ("://" not in source and Path(source).is_dir()):
        folder = Path(source)
        if not source or not folder.is_dir():
            raise UsageError(
                f"{shown(source)!r}: there is no such folder, and it is no Git URL either"
            )
        if _is_bare(folder):
            url = str(folder.resolve())
        elif ref == "HEAD":
            return FolderSource(folder, path)
        else:
            root = repository_root(folder)
            if root is None:
                raise UsageError(f"{shown(source)!r}: a ref is for a Git repository, this is none")
            url = str(root)
            path = str(folder.resolve().relative_to(root) / normalise(path))
    return GitSource(
        GitSettings(
            url=url,
            cache_dir=cache_dir,
            ref=ref,
            path=path,
            credentials_file=credentials_file,
            ssh_key_file=ssh_key_file,
            known_hosts_file=known_hosts_file,
            ca_file=ca_file,
        )
    )


def open_commit(
    source: str, ref: str, path: str, cache_dir: Path, trust: Trust | None = None
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

    Raises:
        UsageError: it is neither, or there is no such commit.
        SourceError: git does not work.
    """
    settings = functools.partial(GitSettings, cache_dir=cache_dir, trust=trust or Trust())
    folder = Path(source)
    if looks_like_url(source) and ("://" in source or not folder.is_dir()):
        return GitSource(settings(url=source, ref=ref, path=path))
    if not source or not folder.is_dir():
        raise UsageError(f"{shown(source)!r}: there is no such folder, and it is no Git URL either")
    root = folder.resolve() if _is_bare(folder) else repository_root(folder)
    if root is None:
        raise UsageError(f"{shown(source)!r}: commits are for a Git repository, this is none")
    inner = str(folder.resolve().relative_to(root) / normalise(path))
    commit = resolve_commit(root, ref)
    return GitSource(settings(url=str(root), ref=commit, path=inner))


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

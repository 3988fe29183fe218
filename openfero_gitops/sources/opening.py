"""Opens the source that an argument of the command line names."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from openfero_gitops.domain.catalog import is_commit
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.folder import FolderSource, repository_root
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.process import Git
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.git.url import Protocol, Remote, looks_like_url
from openfero_gitops.sources.tree import normalise


def open_source(
    source: str, ref: str, path: str, cache_dir: Path, access: GitAccess | None = None
) -> FolderSource | GitSource:
    """Open a folder or a Git URL.

    The files of a folder are read, committed or not. With another `ref` than HEAD, or if the
    folder is a bare repository, the commit is read instead.

    Args:
        source: a folder, or a Git URL.
        ref: HEAD if no ref was given.
        path: the folder of the operarios in the source.
        cache_dir: where fetched objects are stored.
        access: the settings for the connection to a Git URL.

    Raises:
        UsageError: `source` is neither, or the settings are not valid.
    """
    url, access = source, access or GitAccess()
    if (folder := _folder(source)) is not None:
        if ref == "HEAD" and not _is_bare(folder):
            access.check(Remote(printable(source), Protocol.FILE))
            return FolderSource(folder, path)
        root, path = _repository(folder, path)
        url = str(root)
    return GitSource(
        GitSettings(
            url=url,
            cache_dir=cache_dir,
            ref=ref,
            path=path,
            access=access,
        )
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
    """Open a commit of a Git URL, or of the repository that a folder is in.

    In a local repository, a ref may be anything that Git resolves to a commit (`HEAD~1`,
    `origin/main`, an abbreviated ID). A branch that only the remote has is found without
    `origin/`.

    Args:
        source: a folder, or a Git URL.
        ref: the commit.
        path: the folder of the operarios in the source.
        cache_dir: where fetched objects are stored.
        trust: what must be signed; nothing by default.
        access: the settings for the connection to a Git URL.

    Raises:
        UsageError: `source` is neither, or there is no such commit.
        SourceError: git does not work.
    """
    url, access = source, access or GitAccess()
    if (folder := _folder(source)) is not None:
        root, path = _repository(folder, path)
        url, ref = str(root), resolve_commit(root, ref)
    return GitSource(
        GitSettings(
            url=url,
            cache_dir=cache_dir,
            ref=ref,
            path=path,
            access=access,
            trust=trust or Trust(),
        )
    )


def _folder(source: str) -> Path | None:
    """Return the folder that `source` names; None where it is a Git URL.

    Raises:
        UsageError: it is neither.
    """
    folder = Path(source)
    if looks_like_url(source) and ("://" in source or not folder.is_dir()):
        return None
    if not source or not folder.is_dir():
        raise UsageError(f"{printable(source)!r} is neither a folder nor a Git URL")
    return folder


def _repository(folder: Path, path: str) -> tuple[Path, str]:
    """Return the root of the repository that a folder is in, and the path relative to it.

    Raises:
        UsageError: the folder is in no repository.
    """
    root = folder.resolve() if _is_bare(folder) else repository_root(folder)
    if root is None:
        raise UsageError(
            f"folder {printable(str(folder))!r} is not in a Git repository; use --ref only with one"
        )
    return root, str(folder.resolve().relative_to(root) / normalise(path))


def resolve_commit(root: Path, ref: str) -> str:
    """Resolve a ref to a commit in a local repository.

    Raises:
        UsageError: there is no such commit.
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
            resolved = git.run(
                *("-c", "safe.directory=*", "-C", str(root)),
                *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"),
            )
            if resolved.code == 0 and is_commit(commit := resolved.stdout.decode().strip()):
                return commit
    raise UsageError(
        f"{printable(str(root))} has no commit {printable(ref)!r}; if it is a shallow clone, run"
        " git fetch --unshallow"
    )


def _is_bare(folder: Path) -> bool:
    """Whether a folder is a bare repository."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()

"""Opens the source that an argument of the command line names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.folder import FolderSource
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource
from openfero_gitops.sources.git.url import Protocol, Remote, looks_like_url
from openfero_gitops.sources.local import LocalRepository, is_bare, open_local
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
        access.check(Remote(printable(source), Protocol.FILE))
        if ref == "HEAD" and not is_bare(folder):
            return FolderSource(folder, path)
        local, path, access = _local(folder, path, access)
        url = str(local.root)
    return GitSource(GitSettings(url=url, cache_dir=cache_dir, ref=ref, path=path, access=access))


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
        local, path, access = _local(folder, path, access)
        url, ref = str(local.root), local.resolve(ref)
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


def _local(folder: Path, path: str, access: GitAccess) -> tuple[LocalRepository, str, GitAccess]:
    """Open the repository that a folder is in, which is trusted because the user has named it.

    Returns:
        the repository, `path` relative to its root, and the settings with which Git reads it.

    Raises:
        UsageError: the folder is in no repository, or only in a part of one.
    """
    local = open_local(folder)
    relative = folder.resolve().relative_to(local.root) / normalise(path)
    return local, str(relative), replace(access, safe_directories=local.owned_paths)

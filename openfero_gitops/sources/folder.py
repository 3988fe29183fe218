"""A working copy as a source of snapshots, so that files can be tried before they are committed.

The same files are read as a commit of them would have (`tree`), ignored ones included: a folder
is read as it lies there. Paths count from the repository's root where the folder is inside one.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.sources.tree import (
    CASES,
    Budgets,
    Entry,
    Kind,
    assemble,
    hidden,
    normalise,
    select,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.sources.tree import Wanted


class FolderSource:
    """A folder of operarios; `subpath` is the part of it that counts.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, path: Path, subpath: str = ".", budgets: Budgets | None = None) -> None:
        self._budgets = budgets or Budgets()
        folder = path / normalise(subpath)
        if not path.exists() or not folder.exists():
            raise UsageError(f"folder {shown(str(folder))!r}: there is none; correct the path")
        if not folder.is_dir():
            raise UsageError(f"folder {shown(str(folder))!r}: this is a file, name its folder")
        self._folder = folder.resolve()
        self._repository = repository_root(path) or path.resolve()
        if not self._folder.is_relative_to(self._repository):
            raise UsageError(
                f"folder {shown(str(folder))!r}: a symlink leads out of"
                f" {shown(str(self._repository))!r}; name the folder that it leads to"
            )
        self._root = normalise(str(self._folder.relative_to(self._repository)))
        self._where = f"folder {shown(str(folder))}"

    @property
    def url(self) -> str:
        """The folder from which paths count."""
        return str(self._repository)

    async def fetch(self) -> Snapshot:
        """Read the files as they lie there; the revision's commit is empty.

        Raises:
            SourceError: a file or folder cannot be read, or the whole is over a budget.
        """
        return await asyncio.to_thread(self._read)

    async def cases(
        self,
        commit: str = "",  # noqa: ARG002 - as in the Git source
    ) -> Snapshot:
        """Read the golden cases, `tests` below the path; nothing where there is no such folder.

        Raises:
            SourceError: a file or folder cannot be read, or the whole is over a budget.
        """
        return await asyncio.to_thread(self._read, CASES)

    async def versions(
        self,
        path: str,  # noqa: ARG002 - as in the Git source
        commit: str,  # noqa: ARG002 - the same
        limit: int = 100,  # noqa: ARG002 - the same
    ) -> list[SourceFile]:
        """Return nothing: a folder has no history."""
        return []

    async def aclose(self) -> None:
        """Do nothing: nothing is kept open."""

    def _read(self, below: str = "") -> Snapshot:
        folder, root = self._folder / below, f"{self._root}/{below}".strip("/")
        missing = below and (folder.is_symlink() or not folder.is_dir())
        try:
            selection = select(
                () if missing else self._walk(folder),
                root=root,
                budgets=self._budgets,
                where=self._where,
            )
            contents = {file.path: self._content(file) for file in selection.wanted}
        except OSError as error:
            raise SourceError(
                f"{self._where}: {shown(os.fsencode(error.filename or ''))} cannot be read"
                f" ({error.strerror}); make it readable, or leave it out of the path"
            ) from error
        return assemble(Revision(self.url, "", ""), root, selection, contents)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        """List everything below a folder that could be read, following no link."""
        with os.scandir(folder) as found:
            listed = sorted(found, key=lambda one: one.name)
        for one in listed:
            path = Path(one.path)
            name = os.fsencode(path.relative_to(self._repository))
            status = one.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                yield Entry(name, Kind.LINK)
            elif stat.S_ISREG(status.st_mode):
                yield Entry(name, Kind.FILE, status.st_size)
            elif not stat.S_ISDIR(status.st_mode):
                yield Entry(name, Kind.OTHER)
            elif hidden(os.fsencode(one.name)):
                continue
            elif Path(path, ".git").exists():
                yield Entry(name, Kind.SUBMODULE)
            else:
                yield from self._walk(path)

    def _content(self, file: Wanted) -> bytes:
        """Read one file, which must still be the one that was listed."""
        path = self._repository / file.path
        # No link put in its place meanwhile is followed, no pipe waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            content = stream.read(self._budgets.file_bytes + 1)
        if len(content) > self._budgets.file_bytes:
            raise SourceError(f"{self._where}: {file.path} grew while it was read; try again")
        return content


def repository_root(path: Path) -> Path | None:
    """Return the folder with a `.git` that a path is in; None outside any repository."""
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        if (folder / ".git").exists():
            return folder
    return None

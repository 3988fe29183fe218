"""A working copy as a source, so that files can be tested before they are committed.

The same rules select the files as in a commit (see `tree`), but also files that Git ignores are
read. Paths are relative to the root of the repository, if the folder is in one.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import Revision, Snapshot, may_hold_operario
from openfero_gitops.domain.errors import SourceError, UsageError
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.local import find_root, object_format_of
from openfero_gitops.sources.tree import (
    CASES,
    Budgets,
    Entry,
    Kind,
    assemble,
    is_skipped_folder,
    normalise,
    printable_name,
    select,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.sources.tree import Wanted

_NO_ID: Final = {"sha1": "0" * 40, "sha256": "0" * 64}


class FolderSource:
    """A folder of operarios: `subpath` below `path`.

    Raises:
        UsageError: the folder does not exist.
    """

    def __init__(self, path: Path, subpath: str = ".", budgets: Budgets | None = None) -> None:
        self._budgets = budgets or Budgets()
        folder = path / normalise(subpath)
        shown = printable(str(folder))
        if not path.exists() or not folder.exists():
            raise UsageError(f"folder {shown!r} does not exist; correct the path")
        if not folder.is_dir():
            raise UsageError(f"{shown!r} is a file; give the folder that contains it")
        resolved = folder.resolve()
        self._repository = find_root(path) or path.resolve()
        if not resolved.is_relative_to(self._repository):
            raise UsageError(
                f"folder {shown!r} is a symlink to a folder outside"
                f" {printable(str(self._repository))!r}; give the folder that it points to"
            )
        self._root = normalise(str(resolved.relative_to(self._repository)))
        self._any_id = _NO_ID[object_format_of(self._repository)]
        self._where = f"folder {shown}"

    @property
    def url(self) -> str:
        """The folder that paths are relative to."""
        return str(self._repository)

    async def fetch(self) -> Snapshot:
        """Read the files; the revision has no commit.

        Raises:
            SourceError: a file or folder cannot be read, or the folder is over a budget.
        """
        return await asyncio.to_thread(self._read, self._root)

    async def cases(self, snapshot: Snapshot) -> Snapshot:
        """Read the golden cases: the `tests` folder below a snapshot's path, if there is one.

        Raises:
            SourceError: a file or folder cannot be read, or the folder is over a budget.
        """
        root = f"{snapshot.root}/{CASES}".strip("/")
        return await asyncio.to_thread(self._read, root, optional=True)

    async def aclose(self) -> None:
        """Do nothing: nothing is kept open."""

    def _read(self, root: str, *, optional: bool = False) -> Snapshot:
        folder = self._repository / root
        skipped = optional and (folder.is_symlink() or not folder.is_dir())
        try:
            selection = select(
                () if skipped else self._walk(folder),
                root=root,
                budgets=self._budgets,
                where=self._where,
            )
            contents = {
                file.path: self._content(file, self._budgets.file_bytes)
                for file in selection.wanted
            }
            unrelated = [
                file.path
                for file in selection.large
                if not may_hold_operario(self._content(file, self._budgets.searched_bytes))
            ]
        except OSError as error:
            path = printable_name(os.fsencode(error.filename or ""))
            raise SourceError(
                f"{self._where}: cannot read {path} ({error.strerror}); make it readable, or move"
                " it out of the path"
            ) from error
        revision = Revision(self.url, "", "")
        return assemble(revision, root, selection, contents, unrelated=unrelated, like=self._any_id)

    def _walk(self, folder: Path) -> Iterator[Entry]:
        """List everything below a folder, without following symlinks."""
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
        for entry in entries:
            path = Path(entry.path)
            name = os.fsencode(path.relative_to(self._repository))
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                yield Entry(name, Kind.LINK)
            elif stat.S_ISREG(status.st_mode):
                yield Entry(name, Kind.FILE, status.st_size)
            elif not stat.S_ISDIR(status.st_mode):
                yield Entry(name, Kind.OTHER)
            elif is_skipped_folder(os.fsencode(entry.name)):
                continue
            elif Path(path, ".git").exists():
                yield Entry(name, Kind.SUBMODULE)
            else:
                yield from self._walk(path)

    def _content(self, file: Wanted, max_bytes: int) -> bytes:
        """Read a file that was listed."""
        path = self._repository / file.path
        # If a symlink or a pipe has replaced it meanwhile, do not follow it or wait for it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise SourceError(f"{self._where}: {file.path} grew while it was being read; try again")
        return content

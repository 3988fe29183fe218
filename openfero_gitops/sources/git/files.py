"""Files of a commit that need more than being read: large ones, and earlier versions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import SourceFile, may_hold_operario
from openfero_gitops.domain.rule import FILE_TOO_LARGE
from openfero_gitops.sources.git.errors import Damaged
from openfero_gitops.sources.tree import printable_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from openfero_gitops.domain.catalog import Snapshot
    from openfero_gitops.sources.git.commits import Commit
    from openfero_gitops.sources.git.remote import RemoteRef
    from openfero_gitops.sources.git.repository import BareRepository
    from openfero_gitops.sources.tree import Entry, Selection

_MAX_REMEMBERED: Final = 10_000  # IDs of files that the server does not send


class LargeFiles:
    """Searches the files that are too large to be parsed for operarios, each content once.

    A fetch leaves out large files where the server can do that. Those that would be read by their
    name are fetched after it, as is a small file that was lost: what is said of a commit must
    not depend on the server or on this cache.
    """

    def __init__(self, max_bytes: int) -> None:
        """Set the size of the largest file that is searched."""
        self._max_bytes = max_bytes
        self._may_hold_operario: dict[str, bool] = {}
        self._not_sent: set[str] = set()

    def fetch_left_out(
        self,
        entries: list[Entry],
        selection: Selection,
        repository: BareRepository,
        remote: RemoteRef,
        fetching: AbstractContextManager[None],
    ) -> list[Entry]:
        """Fetch the selected files that are missing in the repository.

        Args:
            entries: all below the path.
            selection: chosen from them.
            repository: lists them.
            remote: where they are fetched from.
            fetching: is entered for a fetch; holds the lock of the repository.

        Returns:
            the entries, with the sizes of these files.

        Raises:
            SourceError: the fetch failed, which says nothing about the commit.
            Damaged: the files were lost, or the repository is the cause of the failure.
            CacheFull: there is no room for them.
        """
        reported = {
            problem.path for problem in selection.problems if problem.rule == FILE_TOO_LARGE.id
        }
        missing = {
            entry.blob
            for entry in entries
            if entry.size is None and printable_name(entry.name) in reported
        }
        if not missing:
            return entries
        if remote.blob_bytes is None:
            raise Damaged(f"blob {min(missing)} is missing", missing)
        if wanted := missing - self._not_sent:
            if len(self._not_sent) > _MAX_REMEMBERED:
                self._not_sent.clear()
            with fetching:
                # Another process may have fetched them since they were listed.
                wanted -= repository.sizes(wanted).keys()
                self._not_sent |= remote.fetch_blobs(repository, wanted, self._max_bytes)
        sizes = repository.sizes(missing)
        return [
            replace(entry, size=sizes[entry.blob])
            if entry.size is None and entry.blob in sizes
            else entry
            for entry in entries
        ]

    def unrelated(self, repository: BareRepository, selection: Selection) -> Iterable[str]:
        """Return the paths of the large files that hold no operario."""
        known = self._may_hold_operario
        # One at a time, since each is in memory while it is searched.
        self._may_hold_operario = {
            file.blob: known[file.blob]
            if file.blob in known
            else may_hold_operario(repository.blobs([file.blob], file.size)[file.blob])
            for file in selection.large
        }
        return [file.path for file in selection.large if not self._may_hold_operario[file.blob]]


def require_held(entries: Iterable[Entry], before: Snapshot | None) -> None:
    """Distinguish a file that is missing because of its size from one that was read before.

    Raises:
        Damaged: a file of an earlier snapshot was lost.
    """
    missing = {entry.blob for entry in entries if entry.size is None}
    held = {file.blob for file in before.files} if before and missing else set()
    if lost := missing & held:
        raise Damaged(f"blob {min(lost)} is missing", lost)


def earlier_version(
    path: str, blob: str, content: bytes, commit: Commit, signer: str
) -> SourceFile:
    """Return an earlier version of a file, marked stale."""
    return SourceFile(
        path=path,
        blob=blob,
        content=content,
        commit=commit.sha,
        commit_author=commit.author,
        commit_time=commit.time,
        stale=True,
        verified_signer=signer,
    )

"""Files of a commit that need more than being read: large ones, and earlier versions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.catalog import SourceFile, may_hold_operario

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openfero_gitops.sources.git.commits import Commit
    from openfero_gitops.sources.git.remote import RemoteRef
    from openfero_gitops.sources.git.repository import BareRepository
    from openfero_gitops.sources.tree import Entry, Selection

_MAX_FETCHED: Final = 20  # blobs, each with a request of its own


class LargeFiles:
    """Searches the files that are too large to be parsed for operarios, each content once.

    A fetch leaves out large files where the server can do that. Those that would be read by their
    name are fetched after it: what is said of a commit must not depend on the server.
    """

    def __init__(self, max_bytes: int) -> None:
        """Set the size of the largest file that is searched."""
        self._max_bytes = max_bytes
        self._may_hold_operario: dict[str, bool] = {}
        self._not_sent: set[str] = set()

    def fetch_left_out(
        self,
        entries: Sequence[Entry],
        selection: Selection,
        repository: BareRepository,
        remote: RemoteRef,
    ) -> list[Entry] | None:
        """Fetch the selected files that a fetch left out.

        Returns:
            the entries with the sizes of these files; None if there are none.

        Raises:
            SourceError: git was stopped.
        """
        reported = {problem.path.encode() for problem in selection.problems}
        missing = {entry.blob for entry in entries if entry.size is None and entry.name in reported}
        self._not_sent &= missing
        for blob in sorted(missing - self._not_sent)[:_MAX_FETCHED]:
            if not remote.fetch_blob(repository, blob, self._max_bytes):
                self._not_sent.add(blob)
        sizes = repository.sizes(missing)
        if not sizes:
            return None
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

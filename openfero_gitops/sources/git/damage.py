"""Examines a cache that could not be read.

A command of Git fails for many reasons: the network, the server, too little memory. Only what is
found in the repository itself counts as damage. Reading it is bounded by the time that a command
may take.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import SourceUnavailable
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.git.process import TooMuchOutput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openfero_gitops.sources.git.errors import Damaged
    from openfero_gitops.sources.git.process import Finished
    from openfero_gitops.sources.git.repository import BareRepository

_MAX_OUTPUT_BYTES: Final = 1 << 26
_MAX_CHARACTERS: Final = 300
# Without the connections between objects `git fsck` says nothing of blobs that were left out
# because of their size. A partial clone has many.
_LEFT_OUT: Final = re.compile(r"missing blob |broken link from +tree |\s+to +blob ")
_HARMLESS: Final = re.compile(r"dangling |unreachable |notice: |warning: |Checking |dropped ")
# These say nothing about the repository.
_EXHAUSTED: Final = re.compile(
    r"out of memory|cannot allocate|unable to create thread|too many open files"
    r"|resource temporarily unavailable|unable to fork|permission denied|interrupted",
    re.IGNORECASE,
)


def confirm(repository: BareRepository, suspicion: Damaged) -> str:
    """Return what is damaged in a repository that could not be read.

    Raises:
        SourceError: nothing is found; the repository is to be kept.
    """
    if suspicion.is_certain:
        return str(suspicion)
    where = repository.git.where
    try:
        damage = find_damage(repository, suspicion.objects, blobs=suspicion.needs_blobs)
    except SourceUnavailable:
        repository.git.check()
        damage = ""  # examining it takes longer than a command may
    if damage:
        return damage
    raise suspicion.otherwise or SourceUnavailable(
        f"{where}: cannot read the cache ({suspicion}), although git fsck finds no damage in"
        f" {repository.folder}; it is kept. Check its disk and --git-max-memory"
    ) from suspicion


def find_damage(
    repository: BareRepository, objects: Iterable[str] = (), *, blobs: bool = False
) -> str:
    """Return what is damaged in a repository, in one line; empty if nothing is found.

    Args:
        repository: the cache.
        objects: the IDs of blobs that should be in it, and could not be read.
        blobs: whether any missing blob counts, also one that may have been left out.

    Raises:
        SourceUnavailable: it took too long, or was stopped.
    """
    return _check_connectivity(repository, blobs=blobs) or _read_all(repository, list(objects))


def _check_connectivity(repository: BareRepository, *, blobs: bool) -> str:
    """Read all commits and trees; with `blobs`, all blobs must exist, too."""
    try:
        checked = repository.git.run(
            f"--git-dir={repository.folder}",
            *("fsck", "--connectivity-only", "--no-dangling", "--no-progress", "--no-reflogs"),
            max_bytes=_MAX_OUTPUT_BYTES,
            lengthy=True,
        )
    except TooMuchOutput:
        return "git fsck lists more than can be read"
    if _was_exhausted(checked):
        return ""
    # The exit code can be 0 where a pack cannot be opened, and others have its objects.
    lines = [*checked.stderr.splitlines(), *checked.stdout.decode("utf-8", "replace").splitlines()]
    return _shown(
        [
            line
            for line in lines
            if not _HARMLESS.match(line) and (blobs or not _LEFT_OUT.match(line))
        ]
    )


def _read_all(repository: BareRepository, objects: Sequence[str]) -> str:
    """Return what is wrong with objects whose content `_check_connectivity` does not read."""
    if not objects:
        return ""
    stdin = "".join(f"{name}\n" for name in objects).encode()
    for options in ("--batch-check", "--batch"):
        try:
            read = repository.git.run(
                *(f"--git-dir={repository.folder}", "cat-file", options),
                stdin=stdin,
                max_bytes=_MAX_OUTPUT_BYTES,
            )
        except TooMuchOutput:
            return ""  # much can be read
        if _was_exhausted(read):
            return ""
        if read.code != 0:
            return _shown(read.stderr.splitlines() or [read.ending])
        lines = read.stdout.splitlines() if options == "--batch-check" else []
        if missing := [line.decode() for line in lines if line.endswith(b" missing")]:
            return _shown(missing)
    return ""


def _was_exhausted(finished: Finished) -> bool:
    return finished.code < 0 or _EXHAUSTED.search(finished.stderr) is not None


def _shown(lines: Sequence[str]) -> str:
    return printable(" / ".join(lines[:3]), _MAX_CHARACTERS)

"""Parses commits as `git cat-file` prints them, with SHA-1 or SHA-256 IDs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from git.objects.util import parse_actor_and_date

from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_time

_MAX_AUTHOR: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; `author` is `Name <email>`, `time` RFC 3339; both are empty if unreadable."""

    sha: str
    author: str
    time: str


def parse_commit(sha: str, content: bytes) -> Commit:
    """Read the author of a commit, and when it was committed.

    GitPython's own `Commit` is not used, since it supports SHA-1 only.

    Args:
        sha: the full ID of the commit.
        content: the object, without the header that `git cat-file --batch` prints before it.
    """
    headers: dict[bytes, bytes] = {}
    for line in content.partition(b"\n\n")[0].split(b"\n"):
        name, _, value = line.partition(b" ")
        headers.setdefault(name, value)
    try:
        encoding = headers.get(b"encoding", b"utf-8").decode("ascii")
        # The function expects the name of the header before the name of the person.
        author, _, _ = parse_actor_and_date(
            f"author {headers[b'author'].decode(encoding, 'replace')}"
        )
        committer = headers[b"committer"].decode(encoding, "replace")
        _, committed_at, _ = parse_actor_and_date(f"committer {committer}")
        time = format_time(datetime.fromtimestamp(committed_at, UTC))
    except (LookupError, ValueError, OverflowError, OSError):
        # A commit with a malformed header: its files are read, its author is unknown.
        return Commit(sha, "", "")
    name_and_email = f"{author.name or ''} <{author.email or ''}>".strip()
    return Commit(sha, printable(name_and_email, _MAX_AUTHOR), time)

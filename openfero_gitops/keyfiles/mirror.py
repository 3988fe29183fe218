"""The file of the keys that authenticate the mirror: one in each line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.keyfiles.content import UnusableFile

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIN_CHARACTERS: Final = 16


def check_mirror_keys(lines: Sequence[str]) -> None:
    """Check that nobody can guess a key.

    Raises:
        UnusableFile: one is too short.
    """
    if min(map(len, lines)) < _MIN_CHARACTERS:
        raise UnusableFile(
            f"each key needs at least {_MIN_CHARACTERS} characters; make one with openssl rand"
            " -base64 32"
        )

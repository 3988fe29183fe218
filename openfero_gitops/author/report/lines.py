"""Line diffs for people."""

from __future__ import annotations

import difflib
from typing import Final

from openfero_gitops.domain.text import printable

_MAX_LINE_CHARACTERS: Final = 400


def diff_lines(
    before: str, after: str, names: tuple[str, str] = ("", ""), *, context: int = 3
) -> list[str]:
    """Make a unified diff; long lines are cut, and control characters escaped."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), *names, lineterm="", n=context
    )
    return [printable(line, _MAX_LINE_CHARACTERS) for line in lines]

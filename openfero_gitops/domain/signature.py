"""What must be signed before a revision may come into force."""

from __future__ import annotations

from enum import StrEnum


class Verify(StrEnum):
    """Whose signature is asked for: nobody's, the commit's, or that of the tag that names it."""

    NONE = "none"
    COMMIT = "commit"
    TAG = "tag"

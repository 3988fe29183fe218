"""What must be signed before a revision may come into force."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

#: How far the clocks of two people who sign may be apart.
CLOCKS_APART: Final = timedelta(days=1)


class Verify(StrEnum):
    """Whose signature is asked for: nobody's, the commit's, or that of the tag that names it."""

    NONE = "none"
    COMMIT = "commit"
    TAG = "tag"

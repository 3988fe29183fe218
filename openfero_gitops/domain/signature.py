"""What must be signed before a revision can become active."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

#: How much the clocks of two signers may differ.
MAX_CLOCK_DIFFERENCE: Final = timedelta(days=1)


class Verify(StrEnum):
    """Which signature is required: none, that of the commit, or that of its tag."""

    NONE = "none"
    COMMIT = "commit"
    TAG = "tag"

"""Whether a process that works for long holds at the end what it held once it was warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import record

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Held:
    """One thing that a process holds: how much when it was warm, and at the end.

    At the end it may be `most`, whose reason is `why`.
    """

    what: str
    warm: float
    end: float
    most: float
    why: str

    @property
    def is_level(self) -> bool:
        """Whether it is not more than it may be."""
        return self.end <= self.most


def verdict(held: Sequence[Held], warm: str, end: str) -> str:
    """A table of both moments, and a sentence of what came of it."""
    header = ["held", warm, end, "end / warm", "at most", "level"]
    rows = [
        [
            one.what,
            f"{one.warm:,.10g}",
            f"{one.end:,.10g}",
            f"{one.end / one.warm:.3f}" if one.warm else "",
            f"{one.most:,.10g} ({one.why})",
            "yes" if one.is_level else "NO",
        ]
        for one in held
    ]
    grown = ", ".join(one.what for one in held if not one.is_level)
    said = f"Grown: {grown}." if grown else "All of it is level."
    return f"{record.table(header, rows)}\n\n{said}"

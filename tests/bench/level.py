"""Compare what a long-running process holds at the end with what it held when warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import record

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Held:
    """One kind of resource that a process holds: its amount when warm, and at the end.

    At the end it may be at most `most`, for the reason in `why`.
    """

    name: str
    warm: float
    end: float
    most: float
    why: str

    @property
    def is_level(self) -> bool:
        """Whether it is within its limit."""
        return self.end <= self.most


def verdict(held: Sequence[Held], warm: str, end: str) -> str:
    """Return a table of both moments, and a sentence with the conclusion."""
    header = ["held", warm, end, "end / warm", "at most", "level"]
    rows = [
        [
            figure.name,
            f"{figure.warm:,.10g}",
            f"{figure.end:,.10g}",
            f"{figure.end / figure.warm:.3f}" if figure.warm else "",
            f"{figure.most:,.10g} ({figure.why})",
            "yes" if figure.is_level else "NO",
        ]
        for figure in held
    ]
    grown = ", ".join(figure.name for figure in held if not figure.is_level)
    conclusion = f"Grown: {grown}." if grown else "All of it is level."
    return f"{record.table(header, rows)}\n\n{conclusion}"

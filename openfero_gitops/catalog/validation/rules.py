"""How a rule is applied and a breach of it worded.

The rules themselves stand in the register, `domain.rule`. Those about a Job's body are one
function each, in `catalog.validation.checks`, made one by `check`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.rule import RULES, Finding, Pointer, Rule, error, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openfero_gitops.catalog.validation.body import Body

__all__ = [
    "CHECKS",
    "RULES",
    "Breach",
    "Finding",
    "Pointer",
    "Rule",
    "check",
    "did_you_mean",
    "error",
    "format_pointer",
    "nearest",
    "related",
    "shown",
    "warning",
]

#: Where, what, and what to do about it.
Breach = tuple[Pointer, str, str]
CHECKS: Final[list[tuple[Rule, Callable[[Any], Iterator[Breach]]]]] = []


def check(
    rule: Rule,
) -> Callable[[Callable[[Body], Iterator[Breach]]], Callable[[Body], Iterator[Breach]]]:
    """Make a function the one that finds a rule's breaches in every Job's body."""

    def register(
        function: Callable[[Body], Iterator[Breach]],
    ) -> Callable[[Body], Iterator[Breach]]:
        CHECKS.append((rule, function))
        return function

    return register


def format_pointer(pointer: Pointer) -> str:
    """Write a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in pointer)


def related(one: Pointer, other: Pointer) -> bool:
    """Whether one of them leads to the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, compared without case; empty for none."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.7)
    return lowered[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion that names the nearest known word, else all of them where they are few."""
    known = list(known)
    if found := nearest(word, known):
        return f"did you mean {found}?"
    return f"write one of {', '.join(known)}" if 0 < len(known) <= 8 else ""  # noqa: PLR2004


def printable(text: str) -> str:
    """Text that came from elsewhere on one line of a terminal, which it cannot command."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def shown(value: object, limit: int = 60) -> str:
    """A value from a file in a message: quoted, on one line, cut."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"

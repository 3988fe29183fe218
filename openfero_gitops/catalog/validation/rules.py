"""How rules are applied to a Job's body: one function for each, in `catalog.validation.checks`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.rule import Pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Rule

    Check = Callable[[Body], Iterator["Breach"]]

#: A place, what is wrong there, and what to write instead (empty: the rule's advice).
Breach = tuple[Pointer, str, str]
#: The reason of every rule that only repeats what Kubernetes requires.
API_SERVER_REJECTS: Final = (
    "The API server rejects such a Job; without this rule that would be noticed only when the"
    " alert fires."
)
CHECKS: Final[list[tuple[Rule, Check]]] = []


def check(rule: Rule) -> Callable[[Check], Check]:
    """Register a function as a check of a rule."""

    def register(function: Check) -> Check:
        CHECKS.append((rule, function))
        return function

    return register


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

"""The register of rules: what may be found in a repository, how grave it is, and why.

A rule is declared where it is applied, by `error(...)` or `warning(...)`, and stands in `RULES`
from then on; importing `pipeline.catalog` declares all of them. Rules about a Job's body are one
function each, in `pipeline.checks`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.problem import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from openfero_gitops.pipeline.body import Body

#: Where in a document something stands: keys and indexes from its root.
Pointer = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that may be wrong; `id` is part of the public contract, `text` is one sentence."""

    id: str
    severity: Severity
    text: str

    def at(self, pointer: Pointer, message: str, suggestion: str = "") -> Finding:
        """A breach of this rule."""
        return Finding(self, pointer, message, suggestion)


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach of a rule at a place in a document; it becomes a Problem once it is located.

    `inside` is a line and column, from 1, in the text at the pointer, where the pointer alone
    does not say enough.
    """

    rule: Rule
    pointer: Pointer
    message: str
    suggestion: str = ""
    inside: tuple[int, int] = (0, 0)

    @property
    def is_error(self) -> bool:
        """Whether it keeps its operario out of the catalog."""
        return self.rule.severity is Severity.ERROR

    def below(self, pointer: Pointer) -> Finding:
        """The same, seen from the root of the document that the pointer counts from."""
        return replace(self, pointer=pointer + self.pointer)


RULES: Final[dict[str, Rule]] = {}


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


def error(name: str, text: str) -> Rule:
    """Declare a rule whose breach keeps an operario out of the catalog."""
    return _declare(Rule(name, Severity.ERROR, text))


def warning(name: str, text: str) -> Rule:
    """Declare a rule whose breach is only said."""
    return _declare(Rule(name, Severity.WARNING, text))


def _declare(rule: Rule) -> Rule:
    if rule.id in RULES:
        raise ValueError(f"two rules are named {rule.id}")
    RULES[rule.id] = rule
    return rule


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


def shown(value: object, limit: int = 60) -> str:
    """A value from a file in a message: quoted, on one line, cut."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"

"""Parses label selectors as the API server does: `a=b, c!=d, e in (f,g), h notin (i), j, !k`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY: Final = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EXISTS: Final = re.compile(rf"\s*(!?)\s*({_KEY})\s*")
_EQUALS: Final = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*({_VALUE})\s*")
_ONE_OF: Final = re.compile(
    rf"\s*({_KEY})\s+(in|notin)\s*\(\s*({_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)\s*"
)
_COMMA: Final = re.compile(r",(?![^(]*\))")  # not one inside parentheses


@dataclass(frozen=True, slots=True)
class _Requirement:
    """A requirement: a key with allowed or forbidden values; None means any value."""

    key: str
    expected: bool
    values: frozenset[str] | None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet the requirement; an absent key meets a negated one."""
        present = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return present is self.expected


class Selector:
    """The requirements of a label selector; an empty one matches everything.

    Raises:
        Invalid: the selector has a syntax error.
    """

    def __init__(self, text: str) -> None:
        parts = _COMMA.split(text) if text.strip() else ()
        self._requirements = tuple(_parse(part) for part in parts)

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether the selector matches these labels."""
        return all(requirement.matches(labels or {}) for requirement in self._requirements)


def _parse(part: str) -> _Requirement:
    if match := _EXISTS.fullmatch(part):
        negation, key = match.groups()
        return _Requirement(key, not negation, None)
    if match := _EQUALS.fullmatch(part):
        key, operator, value = match.groups()
        return _Requirement(key, operator != "!=", frozenset([value]))
    if match := _ONE_OF.fullmatch(part):
        key, operator, values = match.groups()
        return _Requirement(key, operator == "in", frozenset(re.split(r"\s*,\s*", values)))
    raise Invalid(f"unable to parse requirement: {part.strip()!r}")

"""Label selectors, as the API server reads them: `a=b, c!=d, e in (f,g), h notin (i), j, !k`."""

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
    """One of the parts: a key, and the values it may or must not have; None is any at all."""

    key: str
    wanted: bool
    values: frozenset[str] | None

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels are as wanted; where the key is absent, "not" holds."""
        present = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return present is self.wanted


class Selector:
    """All the requirements of a selector; the empty one fits everything.

    Raises:
        Invalid: it is not written as one.
    """

    def __init__(self, text: str) -> None:
        parts = _COMMA.split(text) if text.strip() else ()
        self._requirements = tuple(_parse(part) for part in parts)

    def fits(self, labels: Mapping[str, str] | None) -> bool:
        """Tell whether an object with these labels is selected."""
        return all(requirement.fits(labels or {}) for requirement in self._requirements)


def _parse(part: str) -> _Requirement:
    if found := _EXISTS.fullmatch(part):
        negation, key = found.groups()
        return _Requirement(key, not negation, None)
    if found := _EQUALS.fullmatch(part):
        key, operator, value = found.groups()
        return _Requirement(key, operator != "!=", frozenset([value]))
    if found := _ONE_OF.fullmatch(part):
        key, operator, values = found.groups()
        return _Requirement(key, operator == "in", frozenset(re.split(r"\s*,\s*", values)))
    raise Invalid(f"unable to parse requirement: {part.strip()!r}")

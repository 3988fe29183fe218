"""Alertmanager's label matchers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.regex import Regex

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Operator(StrEnum):
    """How a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCHES = "=~"
    NOT_MATCHES = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; a label that is absent counts as the empty string.

    Regular expressions are Go's, anchored at both ends, as Alertmanager's are.
    """

    name: str
    operator: Operator
    value: str
    _pattern: Regex | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Compile once; raises RegexError where the value is no regular expression."""
        if self.operator in (Operator.MATCHES, Operator.NOT_MATCHES):
            object.__setattr__(self, "_pattern", Regex(self.value))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set fulfils the condition."""
        value = labels.get(self.name, "")
        found = value == self.value if self._pattern is None else self._pattern.fullmatch(value)
        return found is (self.operator in (Operator.EQUAL, Operator.MATCHES))

    def __str__(self) -> str:
        """The classic syntax, a name that is not classic in quotes."""
        name = self.name if _CLASSIC_NAME.fullmatch(self.name) else _quoted(self.name)
        return f"{name}{self.operator}{_quoted(self.value)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

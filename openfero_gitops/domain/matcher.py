"""Alertmanager's label matchers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Operator(StrEnum):
    """How a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCHES = "=~"
    NOT_MATCHES = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; a label that is absent counts as the empty string.

    Regular expressions are anchored at both ends, as Alertmanager's are.
    """

    name: str
    operator: Operator
    value: str
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Compile once; raises re.error where the value is no regular expression."""
        if self.operator in (Operator.MATCHES, Operator.NOT_MATCHES):
            # Go's `.` does not match a newline unless told; Alertmanager tells it not to.
            object.__setattr__(self, "_pattern", re.compile(f"(?:{self.value})"))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set fulfils the condition."""
        value = labels.get(self.name, "")
        if self._pattern is None:
            found = value == self.value
        else:
            found = self._pattern.fullmatch(value) is not None
        return found is (self.operator in (Operator.EQUAL, Operator.MATCHES))

    def __str__(self) -> str:
        """The classic syntax."""
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.operator}"{escaped}"'

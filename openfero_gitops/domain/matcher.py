"""Alertmanager's label matchers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import re2

from openfero_gitops.domain.text import without_surrogates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CLASSIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ESCAPE: Final = re.compile(r"\\Q.*?(?P<quote_end>\\E|\Z)|\\(?P<character>.)", re.DOTALL)
_WORDS: Final = re.compile(r"[A-Za-z0-9_./:-]+")
#: Bytes that one compiled expression may use, both for its program and while it matches.
_MAX_REGEX_BYTES: Final = 1024 * 1024
_RE2_OPTIONS: Final = re2.Options()
_RE2_OPTIONS.log_errors = False
_RE2_OPTIONS.max_mem = _MAX_REGEX_BYTES
_RE2_OPTIONS.never_capture = True
_RE2_MESSAGES: Final = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "trailing \\": "trailing backslash at end of expression",
    "pattern too large - compile failed": "expression is too large",
}


class RegexError(ValueError):
    """A text is not a regular expression that Alertmanager accepts."""


class Operator(StrEnum):
    """How a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCHES = "=~"
    NOT_MATCHES = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; a label that is absent counts as the empty string.

    Regular expressions have Go's syntax and must match the whole value, as in Alertmanager.
    """

    name: str
    operator: Operator
    value: str
    _regex: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Compile the regular expression; raises RegexError if it is invalid."""
        if self.operator in (Operator.MATCHES, Operator.NOT_MATCHES):
            object.__setattr__(self, "_regex", _compile(self.value))

    @property
    def program_size(self) -> int:
        """The number of instructions of the compiled expression, about 50 bytes each."""
        return 0 if self._regex is None else int(self._regex.programsize)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set fulfils the condition."""
        value = labels.get(self.name, "")
        if self._regex is None:
            matches = value == self.value
        else:
            matches = self._regex.fullmatch(_utf8(value)) is not None
        return matches is (self.operator in (Operator.EQUAL, Operator.MATCHES))

    def candidates(self) -> Iterator[str]:
        """Values that it may distinguish: its own, or words of its regular expression."""
        yield self.value
        if self._regex is None:
            return
        for text in (re.sub(r"\.[*+]|\.", "x", self.value), re.sub(r"\.\*", "", self.value)):
            yield text
            yield from re.split(r"[|()]", text)
        yield from re.split(r"[|()]", self.value)
        yield from _WORDS.findall(self.value)

    def __str__(self) -> str:
        """The matcher in Alertmanager's syntax; names that need quotes are quoted."""
        name = self.name if _CLASSIC_NAME.fullmatch(self.name) else _quoted(self.name)
        return f"{name}{self.operator}{_quoted(self.value)}"


def _compile(pattern: str) -> Any:
    """Compile with RE2, which has Go's syntax except for what is refused here first."""
    for escape in _ESCAPE.finditer(pattern):
        if escape["character"] == "C":
            raise RegexError(r"invalid escape sequence '\C'")
        if escape["quote_end"] == "":
            # Go accepts it, but Alertmanager puts the pattern into ^(?:...)$.
            raise RegexError(r"\Q without \E")
    try:
        return re2.compile(pattern, _RE2_OPTIONS)
    except UnicodeEncodeError:
        raise RegexError("invalid UTF-8") from None
    except re2.error as error:
        raise RegexError(_message(error.args[0].decode(errors="replace"), pattern)) from None


def _message(re2_message: str, pattern: str) -> str:
    """Say what Go would say: RE2 writes `problem: part of the pattern`."""
    problem, _, part = re2_message.partition(": ")
    problem = _RE2_MESSAGES.get(problem, problem)
    return problem if part in ("", pattern) else f"{problem} {part!r}"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

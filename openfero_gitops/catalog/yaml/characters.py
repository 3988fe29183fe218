"""Characters that look like a space, a colon or a dash of YAML, or like nothing, but are not.

They come from web pages and word processors. YAML takes them as text, so the error that follows is
about another line.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.rule import Finding, warning
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.domain.rule import Pointer

INVISIBLE_CHARACTER = warning(
    "invisible-character",
    "A key should not contain an invisible character, nor should a value begin or end with one.",
    "With such a character, the key or value is not what it looks like. These characters come with "
    "text that is copied from a web page or a word processor.",
    "delete it",
)

_SPACES: Final = "\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_INVISIBLE: Final = f"{_SPACES}\xad\u200b-\u200f\u2060\ufeff"
#: Any of them.
ODD: Final = re.compile(f"[{_INVISIBLE}]")
_AT_AN_END: Final = re.compile(f"^[{_INVISIBLE}]|[{_INVISIBLE}]$")
_NEL: Final = "\x85"
# In the indentation, around the colon of a key or after a dash; or another character in place of
# the colon or the dash.
_STRUCTURAL: Final = re.compile(
    rf"^[ \t]*(?:-[ \t]+)*(?P<indent>[{_INVISIBLE}])"
    rf"|^[ \t]*(?:-[ \t]+)*-(?P<dash>[{_INVISIBLE}])"
    rf"|^[ \t]*(?:-[ \t]+)*[\w./-]+[\"']?(?P<before>[{_INVISIBLE}])[ \t]*:"
    rf"|^[ \t]*(?:-[ \t]+)*[\"']?[\w./-]+[\"']?:(?P<after>[{_INVISIBLE}])"
    r"|^[ \t]*(?:-[ \t]+)*[\"']?[\w./-]+[\"']?[ \t]*(?P<colon>[\uff1a\ufe55\ua789])"
    r"|^[ \t]*(?:-[ \t]+)*(?P<hyphen>[\u2010-\u2015\u2212\uff0d])",
    re.MULTILINE,
)
_LINES_BEFORE: Final = 5
_MAX_FINDINGS: Final = 10


def named(character: str) -> str:
    """A character by its number and name: `U+00A0 (no-break space)`."""
    name = "next line" if character == _NEL else unicodedata.name(character, "unknown").lower()
    return f"U+{ord(character):04X} ({name})"


def find_structural(text: str, offset: int) -> tuple[int, int, str] | None:
    """Find the character that has probably caused an error of the YAML parser.

    Args:
        text: of the file.
        offset: of the character at which the parser noticed an error.

    Returns:
        line and column of the last such character up to the end of that line, and the message.
    """
    begin = offset
    for _ in range(_LINES_BEFORE + 1):
        begin = text.rfind("\n", 0, max(begin, 0))
        if begin < 0:
            break
    end = text.find("\n", offset)
    last = None
    for match in _STRUCTURAL.finditer(text, max(begin + 1, 0), len(text) if end < 0 else end):
        last = match
    if last is None or last.lastgroup is None:
        return None
    kind, position = last.lastgroup, last.start(last.lastgroup)
    character = named(last[kind])
    message = {
        "indent": f"{character} indents the line: use spaces",
        "dash": f"{character} follows -: use a space",
        "before": f"{character} is in front of a colon: delete it",
        "after": f"{character} follows a colon: use a space",
        "colon": f"{character} is no colon: write `: `",
        "hyphen": f"{character} is no dash: write -",
    }[kind]
    line = text.count("\n", 0, position) + 1
    return line, position - text.rfind("\n", 0, position), message


def find_invisible(document: Any) -> Iterator[Finding]:
    """Report the first invisible characters in keys, and at the ends of values on one line."""
    pending: list[tuple[Pointer, Any]] = [((), document)]
    count = 0
    while pending and count < _MAX_FINDINGS:
        pointer, value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if match := ODD.search(key):
                    count += 1
                    message = f"key {shown(key)} contains {named(match[0])}"
                    yield INVISIBLE_CHARACTER.at((*pointer, key), message)
                pending.append(((*pointer, key), inner))
        elif isinstance(value, list):
            pending += [((*pointer, index), item) for index, item in enumerate(value)]
        elif isinstance(value, str) and "\n" not in value and (match := _AT_AN_END.search(value)):
            count += 1
            where = "ends" if match.start() else "begins"
            yield INVISIBLE_CHARACTER.at(
                pointer, f"the value {shown(value)} {where} with {named(match[0])}"
            )

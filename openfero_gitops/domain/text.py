"""Words for people: counts, lists, and the texts of strangers made fit to be printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Control characters, line and paragraph separators, marks that are not seen or that reorder what
# is (bidirectional overrides), and halves of characters.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
_LONGEST: Final = 200


def count(number: int, what: str) -> str:
    """`1 operario`, `2 operarios`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def printable(text: str, limit: int = _LONGEST) -> str:
    """A stranger's text on one line, without anything that a terminal or a reader obeys."""
    text = text if len(text) <= limit else text[:limit] + "…"
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def quoted(text: str, limit: int = _LONGEST) -> str:
    """The same in double quotes."""
    return '"' + printable(text, limit).replace('"', '\\"') + '"'


def labels(values: Mapping[str, str], limit: int = _LONGEST) -> str:
    """Labels as Alertmanager's matchers write them: `namespace="shop", pod="web-1"`."""
    return ", ".join(
        f"{printable(name, limit)}={quoted(value, limit)}" for name, value in values.items()
    )


def listed(words: Iterable[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    words = list(words)
    if len(words) <= most:
        return ", ".join(words)
    return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} more"

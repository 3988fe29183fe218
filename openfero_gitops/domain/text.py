"""Text in messages and records: plurals, lists, suggestions, printable text, canonical JSON."""

from __future__ import annotations

import difflib
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Control characters, line and paragraph separators, invisible and bidirectional formatting
# characters, and lone surrogates.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
#: The same without tabs and line breaks.
_UNPRINTABLE_IN_LINES: Final = re.compile(f"(?![\t\n]){_UNPRINTABLE.pattern}")
_MAX_CHARACTERS: Final = 200
_MAX_VALUE_CHARACTERS: Final = 60
_MAX_CHOICES: Final = 8
_MIN_SIMILARITY: Final = 0.7
_MAX_COMPARED_CHARACTERS: Final = 100
_MAX_COMPARED_CHOICES: Final = 100
_CANONICAL_BYTES: Final = msgspec.json.Encoder(order="sorted")
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def plural(number: int, noun: str) -> str:
    """A number with its noun: `1 operario`, `2 operarios`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def canonical_json(value: Any) -> str:
    """Serialize to the one spelling that is hashed and compared: sorted keys, no spaces, UTF-8."""
    return _CANONICAL.encode(value)


def canonical_bytes(value: Any) -> bytes:
    """Return `canonical_json` in UTF-8 of texts and integers, several times faster.

    Floating-point numbers would have another spelling.
    """
    return _CANONICAL_BYTES.encode(value)


def pretty_json(value: Any) -> str:
    """Serialize for people and programs: indented, UTF-8, what a terminal would obey escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _UNPRINTABLE_IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by U+FFFD, as Go's decoders do."""
    if text.isascii():  # (a quick check, and most texts are)
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str, limit: int = _MAX_CHARACTERS) -> str:
    """Untrusted text on one line: at most `limit` characters, control characters escaped."""
    text = text if len(text) <= limit else text[:limit] + "…"
    if text.isprintable():  # (a quick check, and most texts are)
        return text
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Untrusted text for a terminal: control characters except tabs and line breaks escaped."""
    return _UNPRINTABLE_IN_LINES.sub(lambda match: ascii(match[0])[1:-1], text)


def is_printable(text: str) -> bool:
    """Whether `printable` would leave every character of a text as it is."""
    return _UNPRINTABLE.search(text) is None


def quoted(text: str, limit: int = _MAX_CHARACTERS) -> str:
    """Untrusted text as in `printable`, in double quotes."""
    return '"' + printable(text, limit).replace('"', '\\"') + '"'


def shown(value: Any, limit: int = _MAX_VALUE_CHARACTERS) -> str:
    """An untrusted value in a message, as JSON on one line of at most about `limit` characters."""
    if isinstance(value, str):
        return quoted(value, limit)
    return printable(json.dumps(value, ensure_ascii=False, default=str), limit)


def labels(values: Mapping[str, str], limit: int = _MAX_CHARACTERS) -> str:
    """Format labels as Alertmanager's matchers do: `namespace="shop", pod="web-1"`."""
    return ", ".join(
        f"{printable(name, limit)}={quoted(value, limit)}" for name, value in values.items()
    )


def listed(words: Iterable[str], most: int = 5) -> str:
    """Join at most `most` words: `a, b and 3 more`."""
    words = list(words)
    if len(words) <= most:
        return ", ".join(words)
    return f"{', '.join(words[: most - 1])} and {len(words) - most + 1} more"


def aligned(rows: Iterable[Sequence[str]], text_columns: int | None = None) -> list[str]:
    """Format the rows of a table as lines with aligned columns; each cell is one line of text.

    The first `text_columns` are aligned left, the others right as numbers; None: all left.
    """
    rows = list(rows)
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    count = len(widths) if text_columns is None else text_columns
    return [
        "  ".join(
            cell.ljust(width) if index < count else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice most similar to a word, ignoring case; empty if none is similar.

    Long words and more than the first choices are not compared, since that is slow.
    """
    if len(word) > _MAX_COMPARED_CHARACTERS:
        return ""
    by_lower_case = {
        choice.lower(): choice
        for choice in islice(choices, _MAX_COMPARED_CHOICES)
        if len(choice) <= _MAX_COMPARED_CHARACTERS
    }
    matches = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=_MIN_SIMILARITY)
    return by_lower_case[matches[0]] if matches else ""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggest the nearest choice, otherwise all of them if they are few."""
    choices = list(choices)
    if choice := nearest(word, choices):
        return f"did you mean {choice}?"
    return f"write one of {', '.join(choices)}" if 0 < len(choices) <= _MAX_CHOICES else ""

"""The value of an unquoted word in YAML as Kubernetes reads it, that is, go-yaml v2.

YAML 1.1 with its many booleans, octal (`017`) and underscored (`1_000`) integers, but without
timestamps and base 60, which are strings. A number without a fraction is an int, as Go writes it
to JSON.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from openfero_gitops.domain.memo import cache_short_texts

#: A plain scalar that begins with another character is a string.
NOT_TEXT: Final = frozenset("yYnNtTfFoO~0123456789+-.") | {""}

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE"), True),
    **dict.fromkeys(("on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE"), False),
    **dict.fromkeys(("off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0[bB](?P<two>[01]+)|0[oO]?(?P<eight>[0-7]+)|0[xX](?P<sixteen>[0-9a-fA-F]+)"
    r"|(?P<ten>0|[1-9][0-9]*))"
)
_BASES: Final = {"two": 2, "eight": 8, "sixteen": 16, "ten": 10}
_MAX_INTEGER_CHARACTERS: Final = 70  # a sign, `0b`, 64 digits
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INNER_UNDERSCORE: Final = re.compile(r"(?<=[0-9])_(?=[0-9])")
_MIN_EXPONENT_VALUE: Final = 1e21  # from here on Go writes an exponent


# Manifests consist of a few hundred words: `name`, `false`, `100m`.
@cache_short_texts(max_entries=2048, max_characters=24)
def plain(text: str) -> str | int | float | bool | None:
    """Parse an unquoted word.

    Raises:
        ValueError: it is infinity or NaN, which JSON cannot represent.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in NOT_TEXT:
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(text)
    # After a leading dot Go accepts an underscore only between digits.
    joined = _INNER_UNDERSCORE.sub("", text) if text.startswith(".") else text.replace("_", "")
    value = number(joined)
    return text if value is None else value


def number(text: str) -> int | float | None:
    """Parse a number; None if it is not one, or exceeds the range of a float."""
    match = _INTEGER.fullmatch(text) if len(text) <= _MAX_INTEGER_CHARACTERS else None
    if match is not None and match.lastgroup is not None:
        value = int(match[match.lastgroup], _BASES[match.lastgroup])
        value = -value if match["sign"] == "-" else value
        if -(2**63) <= value < 2**64:
            return value
    if not _FLOAT.fullmatch(text):
        return None
    real = float(text)
    if math.isinf(real):
        return None
    # Also beyond 64 bits: Go writes the shortest digits, followed by zeros.
    return (
        int(Decimal(repr(real))) if real.is_integer() and abs(real) < _MIN_EXPONENT_VALUE else real
    )

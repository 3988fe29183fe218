"""What an unquoted word in YAML means to Kubernetes, that is, to go-yaml v2.

YAML 1.1 with its many booleans, octal (`017`) and underscored (`1_000`) integers; no timestamps
and no base 60, which stay text. A number without a fraction is an int, as Go writes it to JSON.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from openfero_gitops.domain.memo import remembered

#: A plain scalar that begins otherwise is text.
NOT_TEXT: Final = frozenset("yYnNtTfFoO~0123456789+-.") | {""}

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE"), True),
    **dict.fromkeys(("on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE"), False),
    **dict.fromkeys(("off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_NO_NUMBER: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0[bB](?P<two>[01]+)|0[oO]?(?P<eight>[0-7]+)|0[xX](?P<sixteen>[0-9a-fA-F]+)"
    r"|(?P<ten>0|[1-9][0-9]*))"
)
_BASES: Final = {"two": 2, "eight": 8, "sixteen": 16, "ten": 10}
_LONGEST_INTEGER: Final = 70  # characters: a sign, `0b`, 64 digits
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INNER: Final = re.compile(r"(?<=[0-9])_(?=[0-9])")
_WHOLE_BELOW: Final = 1e21  # from there on Go writes an exponent


# (Manifests are written in a few hundred words: `name`, `false`, `100m`.)
@remembered(most=2048, longest=24)
def plain(text: str) -> str | int | float | bool | None:
    """The value of an unquoted word.

    Raises:
        ValueError: infinity or not-a-number, which JSON cannot write.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] not in NOT_TEXT:
        return text
    if _NO_NUMBER.fullmatch(text):
        raise ValueError(text)
    # (After a leading dot Go takes an underscore only between digits.)
    joined = _INNER.sub("", text) if text.startswith(".") else text.replace("_", "")
    found = number(joined)
    return text if found is None else found


def number(text: str) -> int | float | None:
    """The number that a text writes, None where it writes none or one beyond a float's reach."""
    found = _INTEGER.fullmatch(text) if len(text) <= _LONGEST_INTEGER else None
    if found is not None and found.lastgroup is not None:
        value = int(found[found.lastgroup], _BASES[found.lastgroup])
        value = -value if found["sign"] == "-" else value
        if -(2**63) <= value < 2**64:
            return value
    if not _FLOAT.fullmatch(text):
        return None
    real = float(text)
    if math.isinf(real):
        return None
    # (Beyond 64 bits, too: Go writes the shortest digits and then zeros.)
    return int(Decimal(repr(real))) if real.is_integer() and abs(real) < _WHOLE_BELOW else real

"""Kubernetes quantities: `500m`, `1.5Gi`, `2e3`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.text import quoted

_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)
_SUFFIXES: Final = {
    **{f"{letter}i": Decimal(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")},
    **{
        letter: Decimal(10) ** power
        for letter, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
    },
}
_MAX_CHARACTERS: Final = 100
_MAX_QUOTED_CHARACTERS: Final = 40
_MIN_SIZE_BYTES: Final = 2**20
_MAX_SIZE_BYTES: Final = 2**50


def parse_quantity(value: str | float) -> Decimal:
    """Parse a quantity.

    Raises:
        ValueError: it is invalid.
    """
    return Decimal(value) if isinstance(value, int) else _parse(str(value))


# Manifests contain a few dozen different quantities.
@cache_short_texts(max_entries=1024, max_characters=16)
def _parse(text: str) -> Decimal:
    text = text.strip()
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if match is None:
        raise ValueError(
            f"{quoted(text, _MAX_QUOTED_CHARACTERS)} is not a quantity:"
            " write for example 500m, 0.5, 64Mi or 1Gi"
        )
    number = Decimal(match["number"])
    if match["exponent"]:
        return number.scaleb(int(match["exponent"]))
    return number * _SUFFIXES.get(match["suffix"] or "", Decimal(1))


def parse_size(value: str | float) -> int:
    """Parse an amount of disk space into bytes: `1Gi`, `500M`, `1073741824`.

    Raises:
        ValueError: it is not a quantity, or not between 1Mi and 1Pi.
    """
    name = quoted(str(value), _MAX_QUOTED_CHARACTERS)
    try:
        size = int(parse_quantity(value))
    except ValueError as error:
        raise ValueError(
            f"{name} is not a size: write a number of bytes, or for example 500Mi or 1Gi"
        ) from error
    if not _MIN_SIZE_BYTES <= size <= _MAX_SIZE_BYTES:
        raise ValueError(f"{name} is not a size from 1Mi to 1Pi")
    return size


def format_size(size: int) -> str:
    """Format a number of bytes so that `parse_size` returns the same number."""
    for letter, power in (("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        if size and not size % 1024**power:
            return f"{size // 1024**power}{letter}i"
    return str(size)

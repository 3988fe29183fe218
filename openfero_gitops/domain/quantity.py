"""Kubernetes' quantities: `500m`, `1.5Gi`, `2e3`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from openfero_gitops.domain.memo import remembered

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
_LONGEST: Final = 100  # characters
_SMALLEST_SIZE: Final = 2**20  # bytes
_LARGEST_SIZE: Final = 2**50


def parse_quantity(value: str | float) -> Decimal:
    """Read a quantity.

    Raises:
        ValueError: it is none.
    """
    return Decimal(value) if isinstance(value, int) else _read(str(value))


# (Manifests are written in a few dozen quantities.)
@remembered(most=1024, longest=16)
def _read(text: str) -> Decimal:
    text = text.strip()
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError(f"{text[:40]!r} is no quantity: write 500m, 0.5, 64Mi or 1Gi")
    number = Decimal(found["number"])
    if found["exponent"]:
        return number.scaleb(int(found["exponent"]))
    return number * _SUFFIXES.get(found["suffix"] or "", Decimal(1))


def parse_size(value: str | float) -> int:
    """Read how much a disk may hold, in bytes: `1Gi`, `500M`, `1073741824`.

    Raises:
        ValueError: it is no quantity, or none of a disk's.
    """
    try:
        size = int(parse_quantity(value))
    except ValueError as error:
        raise ValueError(f"{str(value)[:40]!r} is no size: write bytes, 500Mi or 1Gi") from error
    if not _SMALLEST_SIZE <= size <= _LARGEST_SIZE:
        raise ValueError(f"{str(value)[:40]!r} is no size from 1Mi to 1Pi")
    return size


def format_size(size: int) -> str:
    """Write a number of bytes so that `parse_size` reads the same value."""
    for letter, power in (("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        if size and not size % 1024**power:
            return f"{size // 1024**power}{letter}i"
    return str(size)

"""Kubernetes' quantities: `500m`, `1.5Gi`, `2e3`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

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


def parse_quantity(value: str | float) -> Decimal:
    """Read a quantity.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, int):
        return Decimal(value)
    text = str(value).strip()
    found = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError(f"{text[:40]!r} is no quantity: write 500m, 0.5, 64Mi or 1Gi")
    number = Decimal(found["number"])
    if found["exponent"]:
        return number.scaleb(int(found["exponent"]))
    return number * _SUFFIXES.get(found["suffix"] or "", Decimal(1))

"""Durations in Prometheus' syntax: `1h30m`, `15s`, `0`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_DURATION: Final = re.compile(
    r"(?:(?P<y>[0-9]+)y)?(?:(?P<w>[0-9]+)w)?(?:(?P<d>[0-9]+)d)?(?:(?P<h>[0-9]+)h)?"
    r"(?:(?P<m>[0-9]+)m)?(?:(?P<s>[0-9]+)s)?(?:(?P<ms>[0-9]+)ms)?"
)
_MAX_DURATION: Final = timedelta(days=3650)
#: Longer than any useful duration; it also limits the digits that int() parses.
_MAX_CHARACTERS: Final = 40
#: Ages of so many minutes are formatted without seconds.
_MINUTES_WITHOUT_SECONDS: Final = 10


def parse_duration(text: str) -> timedelta:
    """Parse a duration as prometheus/common `model.ParseDuration` does.

    Raises:
        ValueError: the text is not a duration; `0` is one, any other bare number is not.
    """
    text = text.strip()
    if text == "0":
        return timedelta(0)
    match = _DURATION.fullmatch(text) if 0 < len(text) <= _MAX_CHARACTERS else None
    if match is None:
        text = text[:_MAX_CHARACTERS]
        hint = (
            f", for example {text}s or {text}m"
            if text.isdecimal() and text.isascii()
            else ", for example 1h30m"
        )
        raise ValueError(f"{text!r} is not a duration: write a number with a unit{hint}")
    try:
        total = sum(
            (_UNITS[unit] * int(count) for unit, count in match.groupdict().items() if count),
            timedelta(0),
        )
    except OverflowError:
        total = _MAX_DURATION + timedelta(1)
    if total > _MAX_DURATION:
        raise ValueError(f"{text!r} is longer than ten years")
    return total


def format_duration(value: timedelta) -> str:
    """Format a duration; `parse_duration` returns the same value."""
    rest = round(value / timedelta(milliseconds=1))
    if rest == 0:
        return "0"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        size = _UNITS[unit] // timedelta(milliseconds=1)
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_age(value: timedelta) -> str:
    """Format a duration for people, with at most two units: `12s`, `3m20s`, `5h`, `2d4h`.

    A negative one, as of a clock that is ahead, is `0s`.
    """
    rest = max(value // timedelta(seconds=1), 0)
    days, rest = divmod(rest, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), 3)
    if first == 2 and minutes >= _MINUTES_WITHOUT_SECONDS:  # noqa: PLR2004 - the index of minutes
        parts[3] = (0, "s")
    return "".join(
        f"{count}{unit}"
        for index, (count, unit) in enumerate(parts[first : first + 2])
        if count or index == 0
    )

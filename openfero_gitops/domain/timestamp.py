"""Times as Kubernetes and Alertmanager write them: RFC 3339, kept in UTC microseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

#: Far from both ends of what a datetime holds: whatever is added to a time that was read, and the
#: longest is a few lifetimes, cannot overflow.
_YEARS: Final = range(1000, 9000)


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, `2026-11-21T03:04:05.000000Z`."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def format_seconds(value: datetime) -> str:
    """RFC 3339 in UTC to the second, `2026-11-21T03:04:05Z`, as Kubernetes writes it."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Read an RFC 3339 time; None for nothing, and for what names no time.

    A year that nobody lives in is no time either, Go's zero time among them: times are read from
    where people may write anything, and are calculated with.

    Finer fractions than microseconds are cut, so that the two members of a Prometheus pair
    that differ below them still name the same moment.
    """
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is None:
            return None
        value = value.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return value if value.year in _YEARS else None

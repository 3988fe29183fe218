"""Times as Kubernetes and Alertmanager write them: RFC 3339, kept in UTC microseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, `2026-11-21T03:04:05.000000Z`."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str | None) -> datetime | None:
    """Read an RFC 3339 time; None for nothing, for what is no time and for Go's zero time.

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
    return None if value.year == 1 else value

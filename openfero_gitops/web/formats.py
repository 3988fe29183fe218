"""Formats commits, times and durations for the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from markupsafe import Markup, escape

from openfero_gitops.domain.catalog import is_commit
from openfero_gitops.domain.timestamp import format_seconds, parse_time

if TYPE_CHECKING:
    from datetime import datetime, timedelta

#: Invisible characters that can make a path or a label look like another one: controls, surrogates
#: and marks of text direction. (Emoji joiners, tabs and newlines are harmless.)
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
#: A time as our texts write it, which are also those of commands: to the second, in UTC.
_TIME: Final = re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MAX_LINK_CHARACTERS: Final = 4096


def http_link(text: str) -> str:
    """Return a text from outside that is safe as the address of a link; else an empty one."""
    if (
        len(text) > _MAX_LINK_CHARACTERS
        or not text.isprintable()
        or any(c in text for c in ' "<>\\')
    ):
        return ""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return ""
    # A user name in an address is made to look like its host.
    safe = parts.scheme in ("http", "https") and host and "@" not in parts.netloc
    return text if safe else ""


def short(commit: str) -> str:
    """Shorten a full commit id to 7 characters, any other text to 16."""
    return commit[:7] if is_commit(commit) else commit[:16]


def rfc3339(value: datetime | str | None) -> str:
    """Format a time to the second, in UTC; empty if it is not a time."""
    moment = parse_time(value) if isinstance(value, str) else value
    return format_seconds(moment) if moment else ""


def with_times(text: str) -> Markup:
    """Return a text as HTML in which page.js can write times in the zone of the reader."""
    return Markup(_TIME.sub(r'<time datetime="\g<0>">\g<0></time>', str(escape(visible(text)))))  # noqa: S704 - escaped


def ago(value: datetime | str, now: datetime) -> str:
    """Say how long ago a time was, or how far ahead; page.js uses the same words."""
    moment = parse_time(value) if isinstance(value, str) else value
    if moment is None:
        return ""
    if moment > now:
        return f"in {duration(moment - now)}"
    return f"{duration(now - moment)} ago"


def duration(value: timedelta) -> str:
    """Format a duration with its two largest units."""
    seconds = int(value.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if not minutes:
        return f"{seconds}s"
    if not hours:
        return f"{minutes}m {seconds % 60}s" if minutes < 10 else f"{minutes}m"  # noqa: PLR2004
    if not days:
        return f"{hours}h {minutes % 60}m"
    return f"{days}d {hours % 24}h"


def visible(text: str) -> str:
    r"""Replace invisible characters by their code, such as `\u202e`."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)

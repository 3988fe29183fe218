"""Templates of links to a commit, or to a file at a commit."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS: Final = frozenset({"commit", "path"})


def check_template(text: str) -> str:
    """Return the template of a link.

    Raises:
        ValueError: it is not one.
    """
    text = text.strip()
    if not text:
        return ""
    unknown = set(_PLACEHOLDER.findall(text)) - _PLACEHOLDERS
    if unknown or "{commit}" not in text:
        raise ValueError("must contain {commit}, and may contain {path}, but no other placeholder")
    address = fill(text, "0" * 40, "path")
    try:
        parts = urlsplit(address)
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http://HOST/ or https://HOST/")
    if "@" in parts.netloc:
        raise ValueError("must not contain credentials: everybody who reads the pages sees it")
    if not text.isascii() or not text.isprintable() or any(c in text for c in ' "<>\\^`|'):
        raise ValueError("contains characters that are not allowed in a URL")
    return text


def fill(template: str, commit: str, path: str) -> str:
    """Return the link that a template stands for."""
    return template.replace("{commit}", commit).replace("{path}", quote(path))

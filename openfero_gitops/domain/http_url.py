"""Addresses of HTTP servers, as people write them in settings."""

from __future__ import annotations

from urllib.parse import urlsplit


def http_url(text: str) -> str:
    """Check the address of a server, with or without a path; return it without a slash at its end.

    Raises:
        ValueError: it is not such an address; the text does not repeat it, since it may contain a
            password.
    """
    text = text.strip()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL; write http://HOST:PORT or https://HOST:PORT") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT, with or without a path")
    if "@" in parts.netloc:
        raise ValueError("contains credentials; put them in a file")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("must not contain ? or #")
    if not text.isascii() or not text.isprintable() or any(c in text for c in ' "<>\\^`{|}'):
        raise ValueError("contains characters that are not allowed in a URL")
    return text.rstrip("/")

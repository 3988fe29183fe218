"""Refuses requests that pages of other sites caused, and sets the headers that all answers have.

A browser sends requests of any page to any address that it can reach, also to loopback and to
private networks, and with the credentials it knows. `Origin` and `Sec-Fetch-Site` say whose page it
was. A page can also make its own name resolve to a loopback address (DNS rebinding); then `Host`
has that name.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.memo import cache_short_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

#: A server that names its versions helps to choose an exploit.
_SERVER: Final = "openfero-gitops"
_DEFAULT_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What the pages never use, so that a script that was injected cannot use it either.
    "Permissions-Policy": (
        "camera=(), display-capture=(), geolocation=(), microphone=(), midi=(), payment=(), usb=()"
    ),
    "Referrer-Policy": "no-referrer",
}
#: A year. Subdomains are not the controller's.
_STRICT_TRANSPORT: Final = "max-age=31536000"
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://(?P<host>[^/?#@\s]+)")
_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/?#@]+)(?::(?P<port>[0-9]{1,5}))?")
_MAX_SHOWN_CHARACTERS: Final = 100


def add_default_headers(
    headers: MutableMapping[str, str], *, https: bool = False, host: str = ""
) -> None:
    """Set the headers that an answer should have and does not have yet.

    `https` says that TLS ends here; `host` is the Host of the request. Of loopback, a browser would
    remember that all ports need https, also those of other programs.
    """
    for name, value in _DEFAULT_HEADERS.items():
        headers.setdefault(name, value)
    if https and not is_loopback(_name_of(host)):
        headers["Strict-Transport-Security"] = _STRICT_TRANSPORT
    headers["Server"] = _SERVER


# Clients have few names for the server.
@cache_short_texts(max_entries=256, max_characters=256)
def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine: localhost, 127.0.0.0/8 or [::1]."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def foreign(
    method: str,
    headers: Mapping[str, str],
    *,
    https: bool,
    loopback: bool,
    allowed_hosts: Sequence[str],
) -> str:
    """Return why a request comes from a page of another site; empty if it does not.

    `loopback`: the listener can be reached from this machine only. `allowed_hosts` are further
    names of this server, in lower case: those under which a reverse proxy serves it.
    """
    host = headers.get("Host", "")
    if loopback and host and not _is_allowed(_name_of(host), allowed_hosts):
        return (
            f"host {_shown(host)} is not allowed, since the controller listens on loopback; if a "
            "proxy serves it under this name, set --allowed-host"
        )
    origin = headers.get("Origin")
    if origin is not None:
        if not _is_own(origin, host, https=https, allowed_hosts=allowed_hosts):
            return (
                f"origin {_shown(origin)} is not this server ({_shown(host)}); if a proxy serves "
                "the controller under this name, set --allowed-host"
            )
    elif headers.get("Sec-Fetch-Site") == "cross-site" and not _is_navigation(method, headers):
        return "a page of another site caused this request; only links to pages are allowed"
    return ""


def _is_allowed(name: str, allowed_hosts: Sequence[str]) -> bool:
    """Whether a server that listens on loopback may be called so."""
    return is_loopback(name) or name in allowed_hosts


# Clients have few names for the server.
@cache_short_texts(max_entries=256, max_characters=256)
def _name_of(host: str) -> str:
    """Return the name in a Host header in lower case, without the port."""
    parsed = _HOST.fullmatch(host)
    return parsed["name"].lower() if parsed else host


def _is_own(origin: str, host: str, *, https: bool, allowed_hosts: Sequence[str]) -> bool:
    """Whether an origin is that of the server's own pages.

    Without TLS here, a proxy may have ended it: then the scheme is not known.
    """
    parsed = _ORIGIN.fullmatch(origin)
    if parsed is None or (https and parsed["scheme"] != "https"):
        return False
    theirs = _HOST.fullmatch(parsed["host"])
    if theirs is None:
        return False
    if theirs["name"].lower() in allowed_hosts:
        return True
    ours = _HOST.fullmatch(host)
    default = _DEFAULT_PORTS[parsed["scheme"]]
    return ours is not None and (
        (theirs["name"].lower(), theirs["port"] or default)
        == (ours["name"].lower(), ours["port"] or default)
    )


def _is_navigation(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a person follows a link, for example from a chat."""
    return (
        method in ("GET", "HEAD")
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )


def _shown(text: str) -> str:
    return repr(text[:_MAX_SHOWN_CHARACTERS])

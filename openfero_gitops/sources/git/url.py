"""Validates the URLs and refs that are given to Git.

Git accepts much that is neither a URL nor a ref: an option (`--upload-pack=…`), a command
(`ext::sh -c …`), the name of a helper. So both must match a strict grammar first. A URL must not
contain secrets, since pages show it and every Job carries it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.text import printable

_MAX_URL: Final = 2048  # characters
_MAX_REF: Final = 255  # characters
_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_HOST: Final = rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
# Directory services and forges have users such as `ada@example.com`, `CORP\ada`, `deploy+shop`.
# Nothing is allowed that a shell expands, and no colon: a password could follow it.
_USER: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9._+@\\-]|%(?:40|2[Bb]|5[Cc]))*"
_SCP_USER: Final = r"[A-Za-z0-9_][A-Za-z0-9._+@\\-]*"
_PATH: Final = r"[^\s?#\x00-\x20\x7f]+"
_HTTP: Final = re.compile(rf"https?://{_HOST}/{_PATH}")
_SSH: Final = re.compile(rf"ssh://{_USER}@{_HOST}/{_PATH}")
_SCP: Final = re.compile(rf"{_SCP_USER}@{_NAME}:(?!-){_PATH}")
_LOCAL: Final = re.compile(r"(?:file://)?/[^\x00-\x1f\x7f]*")
_USERINFO: Final = re.compile(r"(://)[^/\s]*@")
# What git-check-ref-format(1) refuses, one alternative for each rule.
_NO_REF: Final = re.compile(
    r"^[-/.]|[/.]$|\.\.|//|/\.|\.lock(?:/|$)|@\{|^@$|[\x00-\x20\x7f~^:?*\[\\]"
)

_ABBREVIATED: Final = re.compile(r"[0-9a-f]{4,63}")
_OF_A_REMOTE: Final = re.compile(r"(?:remotes/)?(?:origin|upstream)/(?P<branch>.+)")
# Refs of requests and changes, as hosts of repositories publish them below refs/.
_BELOW_REFS: Final = re.compile(r"(?:pull|pull-requests|merge-requests|changes|heads|tags)/.+")
# The pages of a repository, on the hosts that many use.
_PAGE: Final = re.compile(
    r"(?P<repository>https?://[^/]+/.+?)/"
    r"(?:-/.*|(?:tree|blob|raw|commits?|src|browse|pulls?|branches|tags)(?:/.*)?)"
)


class Protocol(StrEnum):
    """A protocol, named as in Git's `protocol.allow`."""

    HTTPS = "https"
    HTTP = "http"
    SSH = "ssh"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Remote:
    """A valid URL that contains no secrets."""

    url: str
    protocol: Protocol


def parse_remote(url: str) -> Remote:
    """Validate a URL.

    Accepted are `https://`, `http://`, `ssh://user@host/path`, `user@host:path`, `file:///path`
    and an absolute path.

    Raises:
        UsageError: the URL has another form, or contains a password.
    """
    text = _safe(url)
    if len(url) > _MAX_URL:
        raise UsageError(f"Git URL has {len(url)} characters, more than {_MAX_URL}")
    if "${" in url:
        raise UsageError(f"Git URL {text!r}: variables are not expanded; write the URL in full")
    if url.startswith(("http://", "https://")):
        return _parse_http(url, text)
    if url.startswith("ssh://"):
        return Remote(_checked(_SSH, url, text, "ssh://git@host/path"), Protocol.SSH)
    if url.startswith(("file://", "/")):
        return Remote(_checked(_LOCAL, url, text, "file:///path"), Protocol.FILE)
    if _SCP.fullmatch(url):
        return Remote(url, Protocol.SSH)
    raise UsageError(
        f"Git URL {text!r} is not supported; use https://host/path, ssh://git@host/path,"
        " git@host:path, file:///path or an absolute path"
    )


def parse_ref(ref: str) -> str:
    """Validate a ref by the rules of git-check-ref-format(1).

    Raises:
        UsageError: the ref is not valid.
    """
    if not ref or len(ref) > _MAX_REF or _NO_REF.search(ref):
        raise UsageError(
            f"ref {printable(ref)!r} is not valid; use a branch, a tag, HEAD, refs/… or the"
            " full ID of a commit"
        )
    return ref


def looks_like_url(source: str) -> bool:
    """Whether a text is meant as a URL, valid or not, rather than as a folder."""
    return "://" in source or "::" in source or _SCP.fullmatch(source) is not None


def suggest_ref(ref: str) -> str:
    """Return what to write in place of a name that no branch or tag has; empty if unknown."""
    if match := _OF_A_REMOTE.fullmatch(ref):
        return f"write {match['branch']}, as the branch is called on the server"
    if _BELOW_REFS.fullmatch(ref):
        return f"write refs/{ref}"
    if _ABBREVIATED.fullmatch(ref):
        return "write all digits of a commit's ID"
    return ""


def repository_of_page(url: str) -> str:
    """Return the repository to which a URL that looks like that of a web page belongs; or empty.

    Only a hint: a repository may have such a path, too.
    """
    match = _PAGE.fullmatch(url)
    return match["repository"] if match else ""


def redact(text: str) -> str:
    """Remove user names and passwords from every URL in a text."""
    return _USERINFO.sub(r"\1", text)


def _safe(url: str) -> str:
    """Return the part of a URL that can hold no secret: after its last @ and before its first ?."""
    scheme, separator, rest = url.rpartition("@")
    text = ("…@" if separator else scheme) + rest
    return printable(re.split("[?#]", text, maxsplit=1)[0])


def _parse_http(url: str, text: str) -> Remote:
    if "@" in url:  # anywhere, since a password may contain a slash
        raise UsageError(
            f"Git URL {text!r} contains credentials; remove everything before the @ and put the"
            " user name and password, or the token, into the file of --git-credentials-file"
        )
    if "?" in url or "#" in url:
        raise UsageError(f"Git URL {text!r} has a query or fragment; remove it (from ? or # on)")
    _checked(_HTTP, url, text, "https://host/path")
    return Remote(url, Protocol.HTTPS if url.startswith("https://") else Protocol.HTTP)


def _checked(grammar: re.Pattern[str], url: str, text: str, example: str) -> str:
    match = grammar.fullmatch(url)
    if match is None:
        hint = "a password" if "@" in url else "spaces"
        raise UsageError(f"Git URL {text!r} is not valid; write {example}, without {hint}")
    port = match.groupdict().get("port")
    if port is not None and not 0 < int(port) < 65_536:  # noqa: PLR2004
        raise UsageError(f"Git URL {text!r}: {port} is not a port; use 1 to 65535")
    return url

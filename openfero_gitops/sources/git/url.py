"""Which addresses git may be given, and which names it may be asked for.

Git takes much for a URL or a ref that is neither: an option (`--upload-pack=…`), a command
(`ext::sh -c …`), the name of a helper. So both are held against a grammar first, and what is
handed on can only be what it looks like. Secrets have no place in a URL: it is shown on pages
and written on every Job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.sources.tree import shown

_LONGEST_URL: Final = 2048
_LONGEST_REF: Final = 255
_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_HOST: Final = rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
_USER: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_PATH: Final = r"[^\s?#\x00-\x20\x7f]+"
_HTTP: Final = re.compile(rf"https?://{_HOST}/{_PATH}")
_SSH: Final = re.compile(rf"ssh://{_USER}@{_HOST}/{_PATH}")
_SCP: Final = re.compile(rf"{_USER}@{_NAME}:(?!-){_PATH}")
_LOCAL: Final = re.compile(r"(?:file://)?/[^\x00-\x1f\x7f]*")
_USERINFO: Final = re.compile(r"(://)[^/@\s]*@")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
# What git-check-ref-format(1) refuses, one rule an alternative.
_NO_REF: Final = re.compile(
    r"^[-/.]|[/.]$|\.\.|//|/\.|\.lock(?:/|$)|@\{|^@$|[\x00-\x20\x7f~^:?*\[\\]"
)


class Protocol(StrEnum):
    """How the repository is reached, in the word of git's own allow-list."""

    HTTPS = "https"
    HTTP = "http"
    SSH = "ssh"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Remote:
    """An address that holds no secret and can be nothing but an address."""

    url: str
    protocol: Protocol


def parse_remote(url: str) -> Remote:
    """Hold an address against the grammar.

    Accepted are `https://`, `http://`, `ssh://user@host/path`, `user@host:path`, `file:///path`
    and an absolute path.

    Raises:
        UsageError: the address is none of them, or holds a password.
    """
    text = _safe(url)
    if len(url) > _LONGEST_URL:
        raise UsageError(f"Git URL of {len(url)} characters: at most {_LONGEST_URL} are taken")
    if "${" in url:
        raise UsageError(f"Git URL {text!r}: variables are not expanded, write it out")
    if url.startswith(("http://", "https://")):
        return _parse_http(url, text)
    if url.startswith("ssh://"):
        return Remote(_checked(_SSH, url, text, "ssh://git@host/path"), Protocol.SSH)
    if url.startswith(("file://", "/")):
        return Remote(_checked(_LOCAL, url, text, "file:///path"), Protocol.FILE)
    if _SCP.fullmatch(url):
        return Remote(url, Protocol.SSH)
    raise UsageError(
        f"Git URL {text!r}: write https://host/path, ssh://git@host/path, git@host:path,"
        " file:///path or an absolute path"
    )


def parse_ref(ref: str) -> str:
    """Hold a ref against git's own grammar.

    Raises:
        UsageError: no branch, tag or ref can have this name.
    """
    if not ref or len(ref) > _LONGEST_REF or _NO_REF.search(ref):
        raise UsageError(
            f"ref {shown(ref)!r}: write a branch, a tag, HEAD, refs/… or all 40 characters of a"
            " commit"
        )
    return ref


def is_commit(text: str) -> bool:
    """Whether a text is the full id of a commit."""
    return _COMMIT.fullmatch(text) is not None


def looks_like_url(source: str) -> bool:
    """Whether a person who wrote this meant a URL, right or wrong, and not a folder."""
    return "://" in source or "::" in source or _SCP.fullmatch(source) is not None


def redact(text: str) -> str:
    """Take user names and passwords out of every URL in a text."""
    return _USERINFO.sub(r"\1", text)


def _safe(url: str) -> str:
    """What of a refused address can be repeated: nothing before its last @ or after its first ?."""
    scheme, separator, rest = url.rpartition("@")
    text = ("…@" if separator else scheme) + rest
    return shown(re.split("[?#]", text, maxsplit=1)[0])


def _parse_http(url: str, text: str) -> Remote:
    if "@" in url:  # in a path, too: a password may hold a slash
        raise UsageError(
            f"Git URL {text!r}: leave out what stands before the @; a user name and a password or"
            " token go into the file of --git-credentials-file"
        )
    if "?" in url or "#" in url:
        raise UsageError(f"Git URL {text!r}: leave out ? and #, and what follows")
    _checked(_HTTP, url, text, "https://host/path")
    return Remote(url, Protocol.HTTPS if url.startswith("https://") else Protocol.HTTP)


def _checked(grammar: re.Pattern[str], url: str, text: str, example: str) -> str:
    found = grammar.fullmatch(url)
    if found is None:
        hint = "a password goes into no URL" if "@" in url else "it may hold no blanks"
        raise UsageError(f"Git URL {text!r}: write it like {example}; {hint}")
    port = found.groupdict().get("port")
    if port is not None and not 0 < int(port) < 65_536:  # noqa: PLR2004
        raise UsageError(f"Git URL {text!r}: {port} is no port")
    return url

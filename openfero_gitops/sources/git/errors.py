"""What git's words mean, in ours: what happened, and what a person can do.

Git says why it failed on stderr and nowhere else, in a stable wording under `LC_ALL=C`. What is
not in the table is passed on as git's own last line. A server writes to that stream too, so
every line is untrusted: cleaned, cut, and without secrets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.sources.git.url import redact
from openfero_gitops.sources.tree import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_LINE: Final = 300


class _Passing(str):
    """A meaning that may mend by itself, so that it is worth trying again."""

    __slots__ = ()


# The first that fits. `{what}` is what git was refused.
_MEANINGS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (
            r"no space left on device|disk quota exceeded",
            _Passing("the disk of the cache directory is full; give it more room"),
        ),
        (
            r"unable to create '': file exists",
            "the lock file of another git is in the way; it is removed once older than the timeout",
        ),
        (
            r"read-only file system",
            "the cache directory is read-only; mount it writable",
        ),
        (
            r"unpack-objects error|fsck error|error in object|(?:^|\n)error: object [0-9a-f]{40}: ",
            "the repository holds an object that git's own check refuses; mend it there",
        ),
        (
            (
                r"could not resolve (?:host|proxy)|name or service not known"
                r"|temporary failure in name resolution"
            ),
            _Passing("the host's name is not known; check the URL and the DNS"),
        ),
        (
            r"host key verification failed|no matching host key|host key .* (?:changed|revoked)",
            (
                "the server's host key is not the one in the known_hosts file; check whether it was"
                " replaced, then add the new key"
            ),
        ),
        (
            r"unprotected private key|bad permissions",
            "ssh refuses a key file that others may read; mount it with mode 0400",
        ),
        (
            r"error in libcrypto|invalid format|incorrect passphrase|load key",
            "ssh cannot read the key file; it must be an OpenSSH private key without a passphrase",
        ),
        (
            r"permission denied \(",
            "the server refused the ssh key; add its public half there",
        ),
        (
            r"error setting certificate|problem with the (?:ssl )?ca cert",
            "the CA file cannot be used; it must hold certificates in PEM",
        ),
        (
            r"certificate|gnutls|ssl_error|ssl routines|ssl connection|tls alert",
            (
                "no trusted TLS connection; check the server's certificate (its name, its dates),"
                " and give --git-ca-file if it is signed by a CA of your own"
            ),
        ),
        (
            r"terminal prompts disabled|could not read (?:username|password)",
            "the server asks for a user name and password; give --git-credentials-file",
        ),
        (
            r"authentication failed|http basic: access denied|returned error: 401",
            (
                "the server refused the credentials; renew the user name, password or token in the"
                " credentials file"
            ),
        ),
        (
            r"returned error: 403",
            "the server forbids reading it (403); grant these credentials read access",
        ),
        (
            r"returned error: 3\d\d|unable to update url base from redirection",
            (
                "the server redirects elsewhere, which is not followed; give the repository's final"
                " URL (many hosts want it to end in .git)"
            ),
        ),
        (
            (
                r"repository .{0,400} not found|returned error: 404"
                r"|does not appear to be a git repository|no such file or directory"
            ),
            "there is no such repository, or these credentials may not see it; check the URL",
        ),
        (
            r"dubious ownership",
            "its files belong to another user; serve it over https or ssh, or change their owner",
        ),
        (
            r"returned error: (?:429|5\d\d)",
            _Passing("the server is overloaded or broken; its own log says why"),
        ),
        (
            r"transport '.{0,40}' not allowed",
            "the server points to a protocol that is not allowed",
        ),
        (
            (
                r"connection refused|failed to connect|couldn't connect|connection timed out"
                r"|no route to host|network is unreachable|connection closed by|unable to connect"
            ),
            _Passing("no connection; check the URL, the network and that the server is up"),
        ),
        (
            (
                r"not valid: is this a git repository|protocol error|bad line length"
                r"|expected flush|unexpected line|received http/0\.9|bad pack header"
                r"|unable to parse remote"
            ),
            "the answer is not that of a Git server; check the URL",
        ),
        (
            (
                r"early eof|hung up|rpc failed|connection reset|empty reply|unexpected disconnect"
                r"|invalid index-pack output|index-pack failed|kex_exchange|connection was closed"
                r"|transfer closed|recv failure"
            ),
            _Passing(
                "the connection broke off; if that goes on, look at the network and the server's"
                " log"
            ),
        ),
    )
)
_QUOTED: Final = re.compile(r"'[^'\n]*'")
_NO_SUCH_REF: Final = re.compile(r"(?:^|\n)fatal: couldn't find remote ref ")
_NOT_OFFERED: Final = re.compile(
    r"not our ref|unadvertised object|no such remote ref|remote error: upload-pack: not our ref"
)
_NO_SHALLOW: Final = re.compile(
    r"(?:^|\n)fatal: (?:dumb http transport|Server) does not support shallow"
)
_NO_FILTER: Final = re.compile(
    r"(?:^|\n)(?:fatal: remote error: filter '[^']*' not supported"
    r"|warning: filtering not recognized by server)"
)
# What was sent is told by its difference to something that is not here.
_BASELESS: Final = re.compile(r"(?:^|\n)fatal: pack has \d+ unresolved deltas?")
_DAMAGE: Final = re.compile(
    r"(?:^|\n)(?:fatal|error): (?:not a git repository"
    r"|bad (?:object|tree|config|signature|numeric config)|unable to (?:read|find|unpack)"
    r"|could not read [0-9a-f]|loose object|object file|packfile |index file|inflate:"
    r"|failed to read object|missing (?:blob|tree|commit)|invalid object|corrupt"
    r"|.{0,400} is corrupt|unknown repository|could not parse|unexpected line in .*packed-refs"
    r"|packed object|[0-9a-f]{40}: (?:object corrupt|not found|invalid)|refs/.{0,400} does not"
    r"|cannot lock ref .{0,400}(?:unable to resolve|not a directory|is a directory)"
    r"|.{0,400} did not send all necessary objects|pack has|sha1 collision|revision walk setup"
    r"|invalid sha1 pointer|.{0,400} does not point to a valid object|.{0,400}bad pack entry)",
    re.IGNORECASE,
)
# Lines that say nothing, or that ssh and git add under what matters.
_FILLER: Final = re.compile(
    r"(?:hint: |warning: |Please make sure you have|and the repository exists"
    r"|fatal: Could not read from remote repository|fatal: the remote end hung up"
    r"|fatal: expected flush after ref listing|@{3,})",
    re.IGNORECASE,
)


class Damaged(Exception):
    """The cache of a repository cannot be read; a fresh one may be. Never leaves the adapter."""


class Cut(Exception):
    """The answer lies in history that was not fetched. Never leaves the adapter."""


def no_such_ref(stderr: str) -> bool:
    """Whether the server answered and has no such ref."""
    return _NO_SUCH_REF.search(stderr) is not None


def not_offered(stderr: str) -> bool:
    """Whether the server does not hand out this commit by its id."""
    return _NOT_OFFERED.search(stderr) is not None


def no_filter(stderr: str) -> bool:
    """Whether the server does not leave out large files."""
    return _NO_FILTER.search(stderr) is not None


def no_shallow(stderr: str) -> bool:
    """Whether the server gives its history whole or not at all."""
    return _NO_SHALLOW.search(stderr) is not None


def explain(where: str, stderr: str, secrets: Iterable[str]) -> SourceError | Damaged:
    """Turn what git said when a fetch failed into an error of one line.

    Args:
        where: begins the line.
        stderr: git's, of the operation that failed.
        secrets: never to be repeated.
    """
    said = last_line(stderr, secrets)
    # What the server says of itself, and names that a person chose, are no signs.
    ours = "\n".join(line for line in stderr.splitlines() if not line.startswith("remote:"))
    ours = _QUOTED.sub("''", ours)
    if _BASELESS.search(ours):
        return Damaged(said)
    for pattern, meaning in _MEANINGS:
        if pattern.search(ours):
            kind = SourceUnavailable if isinstance(meaning, _Passing) else SourceError
            return kind(f"{where}: {meaning} (git: {said})")
    if _DAMAGE.search(ours):
        return Damaged(said)
    return SourceError(f"{where}: git could not fetch (git: {said})")


def last_line(stderr: str, secrets: Iterable[str] = ()) -> str:
    """Return the last line that says something, fit to be shown."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if not _FILLER.match(line)] or lines
    text = telling[-1] if telling else "no message"
    for secret in secrets:
        text = text.replace(secret, "…")
    text = shown(redact(text)).removeprefix("fatal: ")
    return text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + "…"

"""Translates errors of Git into what happened and what to do about it.

Git reports why it failed only on stderr, in stable wording under `LC_ALL=C`. Messages that are not
in the table are passed on as the last line of Git's output. A server writes to this stream too, so
every line is untrusted: it is made printable, shortened, and secrets are removed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.git.url import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_LINE: Final = 300  # characters


class _Transient(str):
    """The explanation of an error that may disappear without any change."""

    __slots__ = ()


# The first match counts.
_EXPLANATIONS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), explanation)
    for pattern, explanation in (
        (
            r"no space left on device|disk quota exceeded",
            _Transient("the disk of the cache directory is full; enlarge it"),
        ),
        (
            r"unable to create '': file exists",
            (
                "another git process left a lock file, which is removed once it is older than"
                " --git-timeout"
            ),
        ),
        (
            r"read-only file system",
            "the cache directory is read-only; mount it read-write",
        ),
        (
            (
                r"unpack-objects error|fsck error|error in object"
                r"|(?:^|\n)error: object [0-9a-f]{40,64}: "
            ),
            "the repository contains an object that Git's check refuses; run `git fsck` in it",
        ),
        (
            r"out of memory|unable to create thread|cannot allocate memory",
            (
                "git needed more memory than --git-max-memory allows; raise the limit, or use a"
                " smaller repository"
            ),
        ),
        (
            r"'' is not a git command",
            (
                "the server names other servers to fetch from, which is not supported; disable"
                " packfile URIs on it"
            ),
        ),
        (
            (
                r"could not resolve (?:host|proxy)|name or service not known"
                r"|temporary failure in name resolution"
            ),
            _Transient("the host name cannot be resolved; check the URL and DNS"),
        ),
        (
            r"host key verification failed|no matching host key|host key .* (?:changed|revoked)",
            (
                "the server's host key is not in the known_hosts file; if the server was given a"
                " new key, add that key"
            ),
        ),
        (
            r"unprotected private key|bad permissions",
            "ssh refuses a key file that other users can read; mount it with mode 0400",
        ),
        (
            r"error in libcrypto|invalid format|incorrect passphrase|load key",
            "ssh cannot read the key file; it must be an OpenSSH private key without a passphrase",
        ),
        (
            r"permission denied \(",
            "the server refused the SSH key; add its public key on the server",
        ),
        (
            r"error setting certificate|problem with the (?:ssl )?ca cert",
            "the CA file cannot be used; it must contain certificates in PEM format",
        ),
        (
            r"certificate|gnutls|ssl_error|ssl routines|ssl connection|tls alert",
            (
                "the TLS connection failed; check the name and dates of the server's certificate,"
                " and set --git-ca-file if a private CA issued it"
            ),
        ),
        (
            r"terminal prompts disabled|could not read (?:username|password)",
            "the server requires a user name and password; set --git-credentials-file",
        ),
        (
            r"authentication failed|http basic: access denied|returned error: 401",
            (
                "the server refused the credentials; update the user name, password or token in the"
                " credentials file"
            ),
        ),
        (
            r"returned error: 403",
            "the server denies access (403); grant these credentials read access",
        ),
        (
            r"returned error: 3\d\d|unable to update url base from redirection",
            (
                "the server redirects to another URL, which is not followed; set the final URL (on"
                " many hosts it ends in .git)"
            ),
        ),
        (
            (
                r"repository .{0,400} not found|returned error: 404"
                r"|does not appear to be a git repository|no such file or directory"
            ),
            "the repository does not exist, or these credentials cannot see it; check the URL",
        ),
        (
            r"dubious ownership",
            "its files belong to another user; change their owner, or use https or ssh",
        ),
        (
            r"returned error: (?:429|5\d\d)",
            _Transient("the server is overloaded or failing; check its log"),
        ),
        (
            r"transport '.{0,40}' not allowed",
            "the server redirects to a protocol that is not allowed; set the final URL",
        ),
        (
            (
                r"connection refused|failed to connect|couldn't connect|connection timed out"
                r"|no route to host|network is unreachable|connection closed by|unable to connect"
            ),
            _Transient("cannot connect; check the URL, the network and the server"),
        ),
        (
            (
                r"not valid: is this a git repository|protocol error|bad line length"
                r"|expected flush|unexpected line|received http/0\.9|bad pack header"
                r"|unable to parse remote"
            ),
            "the response is not from a Git server; check the URL",
        ),
        (
            (
                r"early eof|hung up|rpc failed|connection reset|empty reply|unexpected disconnect"
                r"|invalid index-pack output|index-pack failed|kex_exchange|connection was closed"
                r"|transfer closed|recv failure"
            ),
            _Transient(
                "the connection was interrupted; if this continues, check the network and the"
                " server's log"
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
# The last one is what a server without Git's own protocol ("dumb" http) leads to.
_OTHER_FORMAT: Final = re.compile(
    r"(?:^|\n)fatal: (?:mismatched algorithms: client|Server does not support this repository's"
    r" object format|bad revision '(?P<id>[0-9a-f]{40}|[0-9a-f]{64})')"
)
_DIGITS: Final = {"sha1": 40, "sha256": 64}
# The server sent a delta against an object that is missing here.
_BASELESS: Final = re.compile(r"(?:^|\n)fatal: pack has \d+ unresolved deltas?")
_DAMAGE: Final = re.compile(
    r"(?:^|\n)(?:fatal|error): (?:not a git repository"
    r"|bad (?:object|tree|config|signature|numeric config)|unable to (?:read|find|unpack)"
    r"|could not read [0-9a-f]|loose object|object file|packfile |index file|inflate:"
    r"|failed to read object|missing (?:blob|tree|commit)|invalid object|corrupt"
    r"|.{0,400} is corrupt|unknown repository|could not parse|unexpected line in .*packed-refs"
    r"|packed object|[0-9a-f]{40,64}: (?:object corrupt|not found|invalid)|refs/.{0,400} does not"
    r"|cannot lock ref .{0,400}(?:unable to resolve|not a directory|is a directory)"
    r"|.{0,400} did not send all necessary objects|pack has|sha1 collision|revision walk setup"
    r"|invalid sha1 pointer|.{0,400} does not point to a valid object|.{0,400}bad pack entry)",
    re.IGNORECASE,
)
# Lines without information, which ssh and Git print after the one that matters.
_FILLER: Final = re.compile(
    r"(?:hint: |warning: |Please make sure you have|and the repository exists"
    r"|fatal: Could not read from remote repository|fatal: the remote end hung up"
    r"|fatal: expected flush after ref listing|@{3,})",
    re.IGNORECASE,
)


class Damaged(Exception):
    """The cache of a repository cannot be read; a new one may be. Never leaves this package."""


class TooLarge(Exception):
    """A commit or tag is too large to be read. Never leaves this package."""


class OtherFormat(Exception):
    """The remote's IDs have another hash than the cache's. Never leaves this package."""


class Cut(Exception):
    """The answer is in history that was not fetched. Never leaves this package."""


def no_such_ref(stderr: str) -> bool:
    """Whether the server has no such ref."""
    return _NO_SUCH_REF.search(stderr) is not None


def not_offered(stderr: str) -> bool:
    """Whether the server does not allow fetching this commit by its ID."""
    return _NOT_OFFERED.search(stderr) is not None


def no_filter(stderr: str) -> bool:
    """Whether the server cannot leave out large files."""
    return _NO_FILTER.search(stderr) is not None


def no_shallow(stderr: str) -> bool:
    """Whether the server cannot limit the history."""
    return _NO_SHALLOW.search(stderr) is not None


def other_format(stderr: str, object_format: str) -> bool:
    """Whether the remote's IDs have another hash than those of the repository that fetched."""
    mismatch = _OTHER_FORMAT.search(stderr)
    if mismatch is None:
        return False
    return mismatch["id"] is None or len(mismatch["id"]) != _DIGITS[object_format]


def explain(where: str, stderr: str, secrets: Iterable[str]) -> SourceError | Damaged:
    """Translate the error of a failed fetch.

    Args:
        where: begins the text.
        stderr: the output of the failed command.
        secrets: removed from the text.
    """
    reason = last_line(stderr, secrets)
    # Messages of the server and quoted names can contain anything; they must not match.
    own = "\n".join(line for line in stderr.splitlines() if not line.startswith("remote:"))
    own = _QUOTED.sub("''", own)
    if _BASELESS.search(own):
        return Damaged(reason)
    for pattern, explanation in _EXPLANATIONS:
        if pattern.search(own):
            kind = SourceUnavailable if isinstance(explanation, _Transient) else SourceError
            return kind(f"{where}: {explanation} (git: {reason})")
    if _DAMAGE.search(own):
        return Damaged(reason)
    return SourceError(f"{where}: git could not fetch (git: {reason})")


def last_line(stderr: str, secrets: Iterable[str] = ()) -> str:
    """Return the last informative line, printable and without secrets."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    informative = [line for line in lines if not _FILLER.match(line)] or lines
    text = informative[-1] if informative else "no message"
    for secret in secrets:
        text = text.replace(secret, "…")
    return printable(redact(text).removeprefix("fatal: "), _MAX_LINE)

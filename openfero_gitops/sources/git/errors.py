"""Turns failures of Git into errors: what happened, what to do, and what was said about it.

`failure` decides what failed. The text quotes the lines of the server, of ssh and of Git that say
why. All of them are untrusted: they are made printable, shortened, and secrets are removed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.errors import SourceError, SourceUnavailable
from openfero_gitops.domain.text import printable
from openfero_gitops.sources.git.failure.diagnose import diagnose
from openfero_gitops.sources.git.failure.kinds import GitSetup, Stage
from openfero_gitops.sources.git.failure.words import (
    FILLER,
    MAX_REASONS,
    own_lines,
    server_lines,
    ssh_lines,
)
from openfero_gitops.sources.git.transport import HttpLog, SshLog, parse_log
from openfero_gitops.sources.git.url import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openfero_gitops.sources.git.process import Finished

_MAX_LINE: Final = 300  # characters
_MAX_SAID: Final = 500
_MAX_LINES: Final = 6  # of Git
_SEPARATOR: Final = " / "  # between lines
_NO_SETUP: Final = GitSetup()
# What fails if the URL is not that of a repository.
_WRONG_URL: Final = {Stage.AUTHENTICATE, Stage.AUTHORISE, Stage.FIND, Stage.TRANSFER}
_NO_SUCH_REF: Final = re.compile(r"(?:^|\n)fatal: couldn't find remote ref ")
_NOT_OFFERED: Final = re.compile(
    r"not our ref|unadvertised object|no such remote ref|remote error: upload-pack: not our ref"
)
_OBJECT_NOT_OFFERED: Final = re.compile(
    r"(?:not our ref|unadvertised object|no such remote ref) (?P<id>[0-9a-f]{40,64})\b"
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
_PARTIAL_CLONE: Final = re.compile(
    r"^remote: (?:warning: lazy fetching disabled|fatal: could not fetch [0-9a-f]+ from promisor)",
    re.MULTILINE,
)
_DIGITS: Final = {"sha1": 40, "sha256": 64}
_DEFECT: Final = re.compile(r"error: object [0-9a-f]{40,64}: ")


class Damaged(Exception):
    """The cache of a repository cannot be read: it is examined, and replaced if it is damaged.

    Never leaves this package.

    Attributes:
        objects: the IDs of objects that could not be read, if they are known.
        otherwise: the error to raise if nothing is damaged.
        is_certain: whether the content itself shows the damage.
        needs_blobs: whether the cause may be a missing blob, even one that was left out because of
            its size: a new clone has what the server now assumes to be there.
    """

    def __init__(
        self,
        reason: str,
        objects: Iterable[str] = (),
        *,
        otherwise: SourceError | None = None,
        is_certain: bool = False,
        needs_blobs: bool = False,
    ) -> None:
        """Keep what to examine."""
        super().__init__(reason)
        self.objects = tuple(objects)
        self.otherwise = otherwise
        self.is_certain = is_certain
        self.needs_blobs = needs_blobs


class CacheFull(Exception):
    """The cache holds too much for another fetch; a new one may hold less. As `Damaged`."""


class TooLarge(Exception):
    """A commit or tag is too large to be read. Never leaves this package."""


class OtherFormat(Exception):
    """The remote's IDs have another hash than the cache's. Never leaves this package."""


class Cut(Exception):
    """The answer is in history that was not fetched. Never leaves this package."""


def no_such_ref(finished: Finished) -> bool:
    """Whether the server has no such ref."""
    log = parse_log(finished.log)
    is_page = isinstance(log, HttpLog) and log.is_page
    return not is_page and _NO_SUCH_REF.search(finished.stderr) is not None


def not_offered(stderr: str) -> bool:
    """Whether the server does not allow fetching this commit by its ID."""
    return _NOT_OFFERED.search(stderr) is not None


def objects_not_offered(stderr: str) -> set[str]:
    """Return the IDs of the objects that the server says it does not have, or does not send."""
    return {match["id"] for match in _OBJECT_NOT_OFFERED.finditer(stderr)}


def no_filter(stderr: str) -> bool:
    """Whether the server cannot leave out large files."""
    return _NO_FILTER.search(stderr) is not None


def no_shallow(stderr: str) -> bool:
    """Whether the server cannot limit the history."""
    return _NO_SHALLOW.search(stderr) is not None


def lacks_objects(stderr: str) -> bool:
    """Whether the server's repository is itself a clone that omits objects."""
    return _PARTIAL_CLONE.search(stderr) is not None


def other_format(stderr: str, object_format: str) -> bool:
    """Whether the remote's IDs have another hash than those of the repository that fetched."""
    mismatch = _OTHER_FORMAT.search(stderr)
    if mismatch is None:
        return False
    return mismatch["id"] is None or len(mismatch["id"]) != _DIGITS[object_format]


def explain(
    where: str, finished: Finished, secrets: Sequence[str] = (), setup: GitSetup = _NO_SETUP
) -> SourceError | Damaged:
    """Translate a failed fetch or listing of refs.

    `Damaged` means that the cache may be the cause, not that it is.

    Args:
        where: begins the text.
        finished: the failed command.
        secrets: removed from the text.
        setup: what the user has configured.
    """
    failure = diagnose(finished, setup, datetime.now(UTC))
    advice = failure.advice
    if setup.page_of and failure.stage in _WRONG_URL:
        advice += f"; the URL looks like that of a web page: the repository may be {setup.page_of}"
    text = f"{where}: {advice} ({_said(finished, secrets)})"
    if failure.lasting:
        error: SourceError = SourceError(text)
    else:
        error = SourceUnavailable(text, retry_after=failure.retry_after)
    if failure.may_be_local:
        # The server sent a delta against an object that is missing here.
        needs_blobs = "unresolved delta" in finished.stderr
        return Damaged(reason_of(finished, secrets), otherwise=error, needs_blobs=needs_blobs)
    return error


def reason_of(finished: Finished, secrets: Sequence[str] = ()) -> str:
    """Return Git's last informative line, or how the command ended, printable, without secrets."""
    return last_line(finished.stderr, secrets) or finished.ending


def last_line(stderr: str, secrets: Iterable[str] = ()) -> str:
    """Return the last informative line, printable and without secrets; empty if there is none."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    informative = [line for line in lines if not FILLER.match(line)] or lines
    return _clean(informative[-1:], secrets, _MAX_LINE)


def _said(finished: Finished, secrets: Sequence[str]) -> str:
    """Quote what the server, ssh and Git said: `server: …; ssh: …; git: …`."""
    server = _end_of(server_lines(finished), _MAX_SAID - len("server: "))
    ssh = ssh_lines(finished)
    git = [line for line in own_lines(finished.stderr) if line and not FILLER.match(line)]
    others = {*server, *ssh}
    git = [line for line in git if others.isdisjoint((line, line.removeprefix("fatal: ")))]
    # The object that Git's check refuses is in the first of its lines.
    git = [line for line in git if _DEFECT.match(line)] or git[-2:]
    said = [
        f"{who}: {text}"
        for who, lines, limit in (
            ("server", server, _MAX_SAID),
            ("ssh", ssh[:MAX_REASONS], _MAX_LINE),
            ("git", git[:_MAX_LINES], _MAX_LINE),
        )
        if (text := _clean(lines, secrets, limit))
    ]
    return printable("; ".join(said), _MAX_SAID) or _ending(finished)


def _end_of(lines: Sequence[str], limit: int) -> Sequence[str]:
    """Return the last of a server's lines: a greeting must not displace the reason."""
    while len(lines) > 1 and len(_SEPARATOR.join(lines)) > limit:
        lines = lines[1:]
    return lines


def _ending(finished: Finished) -> str:
    """Say how a command ended that printed nothing, or over ssh the one on the server."""
    log = parse_log(finished.log)
    if isinstance(log, SshLog) and log.authenticated and log.code:
        return f"the command on the server ended with exit code {log.code}"
    return finished.ending


def _clean(lines: Iterable[str], secrets: Iterable[str], limit: int) -> str:
    text = _SEPARATOR.join(redact(line).removeprefix("fatal: ") for line in lines)
    for secret in secrets:
        text = text.replace(secret, "…")
    return printable(text, limit)

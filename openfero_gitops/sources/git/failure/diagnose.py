"""Decides what failed in a network operation of Git, and what to do about it.

The decision follows how far the operation came, which the transport's log shows (see `transport`):
connect, authenticate, authorise, find, transfer. Within a stage, the words of ssh, of the server or
of Git select the advice; unknown words do not change the stage. Whether the local cache is damaged
is not decided here: `may_be_local` only says that it should be looked at (see `damage`).

Under `LC_ALL=C` the wording of Git, curl and ssh is stable. A server writes to stderr too, so every
line is untrusted.
"""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openfero_gitops.sources.git.failure.http import diagnose_http
from openfero_gitops.sources.git.failure.kinds import (
    BROKEN_OFF,
    CUT,
    GARBAGE,
    NOT_GIT,
    UNSAFE_OWNER,
    FetchFailure,
    Stage,
    first_match,
    rules,
)
from openfero_gitops.sources.git.failure.ssh import diagnose_ssh
from openfero_gitops.sources.git.failure.words import (
    ABSENCE,
    LIMITS,
    POLICIES,
    TROUBLE,
    own_lines,
    server_lines,
)
from openfero_gitops.sources.git.transport import HttpLog, SshLog, parse_log

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.sources.git.failure.kinds import GitSetup
    from openfero_gitops.sources.git.process import Finished

# What Git itself says about this machine, or about what it received.
_OWN: Final = (
    *rules(
        (
            r"no space left on device|disk quota exceeded",
            Stage.START,
            "the disk of the cache directory is full; enlarge it",
        ),
        (
            r"unable to create '': file exists",
            Stage.START,
            (
                "another git process left a lock file, which is removed once it is older than"
                " --git-timeout"
            ),
        ),
        (
            r"'remote-https?' is not a git command|unable to find remote helper",
            Stage.START,
            "git cannot start its program for http and https; check that git is fully installed",
        ),
    ),
    *rules(
        (
            r"read-only file system",
            Stage.START,
            "the cache directory is read-only; mount it read-write",
        ),
        (
            (
                r"unpack-objects error|fsck error|error in object"
                r"|^error: object [0-9a-f]{40,64}: |^fatal: .{0,100}fsckObjects"
            ),
            Stage.CONTENT,
            (
                "the repository contains an object that Git's check refuses; run `git fsck` in it,"
                " and rewrite the commit that has the object"
            ),
        ),
        (
            r"out of memory|unable to create thread|cannot allocate memory",
            Stage.START,
            (
                "git needed more memory than --git-max-memory allows; raise the limit, or use a"
                " smaller repository"
            ),
        ),
        (
            r"'http-fetch' is not a git command",
            Stage.CONTENT,
            (
                "the server names other servers to fetch from, which is not supported; disable"
                " packfile URIs on it"
            ),
        ),
        (
            r"transport '.{0,40}' not allowed",
            Stage.CONTENT,
            "the server redirects to a protocol that is not allowed; set the final URL",
        ),
        lasting=True,
    ),
)

_OWNED_BY_OTHERS: Final = FetchFailure(
    Stage.AUTHORISE,
    "the repository's files belong to another user; change their owner, or use https or ssh",
)
_REFUSED_HERE: Final = FetchFailure(
    Stage.AUTHORISE, "the server refused the request; see what it says, or its log"
)
_NO_REPOSITORY_HERE: Final = FetchFailure(
    Stage.FIND,
    "the repository does not exist, or may not be read; check the URL and the credentials",
)
_UNKNOWN: Final = FetchFailure(Stage.UNKNOWN, "could not fetch")
_KILLED: Final = FetchFailure(
    Stage.START,
    "git was killed, perhaps because the container's memory limit was reached; raise that limit",
)
# Nobody can grant access to it later, as on a server.
_NO_LOCAL_REPOSITORY: Final = FetchFailure(
    Stage.FIND, "the repository does not exist, or cannot be read; check the URL", lasting=True
)

# Errors of reading a repository. They may concern the server's.
_READING: Final = re.compile(
    r"^(?:fatal|error): (?:not a git repository"
    r"|bad (?:object|tree|config|signature|numeric config)|unable to (?:read|find|unpack|parse)"
    r"|could not read [0-9a-f]{7}|loose object|object file|packfile |index file|inflate:"
    r"|failed to read object|missing (?:blob|tree|commit)|invalid object|corrupt"
    r"|.{0,400} is corrupt|unknown repository|could not parse|unexpected line in .*packed-refs"
    r"|packed object|[0-9a-f]{40,64}: (?:object corrupt|not found|invalid)|refs/.{0,400} does not"
    r"|cannot lock ref .{0,400}(?:unable to resolve|not a directory|is a directory)"
    r"|.{0,400} did not send all necessary objects|pack has|sha1 collision|revision walk setup"
    r"|invalid sha1 pointer|.{0,400} does not point to a valid object|.{0,400}bad pack entry"
    r"|.{0,400}unresolved delta)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_LOCAL: Final = re.compile(
    r"does not appear to be a git repository|no such file or directory", re.IGNORECASE
)
_QUOTED: Final = re.compile(r"'([^'\n]*)'")
# The programs that Git starts by name; see `access`.
_PROGRAMS: Final = frozenset({"http-fetch", "remote-http", "remote-https"})
# Over ssh, Git reports with these that the server ended the connection, or does not speak Git.
_ENDED_THERE: Final = re.compile(
    r"could not read from remote repository|hung up|early eof|unexpected disconnect"
    r"|protocol error",
    re.IGNORECASE,
)
_GIT_ERROR: Final = re.compile(r"(?:fatal|error): ")


def diagnose(finished: Finished, setup: GitSetup, now: datetime) -> FetchFailure:
    """Decide what failed in a fetch or a listing of refs."""
    log = parse_log(finished.log)
    # Quoted names can contain anything; they must not match.
    own = _QUOTED.sub(_hide_name, "\n".join(own_lines(finished.stderr)))
    failure = (
        _diagnose_own(log, own)
        or (diagnose_ssh(log, finished, own) if isinstance(log, SshLog) else None)
        or (diagnose_http(log, finished, own, setup, now) if isinstance(log, HttpLog) else None)
        or _diagnose_error_packet(finished)
        or (_diagnose_local(own) if log is None else None)
        or _diagnose_transfer(own)
    )
    if failure is None:
        # A signal says nothing about the cache.
        failure = _KILLED if finished.code == -signal.SIGKILL else _UNKNOWN
        return replace(failure, may_be_local=finished.code >= 0)
    # The words may concern the repository on the server. To look costs little.
    reading_failed = failure.stage is not Stage.CONTENT and _READING.search(own) is not None
    return replace(failure, may_be_local=reading_failed)


def _hide_name(quoted: re.Match[str]) -> str:
    return quoted[0] if quoted[1] in _PROGRAMS else "''"


def _diagnose_own(log: SshLog | HttpLog | None, own: str) -> FetchFailure | None:
    """Decide by what Git says about this machine, or about what it received.

    Over ssh, the server's shell and its Git write to the same stderr, in the same words. Where the
    server ended the connection, its trouble is the cause; where Git here did, its own is.
    """
    if isinstance(log, SshLog):
        if _ENDED_THERE.search(own):
            return None
        own = "\n".join(filter(_GIT_ERROR.match, own.splitlines()))
    return first_match(_OWN, own)


def _diagnose_error_packet(finished: Finished) -> FetchFailure | None:
    """Decide where the server refuses in Git's own protocol, after its transport has succeeded."""
    if "fatal: remote error: " not in finished.stderr:
        return None
    said = "\n".join(server_lines(finished))
    if failure := first_match((*TROUBLE, *LIMITS, *POLICIES), said):
        return failure
    return _REFUSED_HERE if not ABSENCE.search(said) else _NO_REPOSITORY_HERE


def _diagnose_local(own: str) -> FetchFailure | None:
    """Decide for a repository on this machine."""
    if UNSAFE_OWNER.search(own):
        return _OWNED_BY_OTHERS
    if _NO_LOCAL.search(own):
        return _NO_LOCAL_REPOSITORY
    return None


def _diagnose_transfer(own: str) -> FetchFailure | None:
    if GARBAGE.search(own):
        return NOT_GIT
    if BROKEN_OFF.search(own) and "unresolved delta" not in own:
        return CUT
    return None

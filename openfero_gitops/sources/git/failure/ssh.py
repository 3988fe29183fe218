"""Decides what failed over ssh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.sources.git.failure.kinds import (
    BROKEN_OFF,
    GARBAGE,
    UNSAFE_OWNER,
    FetchFailure,
    Stage,
    first_match,
    rules,
)
from openfero_gitops.sources.git.failure.words import (
    ABSENCE,
    DENIAL,
    LIMITS,
    LOGIN_REQUIRED,
    NO_COMMAND,
    POLICIES,
    TROUBLE,
    last_message,
    server_lines,
)

if TYPE_CHECKING:
    from openfero_gitops.sources.git.process import Finished
    from openfero_gitops.sources.git.transport import SshLog

# Why ssh could not log in.
_LOGIN: Final = rules(
    (
        r"could not resolve hostname|name or service not known|name resolution",
        Stage.CONNECT,
        "the host name cannot be resolved; check the URL and DNS",
    ),
    (
        r"no user exists for uid",
        Stage.START,
        (
            "ssh does not run under a user ID that has no entry in /etc/passwd; run as a user that"
            " has one, install libnss-wrapper, or use the repository's https URL"
        ),
    ),
    (
        r"cannot allocate memory|out of memory|(?:cannot|unable to) fork",
        Stage.START,
        (
            "ssh did not get enough memory; raise --git-max-memory, or the memory limit of the"
            " container"
        ),
    ),
    (
        r"host key .{0,200}(?:has changed|is not the same)|host identification has changed",
        Stage.AUTHENTICATE,
        (
            "the server's host key is not the one in the known_hosts file; if the server was given"
            " a new key, replace the old one, otherwise somebody else may be answering"
        ),
    ),
    (
        r"host key .{0,200}revoked",
        Stage.AUTHENTICATE,
        "the server's host key is marked as revoked in the known_hosts file; replace the key",
    ),
    (
        r"bad server host key|invalid key length",
        Stage.AUTHENTICATE,
        "the server's host key is too weak for this version of ssh; give the server another key",
    ),
    (
        r"unable to negotiate|no matching .{0,40} found",
        Stage.AUTHENTICATE,
        (
            "the server offers only legacy ssh algorithms, which this version of ssh does not use;"
            " update the server, or use the repository's https URL"
        ),
    ),
    (
        r"host key verification failed|host key is known for",
        Stage.AUTHENTICATE,
        (
            "the server's host key is not in the known_hosts file; add it, after checking its"
            " fingerprint"
        ),
    ),
    (
        r"unprotected private key|bad permissions|are too open",
        Stage.START,
        "ssh refuses a key file that other users can read; mount it with mode 0400",
    ),
    (
        r"error in libcrypto|invalid format|incorrect passphrase|load key",
        Stage.START,
        "ssh cannot read the key file; it must be an OpenSSH private key without a passphrase",
    ),
    (
        r"no mutual signature",
        Stage.AUTHENTICATE,
        (
            "the server accepts this RSA key only with SHA-1 signatures, which this version of ssh"
            " does not make; use an Ed25519 key, or update the server"
        ),
    ),
    (
        r"too many authentication failures",
        Stage.AUTHENTICATE,
        "the server ended the login after too many attempts; check the key and the server's log",
    ),
    (
        r"permission denied",
        Stage.AUTHENTICATE,
        (
            "the server refused the SSH key; add its public key on the server, check that it has"
            " not expired there, and check the user name in the URL (on most forges: git)"
        ),
    ),
    (
        (
            r"connection refused|connect to host .{0,300} timed out|no route to host"
            r"|network is unreachable|cannot assign requested address"
        ),
        Stage.CONNECT,
        "cannot connect; check the URL, the network and the server",
    ),
    (
        r"connection (?:closed|reset|timed out)|banner|broken pipe|kex_exchange|invalid ssh",
        Stage.CONNECT,
        (
            "the connection was closed before the login; the server may be overloaded, allow only"
            " certain addresses, or not be an SSH server: check the URL and the server's log"
        ),
    ),
)
_NO_SSH: Final = FetchFailure(
    Stage.START,
    "the ssh command is not installed; install openssh-client, or use the repository's https URL",
)
_NO_LOGIN: Final = FetchFailure(
    Stage.AUTHENTICATE, "ssh could not log in; check the URL, the key and the server's log"
)
_CUT_AFTER_LOGIN: Final = FetchFailure(
    Stage.TRANSFER,
    (
        "the connection was interrupted after the login; if this continues, check the network and"
        " the server's log"
    ),
)
_REFUSED: Final = FetchFailure(
    Stage.AUTHORISE,
    "the server accepted the SSH key, and refused the request; see what it says, or its log",
)
_NOT_GIT_SHELL: Final = FetchFailure(
    Stage.TRANSFER,
    (
        "the response is not from a Git server: after the login, another program answers; check"
        " the URL and the user name in it, and that the account's shell prints nothing"
    ),
)

_NO_REPOSITORY_FOR_KEY: Final = FetchFailure(
    Stage.FIND,
    (
        "the repository does not exist, or this key may not read it; check the URL, and give the"
        " key read access on the server"
    ),
)
_DENIED_TO_KEY: Final = FetchFailure(
    Stage.AUTHORISE,
    (
        "the server does not let this key read the repository; give the key read access on the"
        " server, or check the URL"
    ),
)
_NO_GIT_ON_SERVER: Final = FetchFailure(
    Stage.FIND, "the server has no git command; install git on it, or check the URL"
)
_OWNED_BY_OTHERS_THERE: Final = FetchFailure(
    Stage.AUTHORISE,
    (
        "git on the server refuses the repository, because its files belong to another user than"
        " the one that logs in; change their owner there"
    ),
)
_REFUSALS: Final = (
    (UNSAFE_OWNER, _OWNED_BY_OTHERS_THERE),
    (NO_COMMAND, _NO_GIT_ON_SERVER),
    (ABSENCE, _NO_REPOSITORY_FOR_KEY),
    (DENIAL, _DENIED_TO_KEY),
)


def diagnose_ssh(log: SshLog, finished: Finished, own: str) -> FetchFailure | None:
    """Decide by how far ssh came; None where the connection is not the cause.

    Args:
        log: ssh's log.
        finished: the failed command.
        own: its messages, without quoted names.
    """
    if log.is_missing:
        return _NO_SSH
    if not log.authenticated:
        # What is printed may be the server's banner; but before it reads its options, ssh prints
        # instead of logging.
        reasons = "\n".join(log.reasons)
        return first_match(_LOGIN, reasons) or first_match(_LOGIN, own) or _NO_LOGIN
    if GARBAGE.search(own):
        return _NOT_GIT_SHELL
    lines = server_lines(finished)
    if log.was_cut_off and (not lines or BROKEN_OFF.search(own)):
        return _CUT_AFTER_LOGIN
    said = "\n".join(lines)
    refused = log.code not in {None, 0} and not BROKEN_OFF.search(own)
    return (
        _refusal(last_message(lines))
        or _refusal(said)
        or (_DENIED_TO_KEY if LOGIN_REQUIRED.search(said) else None)
        or (_REFUSED if refused else None)
    )


def _refusal(said: str) -> FetchFailure | None:
    """Decide by the words of a server that has let us log in."""
    return first_match((*TROUBLE, *LIMITS, *POLICIES), said) or next(
        (failure for pattern, failure in _REFUSALS if pattern.search(said)), None
    )

"""What servers say when they refuse a request: hosts of repositories word it in different ways."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from openfero_gitops.sources.git.failure.kinds import BROKEN_OFF, GARBAGE, Stage, rules
from openfero_gitops.sources.git.transport import SshLog, parse_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.sources.git.process import Finished

TROUBLE: Final = rules(
    (
        (
            r"cannot allocate memory|out of memory|resource temporarily unavailable"
            r"|too many open files|(?:cannot|unable to) fork|unable to create thread"
        ),
        Stage.LIMIT,
        "the server lacks memory or processes; see what it says, and check the server",
    ),
    (
        r"no space left on device|disk quota exceeded|read-only file system|input/output error",
        Stage.LIMIT,
        "the server cannot use its disk; see what it says, and check the server",
    ),
)
LIMITS: Final = rules(
    (
        (
            r"too many (?:requests|connections|attempts|sessions|concurrent)|rate.?limit"
            r"|exceeding usage|abuse detection|throttl|slow down|quota .{0,40}exceeded"
            r"|exceeded .{0,60}(?:limit|quota)"
        ),
        Stage.LIMIT,
        "the server is asked too often; raise --interval, or use fewer replicas",
    ),
    (
        (
            r"maintenance|temporarily (?:unavailable|down|disabled)|service unavailable"
            r"|currently (?:unavailable|offline|down)|try again (?:later|in )|overloaded"
            r"|server is (?:busy|down|starting)|migrating|being moved"
        ),
        Stage.LIMIT,
        "the server is not available for now; see what it says",
    ),
)
POLICIES: Final = rules(
    (
        (
            r"(?:key|token|password|credentials?|certificate)\b.{0,80}"
            r"(?<!may have )(?<!may be )(?<!might be )\b(?:expired|revoked)"
            r"|(?<!may have )(?<!or )\b(?:expired|revoked) .{0,40}(?:key|token|password|credential)"
        ),
        Stage.AUTHENTICATE,
        "what was used to log in has expired or was revoked on the server; renew it there",
    ),
    (
        r"sha-?1\b|unsupported key|key type",
        Stage.AUTHENTICATE,
        "the server does not accept this kind of SSH key; use an Ed25519 key",
    ),
    (
        (
            r"\bsaml\b|\bsso\b|single sign.?on|allow.?list|whitelist|ip.{0,20}(?:address|restrict)"
            r"|captcha|two.?factor|\b2fa\b|multi.?factor|terms of (?:service|use)|verify your"
            r"|account .{0,80}(?:locked|suspended|disabled|blocked|deactivated|not available)"
            r"|(?:repository|project) .{0,80}(?:suspended|disabled|archived|blocked|locked)"
            r"|accept the|agree to"
        ),
        Stage.AUTHORISE,
        "the server's rules deny access; do what its message asks",
    ),
)
ABSENCE: Final = re.compile(
    r"not (?:be )?found|not exist|no such (?:project|repo|file)|cannot find|not find"
    r"|no longer exist"
    r"|invalid (?:project|repository|path)|not a (?:gerrit|git) (?:project|repo)|mis-?spelled"
    r"|unknown (?:repo|project)|does not appear to be a git repository"
    r"|no (?:repo|repository|project)\b",
    re.IGNORECASE,
)
DENIAL: Final = re.compile(
    r"denied|unauthori[sz]ed|not authori[sz]ed|authori[sz]ation|forbidden"
    r"|not (?:allowed|permitted|granted)"
    r"|permission|access rights|no (?:read )?access|insufficient|authentication failed|not have"
    r"|\bdenies\b|unable to access",
    re.IGNORECASE,
)
#: Says little alone: the advice after a message about a policy may say it, too.
LOGIN_REQUIRED: Final = re.compile(r"login required|log ?in", re.IGNORECASE)
NO_COMMAND: Final = re.compile(r"command not found|upload-pack: .{0,20}not found", re.IGNORECASE)
_MAX_LINES: Final = 8
#: How many lines of ssh are quoted.
MAX_REASONS: Final = 6
_SSH_END: Final = re.compile(r"^Connection to .{0,300} closed")
_ERROR: Final = re.compile(r"(?:error|fatal)\b", re.IGNORECASE)
# The second one is how Git shows the error packet of its own protocol.
_MARK: Final = re.compile(r"(?:remote:|fatal: remote error:)\s*")
#: Lines with which Git ends, and which do not say what failed.
FILLER: Final = re.compile(
    r"^(?:error: unable to read askpass response|hint: |warning: "
    r"|Please make sure you have|and the repository exists"
    r"|fatal: Could not read from remote repository|fatal: the remote end hung up"
    r"|fatal: expected flush after ref listing)",
    re.IGNORECASE,
)


def ssh_lines(finished: Finished) -> list[str]:
    """Return what ssh said about its failure, the end of its log first.

    It does not log all of it. What it printed may be a greeting of the server.
    """
    log = parse_log(finished.log)
    if not isinstance(log, SshLog):
        return []
    printed = [line.strip() for line in finished.stderr.splitlines()]
    if log.authenticated:
        printed = list(filter(_SSH_END.match, printed))
    lines = (*log.reasons[-MAX_REASONS:], *filter(_says_something, printed))
    return list(dict.fromkeys(line.removeprefix("ssh: ") for line in lines))


def _says_something(line: str) -> bool:
    return bool(line) and not FILLER.match(line)


def _is_of_this_machine(text: str) -> bool:
    """Whether a line that is not marked is Git's or ssh's."""
    return any(pattern.search(text) for pattern in (FILLER, GARBAGE, BROKEN_OFF, _SSH_END))


def own_lines(stderr: str) -> list[str]:
    """Return the lines that Git itself wrote; over ssh, the server's are among them."""
    return [line.strip() for line in stderr.splitlines() if not _MARK.match(line)]


def server_lines(finished: Finished) -> list[str]:
    """Return what the server said, without the blank lines and frames of its messages.

    Git marks the server's lines. Over ssh what the server's commands print is not marked: it is
    what is not known to be Git's or ssh's.
    """
    log = parse_log(finished.log)
    # Before the login, nothing on the server can print to stderr.
    over_ssh = isinstance(log, SshLog) and log.authenticated
    lines: list[str] = []
    for line in finished.stderr.splitlines():
        text = line.strip()
        mark = _MARK.match(text)
        said = text[mark.end() :] if mark else text
        if any(map(str.isalnum, said)) and (mark or (over_ssh and not _is_of_this_machine(text))):
            lines.append(said)
    # The first ones may be a greeting, which every login gets.
    return list(dict.fromkeys(lines))[-_MAX_LINES:]


def last_message(lines: Sequence[str]) -> str:
    """Return the last of a server's messages: from its last line that names an error to the end.

    What precedes it may be a greeting or an announcement. Where no line names an error, it is the
    last line.
    """
    errors = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    return "\n".join(lines[errors[-1] if errors else -1 :])

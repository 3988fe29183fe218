"""What ssh and Git's HTTP library log about one network operation, parsed.

Their logs show how far an operation came, which Git's messages do not: whether ssh logged in, how
the command on the server ended, what status an HTTP server answered with. They are separate from
stderr, on which a server can write anything.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.timestamp import parse_http_date

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: The variable that names the file for ssh's log.
SSH_LOG: Final = "OPENFERO_SSH_LOG"
# No file has to be executable for this, which a folder that is mounted noexec would not allow.
_SSH_COMMAND: Final = (
    'logged_ssh() {{ log=${{{log}:-/dev/null}}; echo "{start}" >>"$log"; {ssh} -E "$log" "$@";'
    ' code=$?; echo "{exit}$code" >>"$log"; return "$code"; }}; logged_ssh'
)
_SSH_START: Final = "ssh starts"
_SSH_EXIT: Final = "ssh ended with exit code "
_SSH_FAILED: Final = 255  # ssh's exit code for its own failures
_NOT_FOUND: Final = 127  # a shell's exit code for a missing command
_SSH_PROGRESS: Final = re.compile(
    r"Authenticated (?:to|using) |Transferred: sent |Bytes per second: |Warning: Permanently added"
    r"|@{3}|@ +WARNING|\s|IT IS POSSIBLE|Someone could be|It is also possible|The fingerprint for"
    r"|\*\* |SHA256:|Please contact|Add correct host key|Server host key:"
)
_HTTP_LINE: Final = re.compile(
    r"\d\d:\d\d:\d\d\.\d+ \S+ +(?P<way>=>|<=|==) (?:Send header|Recv header|Info): ?(?P<text>.*)"
)
_CONNECTED: Final = ("Connected to ", "Established connection to ")
_STATUS: Final = re.compile(r"HTTP/\d(?:\.\d)? (\d{3})")
# What a server that only has files may send, in Git's dumb protocol.
_DUMB_TYPES: Final = frozenset({"text/plain", "application/octet-stream", "binary/octet-stream"})
_MAX_RETRY_AFTER_SECONDS: Final = 3600.0  # a server's mistake must not stop syncs for a day
_CONTINUE: Final = 200  # a status below this one is not final
_CUT_OFF: Final = re.compile(
    r"Connection (?:to .{0,200} )?(?:closed|reset)|client_loop|Broken pipe|not responding"
    r"|kex_exchange|Connection timed out",
    re.IGNORECASE,
)


def log_to(file: str) -> dict[str, str]:
    """Return the environment that makes Git's HTTP library, and ssh, write a log without secrets.

    For ssh see `logged_ssh`.
    """
    return {
        "GIT_TRACE_CURL": file,
        "GIT_TRACE_CURL_NO_DATA": "1",
        "GIT_TRACE_REDACT": "1",
        SSH_LOG: file,
    }


def logged_ssh(argv: Sequence[str]) -> str:
    """Return a value of GIT_SSH_COMMAND that logs to the file that `SSH_LOG` names.

    Args:
        argv: ssh and its options; they must set LogLevel=VERBOSE.
    """
    return _SSH_COMMAND.format(ssh=shlex.join(argv), log=SSH_LOG, start=_SSH_START, exit=_SSH_EXIT)


@dataclass(frozen=True, slots=True)
class SshLog:
    """What ssh logged.

    Attributes:
        reasons: its messages, without those about its progress.
        authenticated: whether it logged in.
        code: its exit code, which is that of the server's command unless ssh itself failed; None
            if it did not end.
    """

    reasons: tuple[str, ...] = ()
    authenticated: bool = False
    code: int | None = None

    @property
    def is_missing(self) -> bool:
        """Whether there is no ssh command."""
        return self.code == _NOT_FOUND and not self.authenticated and not self.reasons

    @property
    def was_cut_off(self) -> bool:
        """Whether the connection ended before the command on the server did."""
        return self.code == _SSH_FAILED or any(map(_CUT_OFF.search, self.reasons))


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to one request; the names of its headers are in lower case."""

    method: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def retry_after(self, now: datetime) -> float:
        """Return for how many seconds the server wants no request, at most an hour; 0 if unsaid.

        A date is compared with the server's clock, if the answer has it, otherwise with `now`.
        """
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return min(float(value), _MAX_RETRY_AFTER_SECONDS)
        moment = parse_http_date(value)
        if moment is None:
            return 0.0
        reference = parse_http_date(self.headers.get("date", "")) or now
        return min(max(0.0, (moment - reference).total_seconds()), _MAX_RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class HttpLog:
    """What Git's HTTP library logged: the final answers, and whether a connection was made."""

    answers: tuple[HttpAnswer, ...] = ()
    connected: bool = False

    @property
    def is_page(self) -> bool:
        """Whether the last answer is a page of a website, which Git may take for an empty list."""
        kind = self.last.headers.get("content-type", "") if self.last else ""
        kind = kind.partition(";")[0].strip().lower()
        return bool(kind) and kind not in _DUMB_TYPES and not kind.startswith("application/x-git-")

    @property
    def last(self) -> HttpAnswer | None:
        """The last answer."""
        return self.answers[-1] if self.answers else None


def parse_log(text: str) -> SshLog | HttpLog | None:
    """Parse the log of an operation; None if neither ssh nor the HTTP library wrote one."""
    lines = text.splitlines()
    traced = [match for line in lines if (match := _HTTP_LINE.match(line))]
    if traced:
        return _parse_http([(match["way"], match["text"].strip()) for match in traced])
    return _parse_ssh(lines) if lines else None


def progress(text: str) -> str:
    """Say how far an operation has come that was stopped; empty if it did not use a network."""
    log = parse_log(text)
    if isinstance(log, SshLog):
        return "ssh had logged in" if log.authenticated else "ssh had not logged in yet"
    if isinstance(log, HttpLog) and log.last is None:
        return "the server had not answered yet" if log.connected else "no connection was made yet"
    return "the server had begun to answer" if isinstance(log, HttpLog) else ""


def _parse_ssh(lines: Sequence[str]) -> SshLog:
    code = None
    for line in lines:
        if line.startswith(_SSH_EXIT) and line.removeprefix(_SSH_EXIT).strip().isdecimal():
            code = int(line.removeprefix(_SSH_EXIT))
    own = [line for line in lines if not line.startswith((_SSH_START, _SSH_EXIT))]
    return SshLog(
        reasons=tuple(
            line.strip() for line in own if line.strip() and not _SSH_PROGRESS.match(line)
        ),
        authenticated=any(line.startswith("Authenticated to ") for line in own),
        code=code,
    )


def _parse_http(lines: Sequence[tuple[str, str]]) -> HttpLog:
    answers: list[HttpAnswer] = []
    method, connected = "", False
    headers: dict[str, str] = {}
    for way, text in lines:
        if way == "==":
            connected = connected or text.startswith(
                ("Connected to ", "Established connection to ")
            )
        elif way == "=>":
            if " HTTP/" in text:
                method = text.split(" ", maxsplit=1)[0]
        elif status := _STATUS.match(text):
            headers = {}
            answers.append(HttpAnswer(method, int(status[1]), headers))
        elif ":" in text:
            name, _, value = text.partition(":")
            headers[name.strip().lower()] = value.strip()
    final = [answer for answer in answers if answer.status >= _CONTINUE]
    return HttpLog(tuple(final), connected or bool(answers))

"""The values of a decision: what failed, what to do, and what the user has configured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


class Stage(StrEnum):
    """What failed."""

    START = "start"  # a program, file or resource of this machine
    CONNECT = "connect"
    AUTHENTICATE = "authenticate"  # also the server to us
    AUTHORISE = "authorise"
    FIND = "find"  # servers do not always tell a missing repository from a forbidden one
    LIMIT = "limit"  # the server wants fewer requests, or none for now
    TRANSFER = "transfer"
    CONTENT = "content"  # what arrived is refused
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GitSetup:
    """What the user has configured: advice does not repeat it.

    `proxy` is the proxy's URL, without credentials; `page_of` is the URL of the repository that was
    probably meant, where the URL looks like that of a web page.
    """

    credentials: bool = False
    ca: bool = False
    client_cert: bool = False
    proxy: str = ""
    proxy_credentials: bool = False
    page_of: str = ""


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """What failed, and what to do; `advice` is both in words.

    `lasting` is whether only a change of the repository or of a setting helps. The server wants no
    request for `retry_after` seconds. `may_be_local` is whether the cache may be damaged.
    """

    stage: Stage
    advice: str
    lasting: bool = False
    retry_after: float = 0.0
    may_be_local: bool = False


@dataclass(frozen=True, slots=True)
class WordRule:
    """What failed where a text matches a pattern."""

    pattern: str
    failure: FetchFailure


def rules(*given: tuple[str, Stage, str], lasting: bool = False) -> tuple[WordRule, ...]:
    """Make rules of patterns, stages and advice; case is ignored, and `^` begins any line.

    The patterns are compiled when something has failed, not at each start.
    """
    return tuple(
        WordRule(pattern, FetchFailure(stage, advice, lasting=lasting))
        for pattern, stage, advice in given
    )


def first_match(given: Iterable[WordRule], text: str) -> FetchFailure | None:
    """Return the failure of the first rule that matches; None if none does."""
    flags = re.IGNORECASE | re.MULTILINE
    return next((rule.failure for rule in given if re.search(rule.pattern, text, flags)), None)


CUT: Final = FetchFailure(
    Stage.TRANSFER,
    "the connection was interrupted; if this continues, check the network and the server's log",
)
NOT_GIT: Final = FetchFailure(
    Stage.TRANSFER, "the response is not from a Git server; check the URL"
)
GARBAGE: Final = re.compile(
    r"not valid: is this a git repository|protocol error|bad line length|expected flush"
    r"|unexpected line|received http/0\.9|bad pack header|unable to parse remote"
    r"|invalid server response",
    re.IGNORECASE,
)
BROKEN_OFF: Final = re.compile(
    r"early eof|hung up|rpc failed|connection reset|empty reply|unexpected disconnect"
    r"|invalid index-pack output|index-pack failed|connection was closed|transfer closed"
    r"|recv failure|operation too slow|outstanding read|stream .{0,40}not closed|http2|timed out",
    re.IGNORECASE,
)
UNSAFE_OWNER: Final = re.compile(
    r"dubious ownership|unsafe repository|owned by (?:someone|another)", re.IGNORECASE
)

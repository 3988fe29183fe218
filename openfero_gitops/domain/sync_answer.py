"""What each replica reports about a sync that a user requested and waits for.

A replica writes its answer twice, as a member of the ConfigMap `openfero-control` of its own: when
it has read the request, and when its sync has ended.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import canonical_json, printable
from openfero_gitops.domain.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: Before the name of the replica.
KEY_PREFIX: Final = "sync-answer."
# Of the keys of a ConfigMap, which allow 253 characters.
_NOT_ALLOWED: Final = re.compile("[^-._a-zA-Z0-9]")
_MAX_NAME_CHARACTERS: Final = 200
_DIGEST_CHARACTERS: Final = 8
_MAX_ERROR_CHARACTERS: Final = 500
_MAX_CHARACTERS: Final = 4096
_MAX_COMMIT_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """The answer of a replica.

    Attributes:
        replica: the replica's identity.
        request: the request that it has read.
        at: when it was written, by the clock of the replica.
        finished: whether the sync has ended; the fields below are only valid then.
        before: the active commit before the sync; empty if there was none.
        commit: the active commit after it.
        error: why the sync failed, or the new commit was refused; empty if neither.
        seconds: the duration of the sync.
    """

    replica: str
    request: str
    at: datetime
    finished: bool = False
    before: str = ""
    commit: str = ""
    error: str = ""
    seconds: float = 0.0


def answer_key(replica: str) -> str:
    """The member of the ConfigMap for the answers of a replica."""
    name = _NOT_ALLOWED.sub("-", replica)[:_MAX_NAME_CHARACTERS]
    if name == replica:
        return KEY_PREFIX + name
    digest = hashlib.sha256(replica.encode(errors="replace")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{KEY_PREFIX}{name}.{digest}"


def write_answer(answer: SyncAnswer) -> str:
    """Write an answer as JSON."""
    return canonical_json(
        {
            "replica": answer.replica,
            "request": answer.request,
            "at": format_time(answer.at),
            "finished": answer.finished,
            "before": answer.before,
            "commit": answer.commit,
            "error": printable(answer.error, _MAX_ERROR_CHARACTERS),
            "seconds": round(answer.seconds, 3),
        }
    )


def read_answer(text: str) -> SyncAnswer | None:
    """Read an answer, which anybody with access may have written; None if it is none."""
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    at = parse_time(_text(value, "at"))
    seconds = value.get("seconds")
    if at is None or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return SyncAnswer(
        replica=printable(_text(value, "replica")),
        request=_text(value, "request"),
        at=at,
        finished=value.get("finished") is True,
        before=printable(_text(value, "before"), _MAX_COMMIT_CHARACTERS),
        commit=printable(_text(value, "commit"), _MAX_COMMIT_CHARACTERS),
        error=printable(_text(value, "error"), _MAX_ERROR_CHARACTERS),
        seconds=float(seconds),
    )


def read_answers(control: Mapping[str, Any] | None) -> dict[str, SyncAnswer | None]:
    """Read all answers in the ConfigMap, by their keys."""
    data: Mapping[str, Any] = (control or {}).get("data") or {}
    return {key: read_answer(str(data[key])) for key in data if key.startswith(KEY_PREFIX)}


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""

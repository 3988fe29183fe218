"""The ConfigMap `openfero-control`: what users and replicas tell the controller.

Each member is written by one party and read by all replicas, within seconds:

- `paused`, `request`, `by`, `at`, `reason`: the last pause, or the end of one, by a user
- `acknowledged`, `still-paused-by`: the leader's confirmation of a `request`
- `sync`: the last request to sync, by a user or by the replica that received it
- `sync-request`: the same, by a user who waits until each replica has reported the result
- `sync-answer.REPLICA`: the result of a replica's sync, see `sync_answer`
- `replica.REPLICA`: what a replica reports about itself, see `replica`
- `watchdog`: when the watchdog's alert was last delivered, by the replica that received it
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_seconds, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

NAME: Final = "openfero-control"
LABELS: Final = {keys.MANAGED_BY: keys.MANAGER}
#: Written by the leader beside `acknowledged`: the message of a pause in Git, or empty.
STILL_PAUSED_BY: Final = "still-paused-by"

#: Values of `paused` that do not pause; anything else does.
_NOT_PAUSED: Final = ("", "false", "no", "0")
#: Before the end of a pause in `paused`. An older version, to which this is a pause without an
#: end, does not start anything either; and a `true` written by hand replaces the end.
_UNTIL: Final = "until "
_READ: Final = (
    "paused",
    "request",
    "acknowledged",
    "by",
    "at",
    "reason",
    "sync",
    "sync-request",
    "watchdog",
)
_MAX_VALUE_CHARACTERS: Final = 1024
_MAX_REASON_CHARACTERS: Final = 500


def read_members(control: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the members that replicas read; values that are longer than anybody needs are cut.

    A request that was cut is not acknowledged.
    """
    data: Mapping[str, Any] = (control or {}).get("data") or {}
    return {key: str(data[key]).strip()[:_MAX_VALUE_CHARACTERS] for key in _READ if key in data}


def write_pause(
    by: str,
    at: datetime,
    *,
    paused: bool,
    until: datetime | None = None,
    reason: str = "",
) -> dict[str, str]:
    """The members to write to pause or resume admission.

    `until` is when the pause ends by itself, if it does.
    """
    return {
        "paused": f"{_UNTIL}{format_time(until)}" if paused and until else str(paused).lower(),
        "request": uuid.uuid4().hex,
        "by": by,
        "at": format_time(at),
        "reason": reason,
    }


def read_pause(members: Mapping[str, str]) -> Pause | None:
    """Read the pause that a user requested; it may be over.

    Anybody with access may have written the members by hand.
    """
    paused = members.get("paused", "false").strip()
    if paused.lower() in _NOT_PAUSED:
        return None
    by = read_author(members)
    since = parse_time(members.get("at"))
    until = parse_time(paused.removeprefix(_UNTIL)) if paused.startswith(_UNTIL) else None
    reason = printable(members.get("reason", ""), _MAX_REASON_CHARACTERS)
    message = f"{by} paused admission"
    if since:
        message += f" at {format_seconds(since)}"
    if until:
        message += f" until {format_seconds(until)}"
    if reason:
        message += f": {reason}"
    earlier = " earlier" if until else ""
    return Pause(
        PauseCause.COMMAND,
        f"{message}; run `openfero-gitops resume` to resume{earlier}",
        by,
        since,
        until,
        reason,
    )


def read_author(members: Mapping[str, str]) -> str:
    """Who requested the last pause, or its end."""
    return printable(members.get("by", "")) or "somebody"

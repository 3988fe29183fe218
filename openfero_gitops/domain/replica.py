"""What each replica of the controller reports about itself, for people who ask another one.

A report is a member of the ConfigMap `openfero-control`. No decision depends on it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import sync_answer
from openfero_gitops.domain.text import canonical_json, printable
from openfero_gitops.domain.timestamp import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: Before the name of the replica.
KEY_PREFIX: Final = "replica."
#: Between two reports of a replica, unless its active commit changes.
REPORT_INTERVAL: Final = timedelta(minutes=5)
#: A replica that has not reported for this long has probably stopped.
STOPPED_AFTER: Final = 2 * REPORT_INTERVAL + timedelta(minutes=1)
_MAX_CHARACTERS: Final = 2048
_MAX_TEXT_CHARACTERS: Final = 253


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """A replica, when it started and reported, and its active commit; empty if it has none."""

    replica: str
    version: str
    commit: str
    started_at: datetime
    at: datetime

    def is_stopped(self, now: datetime) -> bool:
        """Whether the replica should have reported again."""
        return now - self.at > STOPPED_AFTER


def report_key(replica: str) -> str:
    """Return the member of the ConfigMap for the reports of a replica."""
    return KEY_PREFIX + sync_answer.answer_key(replica).removeprefix(sync_answer.KEY_PREFIX)


def write_replica(report: ReplicaReport) -> str:
    """Write a report as JSON."""
    return canonical_json(
        {
            "replica": report.replica,
            "version": report.version,
            "commit": report.commit,
            "startedAt": format_time(report.started_at),
            "at": format_time(report.at),
        }
    )


def read_replicas(control: Mapping[str, Any] | None) -> dict[str, ReplicaReport | None]:
    """Read all reports in the ConfigMap, by their keys; None for one that is damaged."""
    data: Mapping[str, Any] = (control or {}).get("data") or {}
    return {key: _read(str(data[key])) for key in data if key.startswith(KEY_PREFIX)}


def _read(text: str) -> ReplicaReport | None:
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    texts = {name: str(value.get(name) or "") for name in ("replica", "version", "commit")}
    started_at = parse_time(str(value.get("startedAt") or ""))
    at = parse_time(str(value.get("at") or ""))
    if at is None or started_at is None or not texts["replica"]:
        return None
    shown = {name: printable(text, _MAX_TEXT_CHARACTERS) for name, text in texts.items()}
    return ReplicaReport(**shown, started_at=started_at, at=at)

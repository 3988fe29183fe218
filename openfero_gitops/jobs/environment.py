"""Alert data as environment variables, under OpenFero's names.

Data stays data: every `$` is doubled, since Kubernetes would otherwise expand `$(NAME)` inside
of a value; names that are invalid, or that two labels share, are left to the JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import canonical_json
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.alert import Alert

PREFIX: Final = "OPENFERO_"
_ANNOTATION_PREFIX: Final = PREFIX + "ANNOTATION_"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_ALERT_BYTES: Final = 64 * 1024
_GROUP_KEY_LENGTH: Final = 16 * 1024
_CUT: Final = "…[cut]"


def alert_record(alert: Alert) -> str:
    """The alert as canonical JSON of at most 64 KiB, long annotations cut and marked.

    Labels are never cut: they are what the alert is. A result over 64 KiB is the caller's to
    refuse.
    """
    limits: tuple[int | None, ...] = (None, 4096, 1024, 256, 64, 0)
    record = ""
    for limit in limits:
        record = canonical_json(
            {
                "status": alert.status.value,
                "labels": dict(alert.labels),
                "annotations": {
                    # (In order, since names that are cut may become one.)
                    _cut(name, limit): _cut(text, limit)
                    for name, text in sorted(alert.annotations.items())
                },
                "startsAt": format_time(alert.starts_at) if alert.starts_at else "",
                "endsAt": format_time(alert.ends_at) if alert.ends_at else "",
                "generatorURL": _cut(alert.generator_url, limit),
                "fingerprint": _cut(alert.fingerprint, limit),
            }
        )
        if fits(record):
            break
    return record


def fits(record: str) -> bool:
    """Whether a recorded alert keeps within its 64 KiB."""
    return len(record.encode()) <= _ALERT_BYTES


def cut_group_key(group_key: str) -> str:
    """A group's key as far as it is handed on: a label in it may be of any length."""
    return _cut(group_key, _GROUP_KEY_LENGTH)


def variables(record: str, group_key: str, commit: str) -> dict[str, str]:
    """Every variable that an alert record gives, unescaped, in the order in which they stand.

    The reserved names win over labels that spell the same.
    """
    alert: dict[str, Any] = json.loads(record)
    reserved = {
        "OPENFERO_ALERT_JSON": record,
        "OPENFERO_STATUS": alert["status"],
        "OPENFERO_FINGERPRINT": alert["fingerprint"],
        "OPENFERO_STARTS_AT": alert["startsAt"],
        "OPENFERO_GROUP_KEY": cut_group_key(group_key),
        "OPENFERO_COMMIT": commit,
        **_named(_ANNOTATION_PREFIX, alert["annotations"]),
    }
    labels = {
        name: value
        for name, value in _named(PREFIX, alert["labels"]).items()
        if not name.startswith(_ANNOTATION_PREFIX)
    }
    return {**labels, **reserved}


def _named(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    names = {key: prefix + key.upper().replace("-", "_") for key in values if _NAME.fullmatch(key)}
    shared = Counter(names.values())
    return {name: values[key] for key, name in sorted(names.items()) if shared[name] == 1}


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return text[:limit] + _CUT

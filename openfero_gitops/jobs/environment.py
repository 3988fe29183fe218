"""The alert as its Job records it, and the environment variables made from it.

Variables have OpenFero's names. Every `$` in a value is doubled when the Job is rendered, because
Kubernetes would expand `$(NAME)` in it. A label whose variable name would be invalid, or equal to
that of another label, is only in `OPENFERO_ALERT_JSON`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import canonical_json
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.alert import Alert

PREFIX: Final = "OPENFERO_"
_ANNOTATION_PREFIX: Final = PREFIX + "ANNOTATION_"
_VALID_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
#: Tried in this order until the record fits.
_CUT_CHARACTERS: Final[tuple[int | None, ...]] = (None, 4096, 1024, 256, 64, 0)
_CUT_MARK: Final = "…[cut]"


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """How much of an alert a Job records, so that alerts cannot fill etcd.

    `record_bytes` is for the alert as JSON, in UTF-8. The Job is larger: `$` is doubled, JSON in
    JSON is escaped twice, and each label is a variable of each container. Since version 2 of the
    renderer, an alert adds less than 256 KiB to a Job with one container.
    """

    record_bytes: int
    group_key_characters: int


#: By renderer version: a Job is verified with the limits that it was rendered with.
LIMITS: Final[Mapping[int, RecordLimits]] = {
    1: RecordLimits(record_bytes=64 * 1024, group_key_characters=16 * 1024),
    2: RecordLimits(record_bytes=16 * 1024, group_key_characters=4 * 1024),
    3: RecordLimits(record_bytes=16 * 1024, group_key_characters=4 * 1024),
}


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """The values of an alert, long ones cut, and their canonical JSON; whether that fits."""

    values: Mapping[str, Any]
    text: str
    fits: bool


def record_alert(alert: Alert, limits: RecordLimits) -> AlertRecord:
    """Record an alert; annotations are cut as far as necessary to make it fit.

    Labels are never cut, because they identify the alert. If they are too long, the record does
    not fit.
    """
    for cut in _CUT_CHARACTERS:
        values = _values(alert, cut)
        text = canonical_json(values)
        if fits := len(text.encode()) <= limits.record_bytes:
            break
    return AlertRecord(values, text, fits)


def _values(alert: Alert, limit: int | None) -> dict[str, Any]:
    return {
        "status": alert.status.value,
        "labels": dict(alert.labels),
        # Sorted, because two names can become equal when they are cut.
        "annotations": {
            _cut(name, limit): _cut(value, limit)
            for name, value in sorted(alert.annotations.items())
        },
        "startsAt": format_time(alert.starts_at) if alert.starts_at else "",
        "endsAt": format_time(alert.ends_at) if alert.ends_at else "",
        "generatorURL": _cut(alert.generator_url, limit),
        "fingerprint": _cut(alert.fingerprint, limit),
    }


def cut_group_key(group_key: str, limits: RecordLimits) -> str:
    """Cut a group key to the length that a Job records; a label in it may have any length."""
    return _cut(group_key, limits.group_key_characters)


def variables(record: AlertRecord, group_key: str, commit: str) -> dict[str, str]:
    """Return every variable of an alert, unescaped, in the order in which containers get them.

    The group key is cut already.

    Reserved names take precedence over labels that would have the same variable name.
    """
    alert = record.values
    reserved = {
        "OPENFERO_ALERT_JSON": record.text,
        "OPENFERO_STATUS": alert["status"],
        "OPENFERO_FINGERPRINT": alert["fingerprint"],
        "OPENFERO_STARTS_AT": alert["startsAt"],
        "OPENFERO_GROUP_KEY": group_key,
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
    names = {
        key: prefix + key.upper().replace("-", "_") for key in values if _VALID_NAME.fullmatch(key)
    }
    uses = Counter(names.values())
    return {name: values[key] for key, name in sorted(names.items()) if uses[name] == 1}


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return text[:limit] + _CUT_MARK

"""The alert as its Job records it, and the environment variables made from it.

Variables have OpenFero's names: upper case, with `_` for `-`, and also for `.` and `/`, which label
names contain since Prometheus 3 and OpenTelemetry (`service.name`). Every `$` in a value is doubled
when the Job is rendered, because Kubernetes would expand `$(NAME)` in it. A label whose variable
name would be invalid, or equal to that of another label, is only in `OPENFERO_ALERT_JSON`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import canonical_bytes, listed, printable
from openfero_gitops.domain.timestamp import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.domain.alert import Alert

PREFIX: Final = "OPENFERO_"
_ANNOTATION_PREFIX: Final = PREFIX + "ANNOTATION_"
#: Tried in this order until the record fits.
_CUT_CHARACTERS: Final[tuple[int | None, ...]] = (None, 4096, 1024, 256, 64, 0)
_CUT_MARK: Final = "…[cut]"
_MAX_SHOWN_CHARACTERS: Final = 80
#: Of the names of the labels or annotations of an alert whose variables are kept.
_MAX_CACHED_CHARACTERS: Final = 2048


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """How much of an alert a Job records, so that alerts cannot fill etcd.

    `record_bytes` is for the alert as JSON, in UTF-8. The Job is larger: `$` is doubled, JSON in
    JSON is escaped twice, and each label is a variable of each container. Since version 2 of the
    renderer, an alert adds less than 256 KiB to a Job with one container.

    `separators` are the characters of a label name that become `_` in the name of its variable.
    """

    record_bytes: int
    group_key_characters: int
    separators: str = "-./"


#: By renderer version: a Job is verified with the limits that it was rendered with.
LIMITS: Final[Mapping[int, RecordLimits]] = {
    1: RecordLimits(record_bytes=64 * 1024, group_key_characters=16 * 1024, separators="-"),
    2: RecordLimits(record_bytes=16 * 1024, group_key_characters=4 * 1024, separators="-"),
    3: RecordLimits(record_bytes=16 * 1024, group_key_characters=4 * 1024),
    4: RecordLimits(record_bytes=16 * 1024, group_key_characters=4 * 1024),
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
        text = canonical_bytes(values)
        if fits := len(text) <= limits.record_bytes:
            break
    return AlertRecord(values, text.decode(), fits)


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


def variables(
    record: AlertRecord, group_key: str, commit: str, limits: RecordLimits
) -> dict[str, str]:
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
        **_named(_ANNOTATION_PREFIX, alert["annotations"], limits),
    }
    labels = {
        name: value
        for name, value in _named(PREFIX, alert["labels"], limits).items()
        if not name.startswith(_ANNOTATION_PREFIX)
    }
    return {**labels, **reserved}


def why_missing(variable: str, record: AlertRecord, limits: RecordLimits) -> str:
    """Why an alert has no variable of this name, as a clause."""
    for kind, prefix in (("annotations", _ANNOTATION_PREFIX), ("labels", PREFIX)):
        named = _by_variable(prefix, tuple(sorted(record.values[kind])), limits.separators)
        sharing = named.get(variable, ())
        if len(sharing) > 1:
            shown = listed(printable(name, _MAX_SHOWN_CHARACTERS) for name in sharing)
            return (
                f"the alert has {len(sharing)} {kind} that would have this name: {shown}; read "
                "them from OPENFERO_ALERT_JSON"
            )
    return "the alert has no such label or annotation"


def _named(prefix: str, values: Mapping[str, str], limits: RecordLimits) -> dict[str, str]:
    """The values by variable; sorted by the label or annotation."""
    named = _by_variable(prefix, tuple(sorted(values)), limits.separators)
    return {name: values[keys[0]] for name, keys in named.items() if len(keys) == 1}


def _by_variable(
    prefix: str, keys: tuple[str, ...], separators: str
) -> Mapping[str, Sequence[str]]:
    """The names of labels or annotations by the name of the variable that they would have."""
    if sum(map(len, keys)) > _MAX_CACHED_CHARACTERS:
        return _group_by_variable(prefix, keys, separators)
    return _cached_by_variable(prefix, keys, separators)


def _group_by_variable(
    prefix: str, keys: tuple[str, ...], separators: str
) -> Mapping[str, Sequence[str]]:
    valid, table = _naming(separators)
    named: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        if valid.fullmatch(key):
            named[prefix + key.upper().translate(table)].append(key)
    return named


# The alerts of a rule have the same names.
_cached_by_variable = lru_cache(maxsize=256)(_group_by_variable)


@cache
def _naming(separators: str) -> tuple[re.Pattern[str], dict[int, str]]:
    """Which names have a variable, and how its name is made."""
    valid = re.compile(f"[A-Za-z0-9_{re.escape(separators)}]+")
    return valid, {ord(character): "_" for character in separators}


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return text[:limit] + _CUT_MARK

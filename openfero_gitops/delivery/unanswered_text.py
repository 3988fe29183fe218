"""Writes the record of unanswered alerts as compressed JSON, and reads it.

A ConfigMap holds at most 1 MiB, and others can write ConfigMaps: both directions have limits.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.delivery.unanswered import (
    INCIDENT_CHARACTERS,
    MAX_KINDS,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_OCCURRENCES,
    MAX_VALUES,
    AlertKind,
    Heard,
    OccurrenceId,
    Sample,
    Unanswered,
    UnansweredRecord,
    cut_values,
    most_recent,
    without_last,
)
from openfero_gitops.domain.text import without_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Compressed; a third more in a ConfigMap, as base64.
MAX_BYTES: Final = 600 * 1024
#: Before compression.
MAX_PLAIN_BYTES: Final = 6 * 1024 * 1024
_FORMAT: Final = 1
#: Fast: a higher level saves a tenth of the bytes and takes three times as long.
_LEVEL: Final = 3
_MAX_URL_CHARACTERS: Final = 2048
#: Until the year 9000, so that a time can be converted.
_MAX_SECONDS: Final = 221_845_392_000
#: Of the size, after an attempt that was too large.
_REDUCTION: Final = 0.9


class UnreadableShare(ValueError):
    """A text is not a record."""


def write_record(record: UnansweredRecord) -> tuple[bytes, UnansweredRecord]:
    """Write a record; return also what of it was written.

    What was least recently heard is left out if the text becomes too large.
    """
    entries = most_recent(record)
    texts: list[str] = []
    size = 0
    for kind, unanswered in entries:
        text = json.dumps(_members(kind, unanswered), separators=(",", ":"))
        size += len(text) + 1
        if size > MAX_PLAIN_BYTES - 100:
            break
        texts.append(text)
    while True:
        written = record
        if len(texts) < len(entries):
            written = without_last(record, [kind for kind, _ in entries[: len(texts)]])
        head = f'{{"format":{_FORMAT},"droppedUntil":{written.dropped_until},"alerts":['
        data = zlib.compress(f"{head}{','.join(texts)}]}}".encode(), _LEVEL)
        if len(data) <= MAX_BYTES:
            return data, written
        del texts[int(len(texts) * _REDUCTION * MAX_BYTES / len(data)) :]


def read_record(data: bytes) -> UnansweredRecord:
    """Read a record, which anybody with access may have written.

    Raises:
        UnreadableShare: it is not a record; the message says why.
    """
    try:
        decompressor = zlib.decompressobj()
        text = decompressor.decompress(data, MAX_PLAIN_BYTES)
        if not decompressor.eof:
            raise UnreadableShare("it is incomplete or too large")
        value = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise UnreadableShare(str(error)) from error
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise UnreadableShare(f"its format is not {_FORMAT}")
    alerts = value.get("alerts")
    if not isinstance(alerts, list):
        raise UnreadableShare("it has no list of alerts")
    kinds = dict(_read_alert(alert) for alert in alerts[:MAX_KINDS])
    return UnansweredRecord(kinds, _seconds(value.get("droppedUntil")))


def _members(kind: AlertKind, unanswered: Unanswered) -> dict[str, Any]:
    sample = unanswered.sample
    return {
        "alertname": kind.alertname,
        "status": kind.status,
        "reason": kind.reason,
        "first": unanswered.first,
        "droppedUntil": unanswered.dropped_until,
        "occurrences": [[*key, *heard] for key, heard in unanswered.occurrences.items()],
        "sample": {
            "heardAt": sample.heard_at,
            "outcome": sample.outcome,
            "message": sample.message,
            "labels": dict(sample.labels),
            "annotations": dict(sample.annotations),
            "start": sample.start,
            "end": sample.end,
            "generatorURL": sample.generator_url,
            "cut": sample.is_cut,
        },
    }


def _read_alert(value: Any) -> tuple[AlertKind, Unanswered]:
    alert, sample = _mapping(value), _mapping(_mapping(value).get("sample"))
    kind = AlertKind(
        _string(alert, "alertname", MAX_NAME_CHARACTERS),
        _string(alert, "status", MAX_NAME_CHARACTERS),
        _string(alert, "reason", MAX_NAME_CHARACTERS),
    )
    occurrences = alert.get("occurrences")
    if not isinstance(occurrences, list):
        raise UnreadableShare("an alert has no list of occurrences")
    return kind, Unanswered(
        _seconds(alert.get("first")),
        Sample(
            heard_at=_seconds(sample.get("heardAt")),
            outcome=_string(sample, "outcome", MAX_NAME_CHARACTERS),
            message=_string(sample, "message", MAX_MESSAGE_CHARACTERS),
            labels=_strings(sample.get("labels")),
            annotations=_strings(sample.get("annotations")),
            start=_seconds(sample.get("start")),
            end=_seconds(sample.get("end")),
            generator_url=_string(sample, "generatorURL", _MAX_URL_CHARACTERS),
            is_cut=sample.get("cut") is True,
        ),
        dict(_read_occurrence(each) for each in occurrences[:MAX_OCCURRENCES]),
        _seconds(alert.get("droppedUntil")),
    )


def _read_occurrence(value: Any) -> tuple[OccurrenceId, Heard]:
    match value:
        case [str(incident), start, first, last]:
            key = OccurrenceId(incident[:INCIDENT_CHARACTERS], _seconds(start))
            return key, Heard(_seconds(first), _seconds(last))
    raise UnreadableShare("an occurrence is not incident, start and two times")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableShare("a member that must be an object is not")
    return value


def _string(members: Mapping[str, Any], name: str, limit: int) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise UnreadableShare(f"{name} is not a string")
    return without_surrogates(value[:limit])


def _strings(value: Any) -> dict[str, str]:
    members = _mapping(value)
    if len(members) > MAX_VALUES or not all(isinstance(each, str) for each in members.values()):
        raise UnreadableShare("labels or annotations are not strings, or too many")
    return cut_values(
        {without_surrogates(name): without_surrogates(text) for name, text in members.items()}
    )


def _seconds(value: Any) -> int:
    # (A boolean is an integer.)
    if type(value) is not int or not 0 <= value <= _MAX_SECONDS:
        raise UnreadableShare("a time is not a number of seconds")
    return value

"""Parses the body of a delivery: Alertmanager's webhook payload, version "4".

Unknown members are ignored, because newer versions of Alertmanager add some. For requests by hand,
a single alert is accepted too, and only `status` and `labels` are required. `null` means absent.

A body is read in two steps, so that a hostile one costs little. The first finds where each alert is
and builds nothing else: unknown members are skipped, and it ends when there are too many alerts, or
too many elements that are no alerts at all (not an object, or without labels). The second decodes
one alert at a time.

An alert with a wrong member does not make the others unreadable, and neither do some elements that
are no alerts at all. Only `alerts` must have the right type: another member of the group that has a
wrong one is treated as absent, and named in the result.
"""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert, AlertGroup, InvalidAlert, Status
from openfero_gitops.domain.errors import PayloadError, TooLarge
from openfero_gitops.domain.text import plural, printable, quoted, without_surrogates
from openfero_gitops.domain.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

_MAX_POINTER_CHARACTERS: Final = 200
#: JSON of the labels of an alert. A Job records less; labels are hashed for every delivery.
_MAX_LABELS_BYTES: Final = 64 * 1024
#: JSON of all members of an alert that are read. A Job records less, cut.
_MAX_ALERT_BYTES: Final = 256 * 1024
#: Of the group key; more is cut. A Job records less, cut again and marked.
_MAX_GROUP_KEY_CHARACTERS: Final = 64 * 1024
#: A larger number of truncated alerts is counted as this; metrics are floating-point numbers.
_MAX_TRUNCATED: Final = 2**31 - 1
#: A body with more elements that are no alerts at all is not a payload.
_MAX_OTHER_ELEMENTS: Final = 500
#: Bodies up to this size are read by json if msgspec calls them malformed, because json names line
#: and column, and also reads UTF-16.
_MAX_REREAD_BYTES: Final = 128 * 1024
#: In a larger body, so many lone surrogates are replaced, which msgspec rejects.
_MAX_LONE_SURROGATES: Final = 10_000
#: One label or annotation for so many bytes of the body. Real ones need more than twice as many:
#: only a body that is made to explode when it is parsed has fewer.
_BYTES_PER_MEMBER: Final = 32
#: A body of any size may have so many.
_MIN_MEMBERS: Final = 10_000

# Memory, measured on CPython 3.11, with what the submitter and the answer need.
_ALERT_COST_BYTES: Final = 3072
_MEMBER_COST_BYTES: Final = 144


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """What a delivery may contain; more is an error, because a part of it would be lost."""

    size: int = 8 * 1024 * 1024
    alerts: int = 10_000


class _Members(msgspec.Struct, gc=False, rename="camel"):
    """Where the members of an alert are in the body."""

    labels: Raw = Raw()
    status: Raw = Raw()
    annotations: Raw = Raw()
    starts_at: Raw = Raw()
    ends_at: Raw = Raw()
    generator_url: Raw = msgspec.field(name="generatorURL", default=Raw())
    fingerprint: Raw = Raw()


class _Element(_Members, gc=False):
    """An element of the array of alerts."""

    def __post_init__(self) -> None:
        """Count each element as soon as it is read; an exception ends reading."""
        _count.get().one_more()


class _NoObject(_Element, gc=False):
    """An element that is not even an object."""


class _AlertBody(_Element, gc=False):
    """An element that is an alert."""

    def __post_init__(self) -> None:
        """Count and check each element as soon as it is read; an exception ends reading."""
        _count.get().one_more()
        if not _begins_with(self.labels, "{"):
            raise ValueError("labels must be an object")


class _Body(_Members, gc=False):
    """A group, or a single alert."""

    alerts: list[_AlertBody] | UnsetType = UNSET
    group_key: Raw = Raw()
    truncated_alerts: Raw = Raw()


class _BodyWithOthers(_Members, gc=False):
    """A group of which some elements may be no alerts."""

    alerts: Raw = Raw()
    group_key: Raw = Raw()
    truncated_alerts: Raw = Raw()


_Group: TypeAlias = _Body | _BodyWithOthers


class _Name(msgspec.Struct):
    """The label that names an alert; others are skipped."""

    alertname: str = ""


@dataclass(slots=True)
class _Count:
    """How many alerts were read, of all arrays in the body."""

    limit: int
    alerts: int = 0

    def one_more(self) -> None:
        self.alerts += 1
        if self.alerts > self.limit:
            raise TooLarge(
                f"the body has more than {plural(self.limit, 'alert')}; set max_alerts: "
                f"{self.limit} for this receiver in Alertmanager, or raise --max-alerts",
                "too-many-alerts",
            )


#: Of the body that is being read. (msgspec passes no argument to __post_init__.)
_count: ContextVar[_Count] = ContextVar("_count")

_BODY: Final = msgspec.json.Decoder(_Body)
_BODY_WITH_OTHERS: Final = msgspec.json.Decoder(_BodyWithOthers)
_RAW: Final = msgspec.json.Decoder(Raw)
_ELEMENT: Final = msgspec.json.Decoder(_Element)
_NAME: Final = msgspec.json.Decoder(_Name)
_NUMBER: Final = msgspec.json.Decoder(int | None)
_TEXT: Final = msgspec.json.Decoder(str | None)
_LABELS: Final = msgspec.json.Decoder(dict[str, str])
_ANNOTATIONS: Final = msgspec.json.Decoder(dict[str, str] | None)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])

#: The place in a message of msgspec: "Expected `object`, got `int` - at `$.alerts[0]`".
_PLACE: Final = re.compile(r"(?P<message>.*?)(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
#: msgspec's types, and the words for them. Nothing else of a message is in backquotes.
_OPTIONAL: Final = " | null"
_WHITESPACE: Final = b" \t\r\n"
#: What is between the elements of an array, which is known to be valid JSON.
_GAP: Final = re.compile(rb"[\s,]*")
#: msgspec counts the character after a value, too.
_AFTER_VALUE: Final = re.compile(r"trailing characters \(byte (\d+)\)")
#: Anything up to a lone surrogate. Each escape is consumed whole, also that of a backslash.
_LONE_SURROGATE: Final = re.compile(
    rb"""(?: [^\\]++ | \\[^u] | \\u(?![dD][89a-fA-F]) | \\u[dD][89abAB]..\\u[dD][c-fC-F].. )*+
    (\\u[dD][89a-fA-F][0-9a-fA-F]{2})""",
    re.DOTALL | re.VERBOSE,
)
#: How compressed data begins.
_COMPRESSED: Final = {"gzip": b"\x1f\x8b", "Zstandard": b"\x28\xb5\x2f\xfd"}


def read_payload(body: bytes | str) -> AlertGroup:
    """Parse a webhook body, or a single alert, of which every alert must be valid.

    Raises:
        PayloadError: the body is not JSON, or not such a payload; the text names the member.
    """
    group = read_delivery(body)
    for invalid in group.invalid:
        raise _invalid_payload(invalid.path, invalid.problem)
    return group


def read_delivery(
    body: bytes | bytearray | str,
    limits: PayloadLimits | None = None,
    reserve: Callable[[int], None] = lambda _: None,
) -> AlertGroup:
    """Parse a webhook body, or a single alert; alerts that are wrong are listed in the group.

    If none can be read, and one is not even an object with labels, the body is not a payload.

    `reserve` is called with the bytes of memory that each alert needs, before the next is read; it
    may raise.

    Raises:
        PayloadError: the body is not JSON, or not such a payload; the text names the member.
        TooLarge: it has too many alerts, labels or annotations.
    """
    limits = limits or PayloadLimits()
    if isinstance(body, str):
        body = without_surrogates(body).encode()
    raw, found = _read_body(body, limits)
    group = _GroupMembers.of(raw)
    elements, place = _elements(raw, found)
    max_members = max(_MIN_MEMBERS, len(body) // _BYTES_PER_MEMBER)
    alerts: list[Alert] = []
    invalid: list[InvalidAlert] = []
    members = 0
    no_alert: InvalidAlert | None = None
    for index, element in enumerate(elements):
        try:
            alert = _alert(element, group.status)
        except _InvalidMember as error:
            path = (*(place and (place, index)), *error.path)
            invalid.append(
                InvalidAlert(index, _name(element.labels), path, _pointer(path), str(error))
            )
            if isinstance(error, _NotAnAlert):
                no_alert = no_alert or invalid[-1]
            reserve(_ALERT_COST_BYTES)
        else:
            alerts.append(alert)
            members += (size := len(alert.labels) + len(alert.annotations))
            if members > max_members:
                raise TooLarge(
                    f"the alerts of the body have more than {max_members} labels and annotations, "
                    f"which is more than one for {_BYTES_PER_MEMBER} bytes; remove labels in the "
                    "alerting rules",
                    "too-many-labels",
                )
            reserve(_ALERT_COST_BYTES + size * _MEMBER_COST_BYTES)
    if no_alert is not None and not alerts:
        raise _invalid_payload(no_alert.path, no_alert.problem)
    is_firing = any(alert.status is Status.FIRING for alert in alerts)
    return AlertGroup(
        # Alertmanager's rule; other senders may omit the status of the group.
        status=Status.FIRING if is_firing else Status.RESOLVED,
        group_key=group.key[:_MAX_GROUP_KEY_CHARACTERS],
        truncated_alerts=group.truncated_alerts,
        alerts=tuple(alerts),
        invalid=tuple(invalid),
        unread=group.unread,
    )


class _GroupMembers(NamedTuple):
    """The members of a group besides its alerts; those with a wrong type are treated as absent."""

    status: str
    key: str
    truncated_alerts: int
    unread: tuple[str, ...]

    @classmethod
    def of(cls, raw: _Group) -> Self:
        """Decode them; a single alert has none, and its status is its own."""
        status = key = ""
        truncated = 0
        unread: list[str] = []
        if isinstance(raw, _BodyWithOthers) or not isinstance(raw.alerts, UnsetType):
            try:
                status = _text(raw.status, "status")
            except _InvalidMember as error:
                unread.append(f"status {error}")
        try:
            key = _text(raw.group_key, "groupKey")
        except _InvalidMember as error:
            unread.append(f"groupKey {error}")
        if memoryview(raw.truncated_alerts):
            try:
                truncated = _NUMBER.decode(raw.truncated_alerts) or 0
            except msgspec.DecodeError:
                unread.append("truncatedAlerts must be an integer")
        return cls(status, key, min(max(0, truncated), _MAX_TRUNCATED), tuple(unread))


def _elements(
    raw: _Group, alerts: Sequence[_Element] | UnsetType
) -> tuple[Sequence[_Members], str]:
    """Return the alerts of a body, and the member that they are in."""
    if not isinstance(alerts, UnsetType):
        return alerts, "alerts"
    if not memoryview(raw.labels):
        raise _invalid_payload(("alerts",), "the member is required")
    if not _begins_with(raw.labels, "{"):
        raise _invalid_payload(("labels",), "labels must be an object")
    return [raw], ""


def _read_body(
    body: bytes | bytearray, limits: PayloadLimits
) -> tuple[_Group, Sequence[_Element] | UnsetType]:
    """Find the members of a body; raises PayloadError or TooLarge."""
    if no_text := _why_no_text(body):
        raise PayloadError(no_text)
    token = _count.set(_Count(limits.alerts))
    try:
        try:
            return _decode_body(body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            _count.set(_Count(limits.alerts))
            if len(body) > _MAX_REREAD_BYTES:
                return _decode_body(_without_lone_surrogates(body))
            text = json.dumps(json.loads(body), ensure_ascii=False)
            return _decode_body(without_surrogates(text).encode())
    except msgspec.ValidationError as error:
        raise _wrong_type(error) from None
    except RecursionError:
        raise PayloadError("the body is not JSON that can be read: nested too deeply") from None
    except ValueError as error:  # also msgspec's and json's
        raise PayloadError(f"the body is not JSON: {printable(str(error))}") from error
    finally:
        _count.reset(token)


def _without_lone_surrogates(body: bytes | bytearray) -> bytearray:
    """Replace lone surrogates in a copy of a large body, in place: both escapes have 6 bytes."""
    copy = bytearray(body)
    at = 0
    for _ in range(_MAX_LONE_SURROGATES):
        if (found := _LONE_SURROGATE.match(copy, at)) is None:
            break
        start, at = found.span(1)
        copy[start:at] = b"\\ufffd"
    return copy


def _decode_body(body: bytes | bytearray) -> tuple[_Group, Sequence[_Element] | UnsetType]:
    """Find the members of a body, and the elements of its array; raises msgspec's errors."""
    try:
        raw = _BODY.decode(body)
    except msgspec.ValidationError:
        others = _BODY_WITH_OTHERS.decode(body)
        if not _begins_with(others.alerts, "["):
            raise  # it is something else
        _count.get().alerts = 0
        return others, _elements_among_others(memoryview(others.alerts))
    return raw, raw.alerts


def _elements_among_others(array: memoryview) -> list[_Element]:
    """Find the elements of an array, one at a time, of which some are no alerts.

    (msgspec reads an array in which anything may be only by building an object for each element:
    that needs 40 times the memory of `[1,1,1,...]`, and cannot be ended.)

    Raises:
        PayloadError: too many are no alerts; names the first.
    """
    elements: list[_Element] = []
    problems: list[PayloadError] = []
    at = 1
    while True:
        gap = _GAP.match(array, at)
        at = gap.end() if gap else at
        if array[at] == ord("]"):
            return elements
        end = _end_of_value(array, at)
        is_object = array[at] == ord("{")
        element = _ELEMENT.decode(array[at:end]) if is_object else _NoObject()
        try:
            _check_element(element)
        except _NotAnAlert as error:
            problems.append(_invalid_payload(("alerts", len(elements), *error.path), str(error)))
            if len(problems) > _MAX_OTHER_ELEMENTS:
                raise problems[0] from None
        elements.append(element)
        at = end


def _end_of_value(array: memoryview, at: int) -> int:
    """Return where the value that begins at `at` ends, with the whitespace after it."""
    try:
        _RAW.decode(array[at:])
    except msgspec.DecodeError as error:
        if after := _AFTER_VALUE.search(str(error)):
            return at + int(after[1]) - 1
        raise
    return len(array)


def _why_no_text(body: bytes | bytearray) -> str:
    """Why a body is no JSON at all, in the cases in which the parser's words do not help."""
    if not body.strip(_WHITESPACE):
        return "the body is not JSON: it is empty"
    for name, start in _COMPRESSED.items():
        if body.startswith(start):
            return f"the body is not JSON: it is compressed ({name}); send it uncompressed"
    return ""


def _wrong_type(error: msgspec.ValidationError) -> PayloadError:
    match = _PLACE.fullmatch(str(error))
    message, place = (match["message"], match["path"] or "") if match else (str(error), "")
    path = [name or int(index) for name, index in _STEP.findall(place)]
    if missing := _MISSING.fullmatch(message):
        path.append(missing[1])
        message = "the member is required"
    if not path:
        message = "it is not a JSON object"
    return _invalid_payload(path, message.replace(_OPTIONAL, ""))


class _InvalidMember(Exception):
    """A member of an alert, or of the group, is invalid."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path: tuple[str | int, ...] = path


class _NotAnAlert(_InvalidMember):
    """An element is not an object, or has no labels."""


def _check_element(body: _Members) -> None:
    """Check that an element is an alert; raises _NotAnAlert."""
    if isinstance(body, _NoObject):
        raise _NotAnAlert("an alert must be an object")
    if not memoryview(body.labels):
        raise _NotAnAlert("the member is required", "labels")
    if not _begins_with(body.labels, "{"):
        raise _NotAnAlert("labels must be an object")


def _alert(body: _Members, group_status: str) -> Alert:
    """Decode one alert; raises _InvalidMember."""
    _check_element(body)
    label_bytes = len(memoryview(body.labels))
    if label_bytes > _MAX_LABELS_BYTES:
        raise _InvalidMember(
            f"the labels have {label_bytes} bytes, and at most {_MAX_LABELS_BYTES} are read; "
            "shorten them in the alerting rule",
            "labels",
        )
    size = label_bytes + sum(
        len(memoryview(raw))
        for raw in (
            body.annotations,
            body.status,
            body.starts_at,
            body.ends_at,
            body.generator_url,
            body.fingerprint,
        )
    )
    if size > _MAX_ALERT_BYTES:
        raise _InvalidMember(
            f"the alert has {size} bytes, and at most {_MAX_ALERT_BYTES} are read; shorten its "
            "annotations in the alerting rule"
        )
    try:
        labels = _LABELS.decode(body.labels)
    except msgspec.DecodeError as error:
        raise _wrong_text(body.labels, "labels", error) from None
    annotations: dict[str, str] | None = None
    if memoryview(body.annotations):
        try:
            annotations = _ANNOTATIONS.decode(body.annotations)
        except msgspec.DecodeError as error:
            raise _wrong_text(body.annotations, "annotations", error) from None
    given = _text(body.status, "status") or group_status
    try:
        status = Status(given)
    except ValueError:
        message = f'the status must be "firing" or "resolved", not {quoted(given)}'
        raise _InvalidMember(message, "status") from None
    return Alert(
        status=status,
        labels=labels,
        annotations=annotations or {},
        starts_at=_time(body.starts_at, "startsAt"),
        ends_at=_time(body.ends_at, "endsAt"),
        generator_url=_text(body.generator_url, "generatorURL"),
        fingerprint=_text(body.fingerprint, "fingerprint"),
    )


def _text(raw: Raw, member: str) -> str:
    """Decode a text; empty if it is absent or null."""
    if not memoryview(raw):
        return ""
    try:
        return _TEXT.decode(raw) or ""
    except msgspec.ValidationError:
        raise _InvalidMember("must be a string", member) from None
    except msgspec.DecodeError:
        raise _InvalidMember("must be text in UTF-8", member) from None


def _wrong_text(raw: Raw, member: str, error: Exception) -> _InvalidMember:
    """Find the first label or annotation that is not a text."""
    try:
        values = _MEMBERS.decode(raw)
    except msgspec.DecodeError:
        if not _begins_with(raw, "{"):
            return _InvalidMember("must be an object", member)
        return _InvalidMember(f"cannot be read: {printable(str(error))}", member)
    for name, value in values.items():
        if not _begins_with(value, '"'):
            return _InvalidMember("must be a string", member, name)
    return _InvalidMember("its values must be text in UTF-8", member)


def _time(raw: Raw, member: str) -> datetime | None:
    """Parse a time.

    An invalid startsAt must be an error: without startsAt, each repetition of the alert would be a
    new occurrence.
    """
    text = _text(raw, member)
    moment = parse_time(text)
    if member == "endsAt" and text.startswith("9999-"):
        return None  # some senders write this for an alert that does not end
    if moment is None and text and not text.startswith("0001-"):  # Go's zero time
        raise _InvalidMember(
            f"{quoted(text)} is not an RFC 3339 time with an offset, like 2026-11-21T03:04:05Z",
            member,
        )
    return moment


def _name(labels: Raw) -> str:
    """The name of an alert that cannot be read, cut; empty if it cannot be read either."""
    try:
        return printable(_NAME.decode(labels).alertname)
    except msgspec.DecodeError:
        return ""


def _begins_with(raw: Raw, character: str) -> bool:
    view = memoryview(raw)
    return len(view) > 0 and view[0] == ord(character)


def _pointer(path: Sequence[str | int]) -> str:
    return "".join("/" + keys.pointer(str(part)) for part in path)[:_MAX_POINTER_CHARACTERS]


def _invalid_payload(path: Sequence[str | int], message: str) -> PayloadError:
    pointer = _pointer(path)
    at = f"at {pointer}: " if pointer else ""
    message = f"the body is not an Alertmanager payload: {at}{message}"
    return PayloadError(message, tuple(path))

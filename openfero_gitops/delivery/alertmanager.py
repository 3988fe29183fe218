"""Parses the body of a delivery: Alertmanager's webhook payload, version "4".

Unknown members are ignored, because newer versions of Alertmanager add some. For requests by hand,
a single alert is accepted too, and only `status` and `labels` are required.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert, AlertGroup, Status
from openfero_gitops.domain.errors import PayloadError
from openfero_gitops.domain.text import quoted, without_surrogates
from openfero_gitops.domain.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_MAX_POINTER_CHARACTERS: Final = 200
# JSON can contain lone surrogates, UTF-8 cannot.
_Text = Annotated[str, AfterValidator(without_surrogates)]


class _AlertBody(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    status: _Text = ""
    labels: dict[_Text, _Text]
    annotations: dict[_Text, _Text] | None = None
    starts_at: _Text = Field("", validation_alias=AliasChoices("startsAt"))
    ends_at: _Text = Field("", validation_alias=AliasChoices("endsAt"))
    generator_url: _Text = Field("", validation_alias=AliasChoices("generatorURL"))
    fingerprint: _Text = ""


class _GroupBody(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    status: _Text = ""
    group_key: _Text = Field("", validation_alias=AliasChoices("groupKey"))
    truncated_alerts: int = Field(0, validation_alias=AliasChoices("truncatedAlerts"))
    alerts: list[_AlertBody]


def read_payload(body: bytes | str) -> AlertGroup:
    """Parse a webhook body, or a single alert.

    Raises:
        PayloadError: the body is not JSON, or not such a payload; the text names the member.
    """
    try:
        raw: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise _invalid_payload((), "it is not a JSON object")
    is_single = "alerts" not in raw and "labels" in raw
    if is_single:
        raw = {"status": raw.get("status", ""), "alerts": [raw]}
    try:
        group = _GroupBody.model_validate(raw)
        alerts = tuple(
            _alert(alert, index, group.status) for index, alert in enumerate(group.alerts)
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _invalid_payload(
            _sent_path(first["loc"], is_single=is_single), first["msg"]
        ) from error
    except _InvalidMember as error:
        raise _invalid_payload(_sent_path(error.path, is_single=is_single), str(error)) from None
    is_firing = any(alert.status is Status.FIRING for alert in alerts)
    return AlertGroup(
        # Alertmanager's rule; other senders may omit the status of the group.
        status=Status.FIRING if is_firing else Status.RESOLVED,
        group_key=group.group_key,
        truncated_alerts=max(0, group.truncated_alerts),
        alerts=alerts,
    )


class _InvalidMember(Exception):
    """A member has the right type and an invalid value."""

    def __init__(self, index: int, member: str, message: str) -> None:
        super().__init__(message)
        self.path = ("alerts", index, member)


def _alert(body: _AlertBody, index: int, group_status: str) -> Alert:
    given = body.status or group_status
    try:
        status = Status(given)
    except ValueError:
        message = f'the status must be "firing" or "resolved", not {quoted(given)}'
        raise _InvalidMember(index, "status", message) from None
    return Alert(
        status=status,
        labels=body.labels,
        annotations=body.annotations or {},
        starts_at=_time(body.starts_at, index, "startsAt"),
        ends_at=_time(body.ends_at, index, "endsAt"),
        generator_url=body.generator_url,
        fingerprint=body.fingerprint,
    )


def _time(text: str, index: int, member: str) -> datetime | None:
    """Parse a time.

    An invalid startsAt must be an error: without startsAt, each repetition of the alert would be a
    new occurrence.
    """
    moment = parse_time(text)
    if member == "endsAt" and text.startswith("9999-"):
        return None  # some senders write this for an alert that does not end
    if moment is None and text and not text.startswith("0001-"):  # Go's zero time
        raise _InvalidMember(
            index,
            member,
            f"{quoted(text)} is not an RFC 3339 time with an offset, like 2026-11-21T03:04:05Z",
        )
    return moment


def _sent_path(path: Sequence[str | int], *, is_single: bool) -> Sequence[str | int]:
    """Return the path in the body, in which a single alert is not part of a group."""
    return path[2:] if is_single and path[:1] == ("alerts",) else path


def _invalid_payload(path: Sequence[str | int], message: str) -> PayloadError:
    pointer = "".join("/" + keys.pointer(str(part)) for part in path)[:_MAX_POINTER_CHARACTERS]
    at = f"at {pointer}: " if pointer else ""
    message = f"the body is not an Alertmanager payload: {at}{message}"
    return PayloadError(message, tuple(path))

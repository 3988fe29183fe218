"""The body of a delivery to an AlertGroup.

Alertmanager's webhook payload version "4" is read; unknown members are left alone, as newer
Alertmanagers add some. What a person types is read too: a group or a single alert with no
more than `status` and `labels`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Alert, AlertGroup, Status
from openfero_gitops.domain.errors import PayloadError
from openfero_gitops.domain.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

#: Of what a sender wrote, this many characters are repeated to it.
_SHOWN: Final = 200


def _whole(text: str) -> str:
    """Replace lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_Text = Annotated[str, AfterValidator(_whole)]


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
    receiver: _Text = ""
    truncated_alerts: int = Field(0, validation_alias=AliasChoices("truncatedAlerts"))
    alerts: list[_AlertBody]


def read_payload(body: bytes | str) -> AlertGroup:
    """Read a webhook body, or one alert of one.

    Raises:
        PayloadError: no JSON, or not of that shape; the text names the member.
    """
    try:
        raw: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise _no_payload((), "it is no JSON object")
    alone = "alerts" not in raw and "labels" in raw
    if alone:
        raw = {"status": raw.get("status", ""), "alerts": [raw]}
    try:
        group = _GroupBody.model_validate(raw)
        alerts = tuple(
            _alert(alert, index, group.status) for index, alert in enumerate(group.alerts)
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _no_payload(_as_sent(first["loc"], alone=alone), first["msg"]) from error
    except _Unreadable as error:
        raise _no_payload(_as_sent(error.where, alone=alone), str(error)) from None
    fires = any(alert.status is Status.FIRING for alert in alerts)
    return AlertGroup(
        # Alertmanager's own rule, which also serves senders that leave the group's status out.
        status=Status.FIRING if fires else Status.RESOLVED,
        group_key=group.group_key,
        receiver=group.receiver,
        truncated_alerts=max(0, group.truncated_alerts),
        alerts=alerts,
    )


class _Unreadable(Exception):
    """A member has the right type, and says nothing that can be understood."""

    def __init__(self, index: int, member: str, message: str) -> None:
        super().__init__(message)
        self.where = ("alerts", index, member)


def _alert(body: _AlertBody, index: int, group_status: str) -> Alert:
    given = body.status or group_status
    try:
        status = Status(given)
    except ValueError:
        what = repr(given[:_SHOWN]) if given else "no status"
        message = f"{what} is neither 'firing' nor 'resolved'"
        raise _Unreadable(index, "status", message) from None
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
    """Read a time; one that cannot be read is an error.

    Taken for none, it would make every repetition of one alert an occurrence of its own.
    """
    moment = parse_time(text)
    if member == "endsAt" and text.startswith("9999-"):
        return None  # never, as some write it
    if moment is None and text and not text.startswith("0001-"):  # Go's zero time
        raise _Unreadable(
            index,
            member,
            f"{text[:_SHOWN]!r} is no RFC 3339 time with an offset, like 2026-11-21T03:04:05Z",
        )
    return moment


def _as_sent(where: Sequence[str | int], *, alone: bool) -> Sequence[str | int]:
    """A place in a group as the sender knows it, who may have sent an alert alone."""
    return where[2:] if alone and where[:1] == ("alerts",) else where


def _no_payload(where: Sequence[str | int], message: str) -> PayloadError:
    place = "".join("/" + keys.pointer(str(part)) for part in where)[:_SHOWN]
    at = f"at {place}: " if place else ""
    message = f"the body is not an Alertmanager payload: {at}{message}"
    return PayloadError(message, tuple(where))

"""Reads alerts from what people have: a webhook payload, or what tools and APIs print.

Besides the webhook's payload (also Grafana's) and a single alert, these are read:

- `amtool alert query -o json` and Alertmanager's `/api/v2/alerts`: a list of alerts,
- Alertmanager's `/api/v2/alerts/groups`: a list of groups with alerts,
- Prometheus' `/api/v1/alerts`: alerts below `data`.

In these, an alert has a state instead of a status. All states mean that the alert fires: suppressed
and pending ones too, because the question is what would happen if they were delivered. A single
alert without a status counts as firing, too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.delivery.alertmanager import read_payload
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.errors import PayloadError
from openfero_gitops.domain.rule import format_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.domain.alert import AlertGroup

    Path = tuple[str | int, ...]

#: States of Alertmanager's API (`status.state`), and of Prometheus' (`state`).
_FIRING_STATES: Final = frozenset({"active", "suppressed", "unprocessed", "firing", "pending"})
#: Members of a group that are read.
_OF_GROUP: Final = ("groupKey", "status", "truncatedAlerts")
_MESSAGE_SUBJECT: Final = "the body "


def read_alerts(content: bytes) -> AlertGroup:
    """Read alerts, of which every one must be valid.

    Raises:
        PayloadError: it is not JSON, or has no alerts in a known form; `path` is the place.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return read_payload(content)  # which says why, or can read it
    found = list(_find(value, ()))
    members = value if isinstance(value, dict) else {}
    if not isinstance(value, dict | list) or (found == [((), value)] and "labels" not in members):
        return read_payload(content)
    if found == [((), value)] and "state" not in members:
        found = [((), {"status": Status.FIRING.value} | members)]
    payload: dict[str, Any] = {"alerts": [_with_status(element) for _, element in found]}
    if "alerts" in members:
        payload |= {member: members[member] for member in _OF_GROUP if member in members}
    try:
        return read_payload(json.dumps(payload))
    except PayloadError as error:
        raise _at_its_place(error, [path for path, _ in found]) from error


def read_alert_file(content: bytes, name: str) -> AlertGroup:
    """Read the alerts of a file; errors name it.

    Raises:
        PayloadError: see `read_alerts`.
    """
    try:
        return read_alerts(content)
    except PayloadError as error:
        message = str(error)
        if message.startswith(_MESSAGE_SUBJECT):
            message = f"{name} {message.removeprefix(_MESSAGE_SUBJECT)}"
        else:
            message = f"{name}: {message}"
        raise PayloadError(message, error.path) from error


def _find(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield what is in the place of an alert, and its path."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from _find(element, (*path, index))
    elif isinstance(value, dict) and isinstance(value.get("alerts"), list):
        yield from _find(value["alerts"], (*path, "alerts"))
    elif isinstance(value, dict) and isinstance(value.get("data"), dict | list):
        yield from _find(value["data"], (*path, "data"))
    else:
        yield path, value


def _with_status(element: Any) -> Any:
    """Give an alert with a state a status; anything else is returned as it is."""
    if not isinstance(element, dict):
        return element
    status = element.get("status")
    if isinstance(status, dict):  # of Alertmanager's API, which gives an endsAt while it fires
        state = status.get("state")
        rest = {name: value for name, value in element.items() if name != "endsAt"}
    elif "state" in element and status is None:  # of Prometheus' API
        state = element["state"]
        rest = {**element, "startsAt": element.get("startsAt") or element.get("activeAt")}
    else:
        return element
    is_firing = isinstance(state, str) and state in _FIRING_STATES
    return {**rest, "status": Status.FIRING.value if is_firing else state}


def _at_its_place(error: PayloadError, paths: list[Path]) -> PayloadError:
    """Name the place in the file, instead of that in the payload that was made of it."""
    match error.path:
        case ("alerts", int(index), *rest) if index < len(paths):
            path = (*paths[index], *rest)
        case _:
            return error
    place, own = (format_pointer(where) for where in (error.path, path))
    message = str(error).replace(f"at {place}: ", f"at {own}: " if own else "", 1)
    return PayloadError(message, path)

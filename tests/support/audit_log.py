"""What ServiceAccounts asked of a test cluster, as its API server recorded it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from scripts.chart_permissions import JOBS, PERMISSIONS
from tests.support.chart import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DECISION: Final = "authorization.k8s.io/decision"
#: Requests about a collection have a name in the log where the API server knows it, but RBAC does
#: not look at it.
_WITHOUT_NAME: Final = ("create", "list", "watch", "deletecollection")


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A verb on a resource, as RBAC sees it, and whether a Role allowed it."""

    user: str
    namespace: str
    group: str
    resource: str
    name: str
    verb: str
    allowed: bool

    def __str__(self) -> str:
        """Return it in the words of kubectl's errors."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        what = f"{resource} {self.name}" if self.name else resource
        return f"{self.user} may not {self.verb} {what} in namespace {self.namespace}"


def requests_in(audit_log: Path, *, containing: str, start: int = 0) -> Iterator[AccessRequest]:
    """Yield the requests for resources, in order; a watch when it begins and when it ends.

    Lines that do not contain a string are not read, which saves most of the time, nor those before
    a position in the file.
    """
    with audit_log.open() as lines:
        lines.seek(start)
        for line in lines:
            # The first line and the last may be incomplete.
            if containing not in line or not (line.startswith("{") and line.endswith("\n")):
                continue
            event: dict[str, Any] = json.loads(line)
            reference = event.get("objectRef")
            decision = event.get("annotations", {}).get(_DECISION)
            if reference is None or decision is None:  # throttled requests get no decision
                continue
            subresource, verb = reference.get("subresource"), event["verb"]
            yield AccessRequest(
                user=event["user"]["username"],
                namespace=reference.get("namespace", ""),
                group=reference.get("apiGroup", ""),
                resource=reference["resource"] + (f"/{subresource}" if subresource else ""),
                name="" if verb in _WITHOUT_NAME else reference.get("name", ""),
                verb=verb,
                allowed=decision == "allow",
            )


def check_rights(audit_log: Path) -> None:
    """Fail if a controller asked for what the Roles of the chart do not grant.

    What they grant may be forbidden for a while: an API server that has just started has not read
    the Roles, and some tests take permissions away.
    """
    forbidden = {
        request
        for request in requests_in(audit_log, containing=f'"{_DECISION}":"forbid"')
        if request.user.endswith(f":{NAME}")
    }
    beyond = {request for request in forbidden if not _is_granted(request)}
    if within := forbidden - beyond:
        places = {
            (request.user, request.namespace)
            for request in requests_in(audit_log, containing=f'"{_DECISION}":"allow"')
        }
        beyond |= {each for each in within if (each.user, each.namespace) not in places}
    assert not beyond, "\n".join(sorted(map(str, beyond)))


def _is_granted(request: AccessRequest) -> bool:
    """Whether the Roles grant this, if it is in a namespace of theirs."""
    is_own = request.user.split(":")[-2] == request.namespace
    return any(
        (permission.group, permission.resource, permission.verb)
        == (request.group, request.resource, request.verb)
        and permission.name in ("", request.name)
        and (is_own or permission.namespace == JOBS)
        for permission in PERMISSIONS
    )

"""What the API server refuses in probes and lifecycle hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.checks.containers import is_port
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body, Container

_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS: Final = ("postStart", "preStop")
_HANDLERS: Final = frozenset({"exec", "grpc", "httpGet", "sleep", "tcpSocket"})
_GRACE: Final = 30
_TIMES: Final = (
    "failureThreshold",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
)


@check(
    error(
        "probe",
        "A probe must have one action and valid settings, in a container that keeps running.",
        API_SERVER_REJECTS,
    )
)
def _probe(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for kind in _PROBES:
            probe = container.fields.get(kind)
            if probe is None:
                continue
            at = (*container.pointer, kind)
            if _ends_by_itself(container):
                yield at, f"an init container has no {kind}, unless it restarts Always", "delete it"
            yield from _handler(at, probe, body)
            for field in _TIMES:
                if probe.get(field, 0) < 0:
                    yield (*at, field), f"{field} is {probe[field]}, and not negative", "delete it"
            patience = probe.get("terminationGracePeriodSeconds")
            if patience is not None and (kind == "readinessProbe" or patience < 1):
                message = "a readinessProbe ends nothing" if patience > 0 else "it is 1 at least"
                yield (*at, "terminationGracePeriodSeconds"), message, "delete it"
            if kind != "readinessProbe" and probe.get("successThreshold", 1) > 1:
                message = f"the successThreshold of a {kind} is 1"
                yield (*at, "successThreshold"), message, "delete it"


@check(
    error(
        "lifecycle",
        "A lifecycle hook must have one action, in a container that keeps running.",
        API_SERVER_REJECTS,
    )
)
def _lifecycle(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        hooks = container.fields.get("lifecycle", {})
        at = (*container.pointer, "lifecycle")
        if hooks and _ends_by_itself(container):
            yield at, "an init container has no lifecycle, unless it restarts Always", "delete it"
        for kind in _HOOKS:
            if kind in hooks:
                yield from _handler((*at, kind), hooks[kind], body)


def _ends_by_itself(container: Container) -> bool:
    return container.is_init and container.fields.get("restartPolicy") != "Always"


def _handler(at: Pointer, fields: Mapping[str, Any], body: Body) -> Iterator[Breach]:
    handlers = fields.keys() & _HANDLERS
    if len(handlers) != 1:
        message = f"{at[-1]} does one thing, not {len(handlers)}"
        second = [kind for kind in fields if kind in handlers][1:2]
        known = "exec, httpGet, sleep" if at[-1] in _HOOKS else "exec, grpc, httpGet, tcpSocket"
        yield (*at, *second), message, f"write one of {known}"
    if "exec" in handlers and not fields["exec"].get("command"):
        yield (*at, "exec", "command"), "exec has no command", "add command: [check]"
    grace = body.pod.get("terminationGracePeriodSeconds", _GRACE)
    seconds = fields.get("sleep", {}).get("seconds", 0)
    if not 0 <= seconds <= grace:
        message = f"sleep is {seconds} seconds, and terminationGracePeriodSeconds {grace}"
        yield (*at, "sleep"), message, f"write 0 to {grace}"
    for kind in sorted(handlers & {"grpc", "httpGet", "tcpSocket"}):
        port = fields[kind].get("port")
        if port is not None and not is_port(port):
            message = f"{shown(port)} is no port"
            yield (*at, kind, "port"), message, "write a number from 1 to 65535, or a port's name"

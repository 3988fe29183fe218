"""What the API server rejects in probes and lifecycle hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.checks.containers import is_port
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body, Container
    from openfero_gitops.domain.rule import Pointer

_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS: Final = ("postStart", "preStop")
_ACTIONS: Final = frozenset({"exec", "grpc", "httpGet", "sleep", "tcpSocket"})
_DEFAULT_GRACE_SECONDS: Final = 30
_NUMBERS: Final = (
    "failureThreshold",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
)


@check(
    kubernetes_error(
        "probe",
        "A probe must have one action and valid settings, in a container that keeps running.",
        "delete it",
    )
)
def _probe(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for kind in _PROBES:
            probe = container.fields.get(kind)
            if probe is None:
                continue
            pointer = (*container.pointer, kind)
            if _runs_to_completion(container):
                message = f"an init container without restartPolicy: Always cannot have a {kind}"
                yield pointer, message, ""
            yield from _action(pointer, probe, body)
            for field in _NUMBERS:
                if probe.get(field, 0) < 0:
                    message = f"{field} must not be negative, but is {probe[field]}"
                    yield (*pointer, field), message, ""
            grace_seconds = probe.get("terminationGracePeriodSeconds")
            if grace_seconds is not None and (kind == "readinessProbe" or grace_seconds < 1):
                message = (
                    "a readinessProbe cannot have a terminationGracePeriodSeconds"
                    if grace_seconds > 0
                    else f"terminationGracePeriodSeconds must be at least 1, but is {grace_seconds}"
                )
                yield (*pointer, "terminationGracePeriodSeconds"), message, ""
            if kind != "readinessProbe" and probe.get("successThreshold", 1) > 1:
                message = f"the successThreshold of a {kind} must be 1"
                yield (*pointer, "successThreshold"), message, ""


@check(
    kubernetes_error(
        "lifecycle",
        "A lifecycle hook must have one action, in a container that keeps running.",
        "delete it",
    )
)
def _lifecycle(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        hooks = container.fields.get("lifecycle", {})
        pointer = (*container.pointer, "lifecycle")
        if hooks and _runs_to_completion(container):
            message = "an init container without restartPolicy: Always cannot have lifecycle hooks"
            yield pointer, message, ""
        for kind in _HOOKS:
            if kind in hooks:
                yield from _action((*pointer, kind), hooks[kind], body)


def _runs_to_completion(container: Container) -> bool:
    return container.is_init and container.fields.get("restartPolicy") != "Always"


def _action(pointer: Pointer, fields: Mapping[str, Any], body: Body) -> Iterator[Breach]:
    actions = [kind for kind in fields if kind in _ACTIONS]
    if len(actions) != 1:
        message = f"{pointer[-1]} must have exactly one action, not {len(actions)}"
        is_hook = pointer[-1] in _HOOKS
        choices = "exec, httpGet, sleep" if is_hook else "exec, grpc, httpGet, tcpSocket"
        yield (*pointer, *actions[1:2]), message, f"write one of {choices}"
    if "exec" in actions and not fields["exec"].get("command"):
        yield (*pointer, "exec", "command"), "exec has no command", "add command: [check]"
    grace_seconds = body.pod.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    seconds = fields.get("sleep", {}).get("seconds", 0)
    if not 0 <= seconds <= grace_seconds:
        message = (
            f"sleep of {seconds} seconds is not within terminationGracePeriodSeconds:"
            f" {grace_seconds}"
        )
        yield (*pointer, "sleep"), message, f"write 0 to {grace_seconds}"
    for kind in sorted({"grpc", "httpGet", "tcpSocket"}.intersection(actions)):
        port = fields[kind].get("port")
        if port is not None and not is_port(port):
            message = f"{shown(port)} is not a valid port"
            suggestion = "write a number from 1 to 65535 or the name of a port"
            yield (*pointer, kind, "port"), message, suggestion

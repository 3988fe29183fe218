"""What the API server rejects in a Pod for Linux or Windows because the other one has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

_CONTEXT: Final = "securityContext"
_NOT_WINDOWS: Final = (
    "appArmorProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsUser",
    "seccompProfile",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "supplementalGroups",
    "supplementalGroupsPolicy",
)
_NOT_WINDOWS_POD: Final = ("hostUsers", "shareProcessNamespace")
_NOT_WINDOWS_CONTAINER: Final = (
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsUser",
    "seccompProfile",
    "seLinuxOptions",
)
_WINDOWS: Final = "windowsOptions"


@check(
    kubernetes_error(
        "operating-system",
        "A Pod must use only fields of the operating system in its `os.name`.",
        "delete it",
    )
)
def _operating_system(body: Body) -> Iterator[Breach]:
    system = body.pod.get("os", {}).get("name")
    for pointer, fields in body.pod_and_containers():
        context = fields.get(_CONTEXT, {})
        if system == "linux" and _WINDOWS in context:
            message = f"{_WINDOWS} is only valid with os: {{name: windows}}"
            yield (*pointer, _CONTEXT, _WINDOWS), message, ""
        if system == "windows":
            for linux_field in _linux_fields(pointer, fields, context):
                message = f"{linux_field[-1]} is not valid with os: {{name: windows}}"
                yield linux_field, message, ""


def _linux_fields(
    pointer: Pointer, fields: Mapping[str, Any], context: Mapping[str, Any]
) -> Iterator[Pointer]:
    """The fields that are set but not valid on Windows."""
    is_pod = pointer == POD
    for field in _NOT_WINDOWS if is_pod else _NOT_WINDOWS_CONTAINER:
        if field in context:
            yield (*pointer, _CONTEXT, field)
    if is_pod:
        if context.get("sysctls"):
            yield (*pointer, _CONTEXT, "sysctls")
        for field in _NOT_WINDOWS_POD:
            if field in fields:
                yield (*pointer, field)
        for field in ("hostPID", "hostIPC"):
            if fields.get(field):
                yield (*pointer, field)


@check(
    kubernetes_error(
        "host-process",
        "Either all or none of the containers of a Windows Pod must be HostProcess containers.",
    )
)
def _host_process(body: Body) -> Iterator[Breach]:
    pod_value = body.pod.get(_CONTEXT, {}).get(_WINDOWS, {}).get("hostProcess")
    values = {
        container.pointer: container.fields.get(_CONTEXT, {}).get(_WINDOWS, {}).get("hostProcess")
        for container in body.containers
    }
    for pointer, value in values.items():
        if pod_value is not None and value is not None and value != pod_value:
            message = f"hostProcess contradicts the Pod's hostProcess: {str(pod_value).lower()}"
            yield (*pointer, _CONTEXT, _WINDOWS, "hostProcess"), message, "delete it here"
    effective = [bool(pod_value if value is None else value) for value in values.values()]
    if any(effective) and not all(effective):
        message = "some containers are HostProcess containers and some are not"
        yield POD, message, "set hostProcess: true for the Pod, or for no container"
    if any(effective) and not body.pod.get("hostNetwork"):
        message = "HostProcess containers require hostNetwork: true"
        yield (*POD, "hostNetwork"), message, "write hostNetwork: true"

"""What the API server refuses in a Pod for one operating system that belongs to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.rule import Pointer, error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body

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
    error(
        "operating-system",
        "A Pod must use only fields of the operating system in its `os.name`.",
        API_SERVER_REJECTS,
    )
)
def _operating_system(body: Body) -> Iterator[Breach]:
    system = body.pod.get("os", {}).get("name")
    for pointer, fields in ((POD, body.pod), *((c.pointer, c.fields) for c in body.containers)):
        context = fields.get(_CONTEXT, {})
        if system == "linux" and _WINDOWS in context:
            yield (
                (*pointer, _CONTEXT, _WINDOWS),
                "windowsOptions are for os: {name: windows}",
                f"delete {_WINDOWS}",
            )
        if system == "windows":
            yield from _of_linux(pointer, fields, context)


def _of_linux(
    pointer: Pointer, fields: Mapping[str, Any], context: Mapping[str, Any]
) -> Iterator[Breach]:
    of_pod = pointer == POD
    for field in _NOT_WINDOWS if of_pod else _NOT_WINDOWS_CONTAINER:
        if field in context:
            yield (
                (*pointer, _CONTEXT, field),
                f"{field} is not for os: {{name: windows}}",
                f"delete {field}",
            )
    if not of_pod:
        return
    if context.get("sysctls"):
        yield (
            (*pointer, _CONTEXT, "sysctls"),
            "sysctls are not for os: {name: windows}",
            "delete them",
        )
    for field in _NOT_WINDOWS_POD:
        if field in fields:
            yield (*pointer, field), f"{field} is not for os: {{name: windows}}", f"delete {field}"
    for field in ("hostPID", "hostIPC"):
        if fields.get(field):
            yield (*pointer, field), f"{field} is not for os: {{name: windows}}", f"delete {field}"


@check(
    error(
        "host-process",
        "Either all or none of the containers of a Windows Pod must be HostProcess containers.",
        API_SERVER_REJECTS,
    )
)
def _host_process(body: Body) -> Iterator[Breach]:
    of_pod = body.pod.get(_CONTEXT, {}).get(_WINDOWS, {}).get("hostProcess")
    own = {
        container.pointer: container.fields.get(_CONTEXT, {}).get(_WINDOWS, {}).get("hostProcess")
        for container in body.containers
    }
    for pointer, said in own.items():
        if of_pod is not None and said is not None and said != of_pod:
            message = f"the Pod says hostProcess: {str(of_pod).lower()}"
            yield (*pointer, _CONTEXT, _WINDOWS, "hostProcess"), message, "delete it here"
    among = [bool(of_pod if said is None else said) for said in own.values()]
    if any(among) and not all(among):
        message = "some containers are host processes, and some are not"
        yield POD, message, "write hostProcess: true for the Pod, or for none"
    if any(among) and not body.pod.get("hostNetwork"):
        message = "host processes need the node's network"
        yield (*POD, "hostNetwork"), message, "write hostNetwork: true"

"""What the API server refuses in containers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.pipeline.body import POD
from openfero_gitops.pipeline.dns import is_data_key
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openfero_gitops.pipeline.body import Body


@check(error("no-containers", "A Job's Pod has a container."))
def _no_containers(body: Body) -> Iterator[Breach]:
    if not body.pod.get("containers"):
        yield (*POD, "containers"), "the Pod has no containers", "add one"


@check(error("no-image", "A container names its image."))
def _no_image(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        image = container.fields.get("image", "")
        if not image or image != image.strip():
            what = "surrounds its image with spaces" if image else "names no image"
            yield (
                (*container.pointer, "image"),
                f"the container {shown(container.name)} {what}",
                "write image: REGISTRY/NAME:TAG",
            )


@check(error("not-in-a-template", "A Pod template has no ephemeral containers."))
def _not_in_a_template(body: Body) -> Iterator[Breach]:
    if body.pod.get("ephemeralContainers"):
        yield (
            (*POD, "ephemeralContainers"),
            "ephemeral containers are added to a running Pod, not written in a template",
            "make it an init container",
        )


@check(error("duplicate-in-pod", "Containers, volumes and mount paths of a Pod stand once each."))
def _duplicate_in_pod(body: Body) -> Iterator[Breach]:
    named = [(container.pointer, container.fields.get("name")) for container in body.containers]
    yield from _twice("container", named)
    yield from _twice("volume", [(at, volume.get("name")) for at, volume in body.volumes])
    for container in body.containers:
        yield from _twice(
            "mount path",
            [
                ((*container.pointer, "volumeMounts", index), mount.get("mountPath"))
                for index, mount in enumerate(container.fields.get("volumeMounts", ()))
            ],
        )


def _twice(kind: str, found: Iterable[tuple[Pointer, str | None]]) -> Iterator[Breach]:
    seen: set[str] = set()
    for pointer, name in found:
        if not name:
            continue
        if name in seen:
            yield pointer, f"there are two of the {kind} {shown(name)}", "rename one of them"
        seen.add(name)


@check(error("env-entry", "A variable has a proper name and either a value or one source."))
def _env_entry(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for index, variable in enumerate(container.fields.get("env", ())):
            at = (*container.pointer, "env", index)
            name = variable.get("name")
            if name is not None and not _is_variable(name):
                message = f"{shown(name)} is no variable's name: printable ASCII without ="
                yield (*at, "name"), message, ""
            if "valueFrom" in variable:
                if variable.get("value"):
                    yield (*at, "valueFrom"), "a variable has value or valueFrom, not both", ""
                yield from _source((*at, "valueFrom"), variable["valueFrom"])
        for index, source in enumerate(container.fields.get("envFrom", ())):
            yield from _object((*container.pointer, "envFrom", index), source)


def _object(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with an item of `envFrom`."""
    kinds = source.keys() & {"configMapRef", "secretRef"}
    if len(kinds) != 1:
        yield at, "envFrom takes one of configMapRef and secretRef", ""
    for kind in kinds:
        if not source[kind].get("name"):
            yield (*at, kind, "name"), f"{kind} names no object", "add its name"
    prefix = source.get("prefix")
    if prefix and not _is_variable(prefix):
        yield (*at, "prefix"), f"{shown(prefix)} begins no variable's name", ""


def _source(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with a `valueFrom`."""
    if len(source) != 1:
        yield at, f"valueFrom has one source, not {len(source)}", ""
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind not in source:
            continue
        reference = source[kind]
        if not reference.get("name"):
            yield (*at, kind, "name"), f"{kind} names no object", "add its name"
        key = reference.get("key")
        if key is not None and not is_data_key(key):
            yield (*at, kind, "key"), f"{shown(key)} is no key: letters, digits, -, _ and .", ""
    path = source.get("fieldRef", {}).get("fieldPath")
    if path is not None and not _FIELD_PATH.fullmatch(path):
        yield (
            (*at, "fieldRef", "fieldPath"),
            f"a variable cannot be read from {shown(path)}",
            "write metadata.name, metadata.namespace, spec.nodeName or status.podIP",
        )
    resource = source.get("resourceFieldRef", {}).get("resource")
    if resource is not None and not _RESOURCE_FIELD.fullmatch(resource):
        yield (
            (*at, "resourceFieldRef", "resource"),
            f"a variable cannot be read from {shown(resource)}",
            "write limits.cpu, limits.memory, requests.cpu or requests.memory",
        )


_FIELD_PATH: Final = re.compile(
    r"metadata\.(?:name|namespace|uid|(?:labels|annotations)\['.+'\])"
    r"|spec\.(?:nodeName|serviceAccountName)|status\.(?:hostIPs?|podIPs?)"
)
_RESOURCE_FIELD: Final = re.compile(
    r"(?:limits|requests)\.(?:cpu|memory|ephemeral-storage|hugepages-.+)"
)


def _is_variable(name: str) -> bool:
    return bool(name) and all(" " <= character <= "~" and character != "=" for character in name)


@check(error("port", "A port is a number from 1 to 65535, or has a proper name."))
def _port(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        ports = list(enumerate(container.fields.get("ports", ())))
        for index, port in ports:
            at = (*container.pointer, "ports", index)
            for field in ("containerPort", "hostPort"):
                number = port.get(field)
                if number is not None and not is_port(number) and (number or field[0] == "c"):
                    yield (*at, field), f"{number} is no port", ""
            name = port.get("name")
            if name and not is_port(name):
                message = f"{shown(name)} is no port's name: at most 15 of a-z, 0-9 and -"
                yield (*at, "name"), message, ""
        at = (*container.pointer, "ports")
        yield from _twice("port", [((*at, index), port.get("name")) for index, port in ports])


def is_port(value: int | str) -> bool:
    """Whether Kubernetes takes it as a port's number or name."""
    if isinstance(value, int):
        return 1 <= value <= 65_535  # noqa: PLR2004
    named = len(value) <= 15 and re.fullmatch(r"[a-z0-9](?:-?[a-z0-9])*", value)  # noqa: PLR2004
    return bool(named) and not value.replace("-", "").isdecimal()


@check(error("security-context", "A security context is complete and does not contradict itself."))
def _security_context(body: Body) -> Iterator[Breach]:
    for pointer, fields in ((POD, body.pod), *((c.pointer, c.fields) for c in body.containers)):
        at = (*pointer, "securityContext")
        context = fields.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is False:
            added = context.get("capabilities", {}).get("add", ())
            for what, holds in (
                ("privileged: true", context.get("privileged") is True),
                ("the capability CAP_SYS_ADMIN", "CAP_SYS_ADMIN" in added),
            ):
                if holds:
                    message = f"allowPrivilegeEscalation: false contradicts {what}"
                    yield (*at, "allowPrivilegeEscalation"), message, ""
        for field in ("seccompProfile", "appArmorProfile"):
            profile = context.get(field)
            if profile is not None and (profile.get("type") == "Localhost") is not bool(
                profile.get("localhostProfile")
            ):
                message = "localhostProfile stands beside type: Localhost, and nowhere else"
                yield (*at, field), message, ""

"""What the API server rejects in containers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, items_of
from openfero_gitops.catalog.validation.checks.job import RESTART_POLICY
from openfero_gitops.catalog.validation.rules import Breach, check, duplicates, kubernetes_error
from openfero_gitops.domain.dns import is_data_key, is_qualified_name
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

_VARIABLE_CHARACTERS: Final = "write letters, digits and _"
_FIELD_PATH: Final = re.compile(
    r"metadata\.(?:name|namespace|uid)"
    r"|spec\.(?:nodeName|serviceAccountName)|status\.(?:hostIPs?|podIPs?)"
)
_SUBSCRIPT: Final = re.compile(r"metadata\.(?P<kind>labels|annotations)\['(?P<key>.+)'\]")
_CPU_UNITS: Final = frozenset({Decimal("0.001"), Decimal(1)})
_UNITS: Final = frozenset(Decimal(base) ** power for base in (1000, 1024) for power in range(7))
_RESOURCE_FIELD: Final = re.compile(
    r"(?:limits|requests)\.(?:cpu|memory|ephemeral-storage|hugepages-.+)"
)
_PORT_NAME: Final = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_MAX_PORT_NAME_CHARACTERS: Final = 15
_MAX_PORT: Final = 65_535
_MAX_EXIT_CODES: Final = 255


@check(
    kubernetes_error(
        "no-containers", "A Pod must have a container.", "add containers: [{name: …, image: …}]"
    )
)
def _no_containers(body: Body) -> Iterator[Breach]:
    if not body.pod.get("containers"):
        yield (*POD, "containers"), "the Pod has no containers", ""


@check(
    kubernetes_error(
        "no-image", "A container must have an image.", "write image: REGISTRY/NAME:TAG"
    )
)
def _no_image(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        image = container.fields.get("image", "")
        if not image:
            message = f"container {shown(container.name)} has no image"
            yield (*container.pointer, "image"), message, ""
        elif image != image.strip():
            message = f"image {shown(image)} begins or ends with spaces"
            yield (*container.pointer, "image"), message, ""


@check(
    kubernetes_error(
        "not-in-a-template",
        "A Pod template must not have ephemeral containers.",
        "make it an init container",
    )
)
def _not_in_a_template(body: Body) -> Iterator[Breach]:
    if body.pod.get("ephemeralContainers"):
        yield (
            (*POD, "ephemeralContainers"),
            "ephemeral containers can only be added to a running Pod",
            "",
        )


@check(
    kubernetes_error(
        "duplicate-in-pod",
        "The names of containers, volumes and ports, and mount paths, must be unique.",
        "rename one of them",
    )
)
def _duplicate_in_pod(body: Body) -> Iterator[Breach]:
    containers = [(container.pointer, container.fields) for container in body.containers]
    yield from duplicates("container name", "name", containers)
    yield from duplicates("volume name", "name", body.volumes)
    for container in body.containers:
        mounts = items_of(container.pointer, container.fields, "volumeMounts")
        yield from duplicates("mount path", "mountPath", mounts)


@check(
    kubernetes_error(
        "env-entry",
        "An environment variable must have a valid name and either a value or one source.",
    )
)
def _env_entry(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for pointer, variable in items_of(container.pointer, container.fields, "env"):
            name = variable.get("name")
            if name is not None and not _is_variable(name):
                message = f"{shown(name)} is not a valid variable name: printable ASCII without ="
                yield (*pointer, "name"), message, _VARIABLE_CHARACTERS
            if "valueFrom" in variable:
                if variable.get("value"):
                    message = f"variable {shown(name)} has both value and valueFrom"
                    yield (*pointer, "value"), message, "delete one of them"
                yield from _source((*pointer, "valueFrom"), variable["valueFrom"])
        for pointer, source in items_of(container.pointer, container.fields, "envFrom"):
            yield from _object(pointer, source)


def _object(pointer: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """Check an item of `envFrom`."""
    kinds = source.keys() & {"configMapRef", "secretRef"}
    if len(kinds) != 1:
        message = (
            f"an item of envFrom must have one of configMapRef and secretRef, not {len(kinds)}"
        )
        yield pointer, message, "write a separate item for each"
    for kind in sorted(kinds):
        if not source[kind].get("name"):
            yield (*pointer, kind, "name"), f"{kind} has no name", "add name: …"
    prefix = source.get("prefix")
    if prefix and not _is_variable(prefix):
        message = f"{shown(prefix)} is not a valid beginning of a variable name"
        yield (*pointer, "prefix"), message, _VARIABLE_CHARACTERS


def _source(pointer: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """Check a `valueFrom`."""
    if len(source) != 1:
        message = f"valueFrom must have exactly one source, not {len(source)}"
        yield pointer, message, "for example secretKeyRef: {name: …, key: …}"
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind not in source:
            continue
        reference = source[kind]
        if not reference.get("name"):
            yield (*pointer, kind, "name"), f"{kind} has no name", "add name: …"
        key = reference.get("key")
        if key is not None and not is_data_key(key):
            message = f"{shown(key)} is not a valid key of a {kind.removesuffix('KeyRef')}"
            yield (*pointer, kind, "key"), message, "write letters, digits, -, _ and ."
    path = source.get("fieldRef", {}).get("fieldPath")
    if path is not None and not (_FIELD_PATH.fullmatch(path) or is_subscript(path)):
        yield (
            (*pointer, "fieldRef", "fieldPath"),
            f"{shown(path)} is not available as a variable",
            "write metadata.name, metadata.namespace, spec.nodeName or status.podIP",
        )
    yield from resource_field((*pointer, "resourceFieldRef"), source.get("resourceFieldRef", {}))


def is_subscript(path: str) -> bool:
    """Whether it selects one label or annotation: `metadata.labels['app']`."""
    match = _SUBSCRIPT.fullmatch(path)
    if match is None:
        return False
    key = match["key"]
    return is_qualified_name(key if match["kind"] == "labels" else key.lower())


def resource_field(pointer: Pointer, reference: Mapping[str, Any]) -> Iterator[Breach]:
    """Check a `resourceFieldRef`."""
    resource = reference.get("resource")
    if resource is None:
        return
    if not _RESOURCE_FIELD.fullmatch(resource):
        yield (
            (*pointer, "resource"),
            f"{shown(resource)} is not a resource of a container",
            "write limits.cpu, limits.memory, requests.cpu or requests.memory",
        )
        return
    try:
        divisor = parse_quantity(reference.get("divisor", 0))
    except ValueError:
        return  # reported by the rule field-format
    units = _CPU_UNITS if resource.endswith(".cpu") else _UNITS
    if divisor and divisor not in units:
        message = f"divisor {reference['divisor']} is not a unit of {resource}"
        suggestion = "write 1m or 1" if units is _CPU_UNITS else "write 1, 1k, 1Ki, 1M or 1Mi"
        yield (*pointer, "divisor"), message, suggestion


def _is_variable(name: str) -> bool:
    return bool(name) and all(" " <= character <= "~" and character != "=" for character in name)


@check(kubernetes_error("port", "A port must be a number from 1 to 65535 or a valid port name."))
def _port(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        ports = items_of(container.pointer, container.fields, "ports")
        for pointer, port in ports:
            for field in ("containerPort", "hostPort"):
                number = port.get(field)
                is_unset = field == "hostPort" and not number
                if number is not None and not is_port(number) and not is_unset:
                    message = f"{field} {number} is not a valid port"
                    yield (*pointer, field), message, "write a number from 1 to 65535"
            name = port.get("name")
            if name and not is_port(name):
                message = f"{shown(name)} is not a valid port name"
                suggestion = (
                    "write at most 15 characters of a-z, 0-9 and -, with at least one letter"
                )
                yield (*pointer, "name"), message, suggestion
        yield from duplicates("port name", "name", ports)


def is_port(value: int | str) -> bool:
    """Whether Kubernetes accepts it as the number or the name of a port."""
    if isinstance(value, int):
        return 1 <= value <= _MAX_PORT
    is_name = len(value) <= _MAX_PORT_NAME_CHARACTERS and _PORT_NAME.fullmatch(value)
    return bool(is_name) and not value.replace("-", "").isdecimal()


@check(kubernetes_error("security-context", "A `securityContext` must be complete and consistent."))
def _security_context(body: Body) -> Iterator[Breach]:
    for pointer, fields in body.pod_and_containers():
        at = (*pointer, "securityContext")
        context = fields.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is False:
            added = context.get("capabilities", {}).get("add", ())
            for setting, is_set in (
                ("privileged: true", context.get("privileged") is True),
                ("the capability CAP_SYS_ADMIN", "CAP_SYS_ADMIN" in added),
            ):
                if is_set:
                    message = f"allowPrivilegeEscalation: false contradicts {setting}"
                    yield (*at, "allowPrivilegeEscalation"), message, "delete one of them"
        for field in ("seccompProfile", "appArmorProfile"):
            profile = context.get(field, {})
            if "type" in profile and (profile["type"] == "Localhost") is not bool(
                profile.get("localhostProfile")
            ):
                message = f"{field} must have both type: Localhost and localhostProfile, or neither"
                yield (*at, field), message, "write type: RuntimeDefault without localhostProfile"


@check(RESTART_POLICY)
def _restart_rules(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        rules = items_of(container.pointer, container.fields, "restartPolicyRules")
        if rules and not container.fields.get("restartPolicy"):
            message = "restartPolicyRules require the container's restartPolicy"
            yield (*container.pointer, "restartPolicyRules"), message, "add restartPolicy: Never"
        for pointer, rule in rules:
            if "exitCodes" not in rule:
                message = "the restart rule has no exitCodes"
                yield pointer, message, "add exitCodes: {operator: In, values: [42]}"
            if len(rule.get("exitCodes", {}).get("values", ())) > _MAX_EXIT_CODES:
                message = f"a restart rule can have at most {_MAX_EXIT_CODES} exit codes"
                yield (*pointer, "exitCodes", "values"), message, "delete some of them"

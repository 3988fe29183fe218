"""What the API server refuses in containers."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.checks.job import RESTART_POLICY
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.dns import is_data_key, is_qualified_name
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body


@check(
    error(
        "no-containers",
        "A Pod must have a container.",
        API_SERVER_REJECTS,
    )
)
def _no_containers(body: Body) -> Iterator[Breach]:
    if not body.pod.get("containers"):
        yield (*POD, "containers"), "the Pod has no containers", "add one"


@check(
    error(
        "no-image",
        "A container must have an image.",
        API_SERVER_REJECTS,
    )
)
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


@check(
    error(
        "not-in-a-template",
        "A Pod template must not have ephemeral containers.",
        API_SERVER_REJECTS,
    )
)
def _not_in_a_template(body: Body) -> Iterator[Breach]:
    if body.pod.get("ephemeralContainers"):
        yield (
            (*POD, "ephemeralContainers"),
            "ephemeral containers are added to a running Pod, not written in a template",
            "make it an init container",
        )


@check(
    error(
        "duplicate-in-pod",
        "The names of containers, volumes and ports, and mount paths, must be unique.",
        API_SERVER_REJECTS,
    )
)
def _duplicate_in_pod(body: Body) -> Iterator[Breach]:
    containers = [(container.pointer, container.fields) for container in body.containers]
    yield from _twice("container", "name", containers)
    yield from _twice("volume", "name", body.volumes)
    for container in body.containers:
        yield from _twice(
            "mount path",
            "mountPath",
            [
                ((*container.pointer, "volumeMounts", index), mount)
                for index, mount in enumerate(container.fields.get("volumeMounts", ()))
            ],
        )


def _twice(
    kind: str, field: str, found: Iterable[tuple[Pointer, Mapping[str, Any]]]
) -> Iterator[Breach]:
    seen: set[str] = set()
    for at, one in found:
        name = one.get(field)
        if not name:
            continue
        if name in seen:
            yield (*at, field), f"there are two of the {kind} {shown(name)}", "rename one of them"
        seen.add(name)


@check(
    error(
        "env-entry",
        "An environment variable must have a valid name and either a value or one source.",
        API_SERVER_REJECTS,
    )
)
def _env_entry(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for index, variable in enumerate(container.fields.get("env", ())):
            at = (*container.pointer, "env", index)
            name = variable.get("name")
            if name is not None and not _is_variable(name):
                message = f"{shown(name)} is no variable's name: printable ASCII without ="
                yield (*at, "name"), message, "write letters, digits and _"
            if "valueFrom" in variable:
                if variable.get("value"):
                    message = f"the variable {shown(name)} has both value and valueFrom"
                    yield (*at, "value"), message, "delete one of them"
                yield from _source((*at, "valueFrom"), variable["valueFrom"])
        for index, source in enumerate(container.fields.get("envFrom", ())):
            yield from _object((*container.pointer, "envFrom", index), source)


def _object(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with an item of `envFrom`."""
    kinds = source.keys() & {"configMapRef", "secretRef"}
    if len(kinds) != 1:
        message = f"an item of envFrom has one of configMapRef and secretRef, not {len(kinds)}"
        yield at, message, "give each its own item"
    for kind in sorted(kinds):
        if not source[kind].get("name"):
            yield (*at, kind, "name"), f"{kind} names no object", "add its name"
    prefix = source.get("prefix")
    if prefix and not _is_variable(prefix):
        message = f"{shown(prefix)} begins no variable's name"
        yield (*at, "prefix"), message, "write letters, digits and _"


def _source(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with a `valueFrom`."""
    if len(source) != 1:
        message = f"valueFrom has one source, not {len(source)}"
        yield at, message, "write one: secretKeyRef: {name: …, key: …}, for example"
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind not in source:
            continue
        reference = source[kind]
        if not reference.get("name"):
            yield (*at, kind, "name"), f"{kind} names no object", "add its name"
        key = reference.get("key")
        if key is not None and not is_data_key(key):
            message = f"{shown(key)} is no key of a {kind.removesuffix('KeyRef')}"
            yield (*at, kind, "key"), message, "write letters, digits, -, _ and ."
    path = source.get("fieldRef", {}).get("fieldPath")
    if path is not None and not (_FIELD_PATH.fullmatch(path) or is_subscript(path)):
        yield (
            (*at, "fieldRef", "fieldPath"),
            f"a variable cannot be read from {shown(path)}",
            "write metadata.name, metadata.namespace, spec.nodeName or status.podIP",
        )
    yield from resource_field((*at, "resourceFieldRef"), source.get("resourceFieldRef", {}))


def is_subscript(path: str) -> bool:
    """Whether it names one label or annotation: `metadata.labels['app']`."""
    found = _SUBSCRIPT.fullmatch(path)
    if found is None:
        return False
    key = found["key"]
    return is_qualified_name(key if found["kind"] == "labels" else key.lower())


def resource_field(at: Pointer, reference: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with a `resourceFieldRef`."""
    resource = reference.get("resource")
    if resource is None:
        return
    if not _RESOURCE_FIELD.fullmatch(resource):
        yield (
            (*at, "resource"),
            f"nothing can be read from {shown(resource)}",
            "write limits.cpu, limits.memory, requests.cpu or requests.memory",
        )
        return
    try:
        divisor = parse_quantity(reference.get("divisor", 0))
    except ValueError:
        return  # (found as a quantity that is none)
    units = _CPU_UNITS if resource.endswith(".cpu") else _UNITS
    if divisor and divisor not in units:
        message = f"the divisor {reference['divisor']} is no unit of {resource}"
        suggestion = "write 1m or 1" if units is _CPU_UNITS else "write 1, 1k, 1Ki, 1M, 1Mi …"
        yield (*at, "divisor"), message, suggestion


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


def _is_variable(name: str) -> bool:
    return bool(name) and all(" " <= character <= "~" and character != "=" for character in name)


@check(
    error(
        "port",
        "A port must be a number from 1 to 65535 or a valid port name.",
        API_SERVER_REJECTS,
    )
)
def _port(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        ports = list(enumerate(container.fields.get("ports", ())))
        for index, port in ports:
            at = (*container.pointer, "ports", index)
            for field in ("containerPort", "hostPort"):
                number = port.get(field)
                if number is not None and not is_port(number) and (number or field[0] == "c"):
                    yield (*at, field), f"{number} is no port", "write a number from 1 to 65535"
            name = port.get("name")
            if name and not is_port(name):
                message = f"{shown(name)} is no port's name"
                suggestion = "write at most 15 of a-z, 0-9 and -, a letter among them"
                yield (*at, "name"), message, suggestion
        at = (*container.pointer, "ports")
        yield from _twice("port", "name", [((*at, index), port) for index, port in ports])


def is_port(value: int | str) -> bool:
    """Whether Kubernetes takes it as a port's number or name."""
    if isinstance(value, int):
        return 1 <= value <= 65_535  # noqa: PLR2004
    named = len(value) <= 15 and re.fullmatch(r"[a-z0-9](?:-?[a-z0-9])*", value)  # noqa: PLR2004
    return bool(named) and not value.replace("-", "").isdecimal()


@check(
    error(
        "security-context",
        "A `securityContext` must be complete and consistent.",
        API_SERVER_REJECTS,
    )
)
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
                    yield (*at, "allowPrivilegeEscalation"), message, "delete one of them"
        for field in ("seccompProfile", "appArmorProfile"):
            profile = context.get(field, {})
            if "type" in profile and (profile["type"] == "Localhost") is not bool(
                profile.get("localhostProfile")
            ):
                message = (
                    f"{field}: a localhostProfile goes with type: Localhost, and the type with it"
                )
                yield (*at, field), message, "write type: RuntimeDefault and no profile"


@check(RESTART_POLICY)
def _restart_rules(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        at = (*container.pointer, "restartPolicyRules")
        rules = container.fields.get("restartPolicyRules", ())
        if rules and not container.fields.get("restartPolicy"):
            message = "restartPolicyRules need a restartPolicy beside them"
            yield at, message, "write restartPolicy: Never"
        for index, rule in enumerate(rules):
            if "exitCodes" not in rule:
                message = "a restart rule does not say for which exit codes"
                yield (*at, index), message, "add exitCodes: {operator: In, values: [42]}"
            if len(rule.get("exitCodes", {}).get("values", ())) > 255:  # noqa: PLR2004
                message = "a restart rule has at most 255 exit codes"
                yield (*at, index, "exitCodes", "values"), message, "name fewer"

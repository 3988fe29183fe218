"""What the API server refuses in containers, and in the volumes that they mount."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from openfero_gitops.pipeline.body import POD
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openfero_gitops.pipeline.body import Body


@check(error("no-containers", "A Job's Pod has a container."))
def _no_containers(body: Body) -> Iterator[Breach]:
    if "spec" in body.template and not body.pod.get("containers"):
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


@check(error("duplicate-in-pod", "Containers, volumes and mount paths of a Pod differ in name."))
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
        if name is None:
            continue
        if name in seen:
            yield pointer, f"there are two of the {kind} {shown(name)}", "rename one of them"
        seen.add(name)


@check(error("volume-mount", "A container mounts a volume that the Pod has, at a proper path."))
def _volume_mount(body: Body) -> Iterator[Breach]:
    volumes = {volume.get("name") for _, volume in body.volumes}
    for container in body.containers:
        for index, mount in enumerate(container.fields.get("volumeMounts", ())):
            at = (*container.pointer, "volumeMounts", index)
            name = mount.get("name")
            if name is not None and name not in volumes:
                meant = nearest(name, (volume for volume in volumes if volume))
                yield (
                    (*at, "name"),
                    f"the Pod has no volume {shown(name)}",
                    f"did you mean {meant}?" if meant else "add it under volumes",
                )
            path = mount.get("mountPath")
            if path is not None and (not path or ":" in path):
                yield (*at, "mountPath"), f"{shown(path)} is no path to mount at", ""
            for field in ("subPath", "subPathExpr"):
                below = mount.get(field, "")
                if below.startswith("/") or ".." in below.split("/"):
                    yield (
                        (*at, field),
                        f"{field} stays below the volume: no leading / and no ..",
                        "",
                    )
            if mount.get("subPath") and mount.get("subPathExpr"):
                yield (*at, "subPathExpr"), "a mount has subPath or subPathExpr, not both", ""


@check(error("volume-source", "A volume has one source."))
def _volume_source(body: Body) -> Iterator[Breach]:
    for at, volume in body.volumes:
        sources = [key for key in volume if key != "name"]
        if len(sources) != 1:
            said = f"{len(sources)} sources: {', '.join(sources)}" if sources else "no source"
            yield at, f"the volume {shown(volume.get('name', ''))} has {said}", "write one of them"
        host_path = volume.get("hostPath")
        if host_path is not None and (
            not host_path.get("path") or ".." in host_path["path"].split("/")
        ):
            yield (*at, "hostPath", "path"), "a path on the host is not empty and has no ..", ""


@check(error("env-entry", "A variable has a proper name and either a value or one source."))
def _env_entry(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for index, variable in enumerate(container.fields.get("env", ())):
            at = (*container.pointer, "env", index)
            name = variable.get("name")
            if name is not None and not _is_variable(name):
                yield (
                    (*at, "name"),
                    f"{shown(name)} is no variable's name: printable ASCII without =",
                    "",
                )
            source = variable.get("valueFrom")
            if source is not None and variable.get("value"):
                yield (*at, "valueFrom"), "a variable has value or valueFrom, not both", ""
            if source is not None and len(source) != 1:
                yield (*at, "valueFrom"), f"valueFrom has one source, not {len(source)}", ""
        for index, source in enumerate(container.fields.get("envFrom", ())):
            at = (*container.pointer, "envFrom", index)
            if len(source.keys() & {"configMapRef", "secretRef"}) != 1:
                yield at, "envFrom takes one of configMapRef and secretRef", ""
            prefix = source.get("prefix")
            if prefix and not _is_variable(prefix):
                yield (*at, "prefix"), f"{shown(prefix)} begins no variable's name", ""


def _is_variable(name: str) -> bool:
    return bool(name) and all(" " <= character <= "~" and character != "=" for character in name)


@check(error("port", "A port is a number from 1 to 65535."))
def _port(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        for index, port in enumerate(container.fields.get("ports", ())):
            at = (*container.pointer, "ports", index)
            for field in ("containerPort", "hostPort"):
                number = port.get(field)
                if number is not None and not 1 <= number <= 65_535:  # noqa: PLR2004
                    yield (*at, field), f"{number} is no port", ""
            name = port.get("name")
            if name and (not re.fullmatch(r"[a-z0-9](?:-?[a-z0-9])*", name) or len(name) > 15):  # noqa: PLR2004
                yield (
                    (*at, "name"),
                    f"{shown(name)} is no port's name: at most 15 lower-case letters, digits, -",
                    "",
                )


@check(error("security-context", "A security context does not contradict itself."))
def _security_context(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        context = container.fields.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            continue
        at = (*container.pointer, "securityContext", "allowPrivilegeEscalation")
        added = context.get("capabilities", {}).get("add", ())
        for what, holds in (
            ("privileged: true", context.get("privileged") is True),
            ("the capability CAP_SYS_ADMIN", "CAP_SYS_ADMIN" in added),
        ):
            if holds:
                yield at, f"allowPrivilegeEscalation: false contradicts {what}", ""

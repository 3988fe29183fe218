"""What the API server refuses in volumes and where they are mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.pipeline.checks.names import OBJECTS
from openfero_gitops.pipeline.quantity import parse_quantity
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.pipeline.body import Body

_WIDEST_MODE: Final = 0o777
_SHORTEST_TOKEN: Final = 600


@check(error("volume-mount", "A container mounts a volume that the Pod has, at a proper path."))
def _volume_mount(body: Body) -> Iterator[Breach]:
    volumes = {volume.get("name") for _, volume in body.volumes}
    for container in body.containers:
        privileged = container.fields.get("securityContext", {}).get("privileged")
        for index, mount in enumerate(container.fields.get("volumeMounts", ())):
            at = (*container.pointer, "volumeMounts", index)
            name = mount.get("name")
            if name is not None and name not in volumes:
                meant = nearest(name, (volume for volume in volumes if volume))
                suggestion = f"did you mean {meant}?" if meant else "add it under volumes"
                yield (*at, "name"), f"the Pod has no volume {shown(name)}", suggestion
            if mount.get("mountPath") == "":
                yield (*at, "mountPath"), "a volume is mounted at a path", ""
            for field in ("subPath", "subPathExpr"):
                if not _is_below(mount.get(field, "")):
                    message = f"{field} stays below the volume: no leading / and no .."
                    yield (*at, field), message, ""
            if mount.get("subPath") and mount.get("subPathExpr"):
                yield (*at, "subPathExpr"), "a mount has subPath or subPathExpr, not both", ""
            if mount.get("mountPropagation") == "Bidirectional" and not privileged:
                message = "Bidirectional propagation needs a privileged container"
                yield (*at, "mountPropagation"), message, ""


@check(error("volume-source", "A volume has one source, and that is complete."))
def _volume_source(body: Body) -> Iterator[Breach]:
    for at, volume in body.volumes:
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            message = f"the volume {shown(volume.get('name', ''))} has {len(sources)} sources"
            yield at, f"{message}: {', '.join(sources)}", "write one of them"
        for kind, field in OBJECTS.items():
            if kind in volume:
                if not volume[kind].get(field):
                    yield (*at, kind, field), f"{kind} names no object", f"add {field}"
                yield from _files((*at, kind), volume[kind])
        yield from _files((*at, "downwardAPI"), volume.get("downwardAPI", {}))
        path = volume.get("hostPath", {}).get("path", "/")
        if not path or ".." in path.split("/"):
            yield (*at, "hostPath", "path"), "a path on the host is not empty and has no ..", ""
        yield from _size((*at, "emptyDir", "sizeLimit"), volume.get("emptyDir", {}))
        for index, source in enumerate(volume.get("projected", {}).get("sources", ())):
            yield from _projected((*at, "projected", "sources", index), source)


def _projected(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    if len(source) > 1:
        yield at, f"a projected source is one, not {len(source)}", ""
    for kind, inner in source.items():
        yield from _files((*at, kind), inner)
    seconds = source.get("serviceAccountToken", {}).get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST_TOKEN:
        message = f"a token lives {_SHORTEST_TOKEN} seconds at least"
        yield (*at, "serviceAccountToken", "expirationSeconds"), message, ""


def _size(pointer: Pointer, directory: Mapping[str, Any]) -> Iterator[Breach]:
    limit = directory.get("sizeLimit", 0)
    try:
        if parse_quantity(limit) < 0:
            yield pointer, f"sizeLimit is {limit}: an amount is not negative", ""
    except ValueError as problem:
        yield pointer, f"sizeLimit: {problem}", ""


def _files(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """The files that a volume is made of: their paths, modes and keys."""
    modes = [((*at, "defaultMode"), source.get("defaultMode"))]
    for index, item in enumerate(source.get("items", ())):
        here = (*at, "items", index)
        modes.append(((*here, "mode"), item.get("mode")))
        if not item.get("path") or not _is_below(item["path"]):
            message = "a file's path stays below the volume: no leading / and no .."
            yield (*here, "path"), message, ""
        if item.get("key") == "":
            yield (*here, "key"), "a file has the key that it is made from", ""
        if at[-1] == "downwardAPI" and ("fieldRef" in item) is ("resourceFieldRef" in item):
            yield here, "a file has one of fieldRef and resourceFieldRef", ""
    for pointer, mode in modes:
        if mode is not None and not 0 <= mode <= _WIDEST_MODE:
            message = f"the mode {mode} is none from 0 to 0777 (octal), 511 (decimal)"
            yield pointer, message, "write 0644 in YAML, 420 in JSON"


def _is_below(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")

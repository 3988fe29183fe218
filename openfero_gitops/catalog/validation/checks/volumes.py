"""What the API server refuses in volumes and where they are mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.checks.containers import is_subscript, resource_field
from openfero_gitops.catalog.validation.checks.names import OBJECTS
from openfero_gitops.catalog.validation.checks.scheduling import selector
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body

_WIDEST_MODE: Final = 0o777
_SHORTEST_TOKEN: Final = 600


@check(
    error(
        "volume-mount",
        "A container must mount volumes of its Pod, at valid paths.",
        API_SERVER_REJECTS,
    )
)
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
                message = f"the volume {shown(name)} is mounted nowhere: its mountPath is empty"
                yield (*at, "mountPath"), message, "write mountPath: /data"
            for field in ("subPath", "subPathExpr"):
                if not _is_below(mount.get(field, "")):
                    message = f"{field} {shown(mount[field])} leads out of the volume"
                    yield (*at, field), message, "write a path without .. and without / before it"
            if mount.get("subPath") and mount.get("subPathExpr"):
                message = "a mount has subPath or subPathExpr, not both"
                yield (*at, "subPathExpr"), message, "delete one of them"
            if mount.get("mountPropagation") == "Bidirectional" and not privileged:
                message = "mountPropagation: Bidirectional needs a privileged container"
                yield (*at, "mountPropagation"), message, "write HostToContainer"
            if mount.get("recursiveReadOnly") in ("IfPossible", "Enabled") and (
                not mount.get("readOnly") or mount.get("mountPropagation", "None") != "None"
            ):
                message = "recursiveReadOnly goes with readOnly: true, and with no mountPropagation"
                yield (*at, "recursiveReadOnly"), message, "add readOnly: true"


@check(
    error(
        "volume-device",
        "A volume device must be a PersistentVolumeClaim of the Pod, at a path of its own.",
        API_SERVER_REJECTS,
    )
)
def _volume_device(body: Body) -> Iterator[Breach]:
    volumes = {volume.get("name"): volume for _, volume in body.volumes}
    for container in body.containers:
        mounts = container.fields.get("volumeMounts", ())
        names = {mount.get("name") for mount in mounts}
        paths = {mount.get("mountPath") for mount in mounts}
        for index, device in enumerate(container.fields.get("volumeDevices", ())):
            at = (*container.pointer, "volumeDevices", index)
            name, path = device.get("name"), device.get("devicePath", "")
            volume = volumes.get(name)
            if volume is None:
                message = f"the Pod has no volume {shown(name)}"
                yield (*at, "name"), message, "add it under volumes"
            elif not volume.keys() & {"persistentVolumeClaim", "ephemeral"}:
                message = f"the volume {shown(name)} is no claim, and only a claim is a device"
                yield (*at, "name"), message, "mount it under volumeMounts"
            elif name in names:
                message = f"the volume {shown(name)} is mounted, or a device, already"
                yield (*at, "name"), message, "delete one of them"
            if path in paths or ".." in path.split("/"):
                message = f"the devicePath {shown(path)} is taken already, or holds .."
                yield (*at, "devicePath"), message, "write /dev/data"
            names.add(name)
            paths.add(path)


@check(
    error(
        "volume-source",
        "A volume must have exactly one source, and the source must be complete.",
        API_SERVER_REJECTS,
    )
)
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
            message = f"{shown(path)} is no path of a node: it is empty, or holds .."
            yield (*at, "hostPath", "path"), message, "write path: /var/log"
        yield from _size((*at, "emptyDir", "sizeLimit"), volume.get("emptyDir", {}))
        paths: set[str] = set()
        for index, source in enumerate(volume.get("projected", {}).get("sources", ())):
            yield from _projected((*at, "projected", "sources", index), source, paths)
        yield from _blocks(at, volume)
        if "ephemeral" in volume:
            yield from _ephemeral((*at, "ephemeral"), volume["ephemeral"])


def _blocks(at: Pointer, volume: Mapping[str, Any]) -> Iterator[Breach]:
    """Disks of a storage network, and of a driver."""
    if (fibre := volume.get("fc")) is not None:
        here = (*at, "fc")
        if bool(fibre.get("targetWWNs")) is bool(fibre.get("wwids")):
            yield here, "fc has either targetWWNs or wwids", "write one of them"
        if fibre.get("targetWWNs") and "lun" not in fibre:
            yield (*here, "lun"), "targetWWNs need a lun", "add lun: 0"
    secret = volume.get("csi", {}).get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        yield (
            (*at, "csi", "nodePublishSecretRef", "name"),
            "nodePublishSecretRef names no Secret",
            "add its name",
        )
    iscsi = volume.get("iscsi", {})
    if (
        iscsi.get("chapAuthDiscovery") or iscsi.get("chapAuthSession")
    ) and "secretRef" not in iscsi:
        yield (*at, "iscsi", "secretRef"), "CHAP needs a secretRef", "add secretRef: {name: …}"


_ALONE: Final = "ReadWriteOncePod"


def _ephemeral(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """A claim that lives as long as its Pod."""
    here: Pointer = (*at, "volumeClaimTemplate")
    template = source.get("volumeClaimTemplate")
    if template is None:
        message = "an ephemeral volume has no volumeClaimTemplate"
        yield here, message, "add it, or write emptyDir: {} instead"
        return
    for field, value in template.get("metadata", {}).items():
        if value and field not in ("annotations", "labels"):
            yield (*here, "metadata", field), f"Kubernetes gives the claim its {field}", "delete it"
    spec = template.get("spec", {})
    modes = spec.get("accessModes", ())
    if not modes or (_ALONE in modes and len(set(modes)) > 1):
        message = f"a claim has an access mode, and {_ALONE} is the only one if it is there"
        yield (*here, "spec", "accessModes"), message, "write [ReadWriteOnce]"
    try:
        storage = parse_quantity(spec.get("resources", {}).get("requests", {}).get("storage", 0))
    except ValueError:
        storage = None  # (found as a quantity that is none)
    if storage is not None and storage <= 0:
        message = "a claim requests some storage"
        yield (*here, "spec", "resources", "requests", "storage"), message, "write storage: 1Gi"
    yield from selector((*here, "spec", "selector"), spec.get("selector", {}))


def _projected(at: Pointer, source: Mapping[str, Any], taken: set[str]) -> Iterator[Breach]:
    if len(source) > 1:
        message = f"an item of sources is one source, not {len(source)}: {', '.join(source)}"
        yield at, message, "give each its own item"
    for kind, inner in source.items():
        yield from _files((*at, kind), inner)
        if kind in ("configMap", "secret") and not inner.get("name"):
            yield (*at, kind, "name"), f"{kind} names no object", "add its name"
        for index, item in enumerate(inner.get("items", ())):
            path = item.get("path", "")
            if path and path in taken:
                message = f"two files of the volume have the path {shown(path)}"
                yield (*at, kind, "items", index, "path"), message, "rename one of them"
            taken.add(path)
    seconds = source.get("serviceAccountToken", {}).get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST_TOKEN:
        message = f"a token lives {_SHORTEST_TOKEN} seconds at least, and this one {seconds}"
        suggestion = f"write {_SHORTEST_TOKEN}"
        yield (*at, "serviceAccountToken", "expirationSeconds"), message, suggestion


def _size(pointer: Pointer, directory: Mapping[str, Any]) -> Iterator[Breach]:
    limit = directory.get("sizeLimit", 0)
    try:
        if parse_quantity(limit) < 0:
            yield pointer, f"sizeLimit is {limit}: an amount is not negative", "write 64Mi"
    except ValueError as problem:
        yield pointer, f"sizeLimit: {problem}", ""


def _files(at: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """The files that a volume is made of: their paths, modes and keys."""
    modes = [((*at, "defaultMode"), source.get("defaultMode"))]
    for index, item in enumerate(source.get("items", ())):
        here = (*at, "items", index)
        modes.append(((*here, "mode"), item.get("mode")))
        if not item.get("path") or not _is_below(item["path"]):
            message = f"the path {shown(item.get('path', ''))} is empty, or leads out of the volume"
            yield (*here, "path"), message, "write a path without .. and without / before it"
        if item.get("key") == "":
            message = "nothing says from which key the file is made"
            yield (*here, "key"), message, "write its key"
        if at[-1] == "downwardAPI":
            yield from _downward(here, item)
    for pointer, mode in modes:
        if mode is not None and not 0 <= mode <= _WIDEST_MODE:
            message = f"the mode {mode} is none from 0 to 0777 (octal), 511 (decimal)"
            yield pointer, message, "write 0644 in YAML, 420 in JSON"


def _downward(at: Pointer, item: Mapping[str, Any]) -> Iterator[Breach]:
    """What a file of the downward API is read from."""
    if ("fieldRef" in item) is ("resourceFieldRef" in item):
        yield at, "a file has one of fieldRef and resourceFieldRef", "write one of them"
    path = item.get("fieldRef", {}).get("fieldPath")
    if path is not None and path not in _FIELDS and not is_subscript(path):
        message = f"a file cannot be read from {shown(path)}"
        yield (*at, "fieldRef", "fieldPath"), message, f"write one of {', '.join(_FIELDS)}"
    if (reference := item.get("resourceFieldRef")) is not None:
        here = (*at, "resourceFieldRef")
        if not reference.get("containerName"):
            yield (*here, "containerName"), "nothing says of which container", "add containerName"
        yield from resource_field(here, reference)


_FIELDS: Final = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)


def _is_below(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")

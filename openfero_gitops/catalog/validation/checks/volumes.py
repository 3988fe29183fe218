"""What the API server rejects in volumes, volume mounts and volume devices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import items_of
from openfero_gitops.catalog.validation.checks.containers import is_subscript, resource_field
from openfero_gitops.catalog.validation.checks.names import OBJECTS
from openfero_gitops.catalog.validation.checks.scheduling import selector
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.text import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

_MAX_MODE: Final = 0o777
_MIN_TOKEN_SECONDS: Final = 600
_SINGLE_POD: Final = "ReadWriteOncePod"
_RELATIVE_PATH: Final = "write a relative path without .."
_DOWNWARD_FIELDS: Final = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)


def is_relative(path: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    return not path.startswith("/") and ".." not in path.split("/")


@check(
    kubernetes_error("volume-mount", "A container must mount volumes of its Pod, at valid paths.")
)
def _volume_mount(body: Body) -> Iterator[Breach]:
    volumes = {volume.get("name"): None for _, volume in body.volumes}  # in their order
    for container in body.containers:
        privileged = container.fields.get("securityContext", {}).get("privileged")
        for pointer, mount in items_of(container.pointer, container.fields, "volumeMounts"):
            name = mount.get("name")
            if name is not None and name not in volumes:
                message = f"the Pod has no volume {shown(name)}"
                yield (*pointer, "name"), message, partial(_similar_volume, name, volumes)
            if mount.get("mountPath") == "":
                message = f"the mountPath of volume {shown(name)} is empty"
                yield (*pointer, "mountPath"), message, "for example mountPath: /data"
            for field in ("subPath", "subPathExpr"):
                if not is_relative(mount.get(field, "")):
                    message = f"{field} {shown(mount[field])} is not a path in the volume"
                    yield (*pointer, field), message, _RELATIVE_PATH
            if mount.get("subPath") and mount.get("subPathExpr"):
                message = "subPathExpr contradicts subPath"
                yield (*pointer, "subPathExpr"), message, "delete one of them"
            if mount.get("mountPropagation") == "Bidirectional" and not privileged:
                message = "mountPropagation: Bidirectional requires a privileged container"
                yield (*pointer, "mountPropagation"), message, "write HostToContainer"
            if mount.get("recursiveReadOnly") in ("IfPossible", "Enabled") and (
                not mount.get("readOnly") or mount.get("mountPropagation", "None") != "None"
            ):
                message = "recursiveReadOnly requires readOnly: true and no mountPropagation"
                yield (*pointer, "recursiveReadOnly"), message, "add readOnly: true"


def _similar_volume(name: str, volumes: Iterable[str | None]) -> str:
    choice = nearest(name, filter(None, volumes))
    return f"did you mean {choice}?" if choice else "add it under volumes"


@check(
    kubernetes_error(
        "volume-device",
        "A volume device must be a PersistentVolumeClaim of the Pod, at a path of its own.",
    )
)
def _volume_device(body: Body) -> Iterator[Breach]:
    volumes = {volume.get("name"): volume for _, volume in body.volumes}
    for container in body.containers:
        mounts = container.fields.get("volumeMounts", ())
        names = {mount.get("name") for mount in mounts}
        paths = {mount.get("mountPath") for mount in mounts}
        for pointer, device in items_of(container.pointer, container.fields, "volumeDevices"):
            name, path = device.get("name"), device.get("devicePath", "")
            volume = volumes.get(name)
            if volume is None:
                message = f"the Pod has no volume {shown(name)}"
                yield (*pointer, "name"), message, "add it under volumes"
            elif not volume.keys() & {"persistentVolumeClaim", "ephemeral"}:
                message = f"volume {shown(name)} is not a PersistentVolumeClaim, so it is no device"
                yield (*pointer, "name"), message, "use volumeMounts instead"
            elif name in names:
                message = f"volume {shown(name)} is already used in this container"
                yield (*pointer, "name"), message, "delete one of them"
            if path in paths or ".." in path.split("/"):
                message = f"devicePath {shown(path)} is already used or contains .."
                yield (*pointer, "devicePath"), message, "for example /dev/data"
            names.add(name)
            paths.add(path)


@check(
    kubernetes_error(
        "volume-source", "A volume must have exactly one source, and the source must be complete."
    )
)
def _volume_source(body: Body) -> Iterator[Breach]:
    for pointer, volume in body.volumes:
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            name = shown(volume.get("name", ""))
            message = f"volume {name} has {len(sources)} sources: {', '.join(sources)}"
            yield pointer, message, "write one of them"
        for kind, field in OBJECTS.items():
            if kind in volume:
                if not volume[kind].get(field):
                    yield (*pointer, kind, field), f"{kind} has no {field}", f"add {field}: …"
                yield from _files((*pointer, kind), volume[kind])
        yield from _files((*pointer, "downwardAPI"), volume.get("downwardAPI", {}))
        path = volume.get("hostPath", {}).get("path", "/")
        if not path or ".." in path.split("/"):
            message = f"path {shown(path)} is empty or contains .."
            yield (*pointer, "hostPath", "path"), message, "for example /var/log"
        yield from _size((*pointer, "emptyDir", "sizeLimit"), volume.get("emptyDir", {}))
        paths: set[str] = set()
        projected = volume.get("projected", {})
        for at, source in items_of((*pointer, "projected"), projected, "sources"):
            yield from _projected(at, source, paths)
        yield from _block_devices(pointer, volume)
        if "ephemeral" in volume:
            yield from _ephemeral((*pointer, "ephemeral"), volume["ephemeral"])


def _block_devices(pointer: Pointer, volume: Mapping[str, Any]) -> Iterator[Breach]:
    """Check volumes of storage networks and drivers."""
    if (fibre_channel := volume.get("fc")) is not None:
        at = (*pointer, "fc")
        if bool(fibre_channel.get("targetWWNs")) is bool(fibre_channel.get("wwids")):
            yield at, "fc must have either targetWWNs or wwids", "write one of them"
        if fibre_channel.get("targetWWNs") and "lun" not in fibre_channel:
            yield (*at, "lun"), "targetWWNs requires a lun", "add lun: 0"
    secret = volume.get("csi", {}).get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        at = (*pointer, "csi", "nodePublishSecretRef")
        yield (*at, "name"), "nodePublishSecretRef has no name", "add name: …"
    iscsi = volume.get("iscsi", {})
    uses_chap = iscsi.get("chapAuthDiscovery") or iscsi.get("chapAuthSession")
    if uses_chap and "secretRef" not in iscsi:
        message = "CHAP authentication requires a secretRef"
        yield (*pointer, "iscsi", "secretRef"), message, "add secretRef: {name: …}"


def _ephemeral(pointer: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """Check the claim template of an ephemeral volume."""
    at = (*pointer, "volumeClaimTemplate")
    template = source.get("volumeClaimTemplate")
    if template is None:
        message = "an ephemeral volume requires a volumeClaimTemplate"
        yield at, message, "add it, or write emptyDir: {} instead"
        return
    for field, value in template.get("metadata", {}).items():
        if value and field not in ("annotations", "labels"):
            message = f"{field} of the claim is set by Kubernetes"
            yield (*at, "metadata", field), message, "delete it"
    spec = template.get("spec", {})
    modes = spec.get("accessModes", ())
    if not modes or (_SINGLE_POD in modes and len(set(modes)) > 1):
        message = f"accessModes must not be empty, and {_SINGLE_POD} must be the only mode"
        yield (*at, "spec", "accessModes"), message, "for example [ReadWriteOnce]"
    try:
        storage = parse_quantity(spec.get("resources", {}).get("requests", {}).get("storage", 0))
    except ValueError:
        storage = None  # reported by the rule field-format
    if storage is not None and storage <= 0:
        message = "a claim must request storage"
        at_storage = (*at, "spec", "resources", "requests", "storage")
        yield at_storage, message, "for example storage: 1Gi"
    yield from selector((*at, "spec", "selector"), spec.get("selector", {}))


def _projected(pointer: Pointer, source: Mapping[str, Any], used: set[str]) -> Iterator[Breach]:
    if len(source) > 1:
        kinds = ", ".join(source)
        message = f"an item of sources must have exactly one source, not {len(source)}: {kinds}"
        yield pointer, message, "write a separate item for each"
    for kind, fields in source.items():
        yield from _files((*pointer, kind), fields)
        if kind in ("configMap", "secret") and not fields.get("name"):
            yield (*pointer, kind, "name"), f"{kind} has no name", "add name: …"
        for at, item in items_of((*pointer, kind), fields, "items"):
            path = item.get("path", "")
            if path and path in used:
                message = f"path {shown(path)} is not unique in the volume"
                yield (*at, "path"), message, "rename one of them"
            used.add(path)
    seconds = source.get("serviceAccountToken", {}).get("expirationSeconds")
    if seconds is not None and seconds < _MIN_TOKEN_SECONDS:
        message = f"expirationSeconds must be at least {_MIN_TOKEN_SECONDS}, but is {seconds}"
        at = (*pointer, "serviceAccountToken", "expirationSeconds")
        yield at, message, f"write {_MIN_TOKEN_SECONDS}"


def _size(pointer: Pointer, directory: Mapping[str, Any]) -> Iterator[Breach]:
    limit = directory.get("sizeLimit", 0)
    try:
        if parse_quantity(limit) < 0:
            yield pointer, f"sizeLimit must not be negative, but is {limit}", "for example 64Mi"
    except ValueError as error:
        yield pointer, f"sizeLimit: {error}", ""


def _files(pointer: Pointer, source: Mapping[str, Any]) -> Iterator[Breach]:
    """Check the paths, modes and keys of the files in a volume."""
    modes = [((*pointer, "defaultMode"), source.get("defaultMode"))]
    for at, item in items_of(pointer, source, "items"):
        modes.append(((*at, "mode"), item.get("mode")))
        if not item.get("path") or not is_relative(item["path"]):
            message = f"{shown(item.get('path', ''))} is not a path in the volume"
            yield (*at, "path"), message, _RELATIVE_PATH
        if item.get("key") == "":
            yield (*at, "key"), "the key of the file's content is empty", "write a key"
        if pointer[-1] == "downwardAPI":
            yield from _downward(at, item)
    for at, mode in modes:
        if mode is not None and not 0 <= mode <= _MAX_MODE:
            message = f"mode must be from 0 to 0777 (octal, 511 in decimal), but is {mode}"
            yield at, message, "for example 0644 in YAML, 420 in JSON"


def _downward(pointer: Pointer, item: Mapping[str, Any]) -> Iterator[Breach]:
    """Check the source of a file of the downward API."""
    if ("fieldRef" in item) is ("resourceFieldRef" in item):
        message = "a file must have either fieldRef or resourceFieldRef"
        yield pointer, message, "write one of them"
    path = item.get("fieldRef", {}).get("fieldPath")
    if path is not None and path not in _DOWNWARD_FIELDS and not is_subscript(path):
        message = f"{shown(path)} is not available as a file"
        suggestion = f"write one of {', '.join(_DOWNWARD_FIELDS)}"
        yield (*pointer, "fieldRef", "fieldPath"), message, suggestion
    if (reference := item.get("resourceFieldRef")) is not None:
        at = (*pointer, "resourceFieldRef")
        if not reference.get("containerName"):
            message = "resourceFieldRef has no containerName"
            yield (*at, "containerName"), message, "add containerName: …"
        yield from resource_field(at, reference)

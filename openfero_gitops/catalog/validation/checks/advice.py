"""Warnings about what Kubernetes accepts but a reviewer should notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.catalog.validation.body import POD, items_of
from openfero_gitops.catalog.validation.rules import Breach, check
from openfero_gitops.domain.rule import warning
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.catalog.validation.body import Body

NO_EFFECT = warning(
    "no-effect",
    "A setting should have an effect.",
    "Somebody wrote it to change something, but it changes nothing.",
    "delete it",
)


@check(
    warning(
        "duplicate-env",
        "A variable should be set only once in its container.",
        "Kubernetes uses the last value, but a reader may see only the first.",
        "delete one of them",
    )
)
def _duplicate_env(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        seen = set()
        for pointer, variable in items_of(container.pointer, container.fields, "env"):
            name = variable.get("name")
            if name and name in seen:
                message = f"variable {shown(name)} is set twice; this value is used"
                yield (*pointer, "name"), message, ""
            seen.add(name)


@check(
    warning(
        "no-limits",
        "A container should have a memory limit.",
        "A remediation runs when the cluster is already in trouble. Without a limit it can use the "
        "memory that the failing workload needs.",
        "add resources: {limits: {memory: 128Mi}}",
    )
)
def _no_limits(body: Body) -> Iterator[Breach]:
    if "memory" in body.pod.get("resources", {}).get("limits", {}):
        return
    for container in body.containers:
        if "memory" not in container.fields.get("resources", {}).get("limits", {}):
            yield (
                (*container.pointer, "resources", "limits", "memory"),
                f"container {shown(container.name)} has no memory limit",
                "",
            )


@check(
    warning(
        "image-tag",
        "An image should be pinned to a version or a digest.",
        "The commit on a Job should identify what ran. An image with the tag `latest` can change "
        "without a commit.",
        "write a version, NAME:1.2.3, or a digest, NAME@sha256:…",
    )
)
def _image_tag(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        image = container.fields.get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        if image and "@" not in image and tag in ("", "latest"):
            problem = 'tag "latest" is not pinned' if tag else "no tag means latest"
            yield (*container.pointer, "image"), f"image {shown(image)}: {problem}", ""


@check(
    warning(
        "privileged",
        "A container should not be privileged.",
        "A privileged container is root on its node, and so is everybody who can get a change "
        "merged.",
        "add single capabilities instead",
    )
)
def _privileged(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        if container.fields.get("securityContext", {}).get("privileged"):
            yield (
                (*container.pointer, "securityContext", "privileged"),
                f"container {shown(container.name)} is privileged: it is root on its node",
                "",
            )


@check(
    warning(
        "host-path",
        "A Pod should not mount a path of its node.",
        "The Job can read and write files of the node, including the credentials of its kubelet.",
        "mount an emptyDir, a ConfigMap or a PersistentVolumeClaim",
    )
)
def _host_path(body: Body) -> Iterator[Breach]:
    for pointer, volume in body.volumes:
        if "hostPath" in volume:
            name = shown(volume.get("name", ""))
            yield (*pointer, "hostPath"), f"volume {name} is a path of the node", ""


@check(
    warning(
        "host-namespace",
        "A Pod should not share the network, process or IPC namespace of its node.",
        "The Job can see and reach everything that runs on the node, and NetworkPolicies do not "
        "apply to it.",
    )
)
def _host_namespace(body: Body) -> Iterator[Breach]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if body.pod.get(field):
            message = f"{field}: true shares a namespace of the node with the Pod"
            yield (*POD, field), message, f"delete {field}"


@check(
    warning(
        "default-account",
        "A Job should run as a ServiceAccount of its own, or without a token.",
        "The default ServiceAccount is shared by all Pods of the namespace, so its permissions are "
        "rarely those that the remediation needs.",
        "set serviceAccountName, or automountServiceAccountToken: false",
    )
)
def _default_account(body: Body) -> Iterator[Breach]:
    account = body.pod.get("serviceAccountName") or body.pod.get("serviceAccount") or "default"
    has_token = body.pod.get("automountServiceAccountToken") is not False
    if account == "default" and has_token and body.containers:
        yield (
            (*POD, "serviceAccountName"),
            "the Job gets the token of its namespace's default ServiceAccount",
            "",
        )

"""What Kubernetes accepts in a Job and a reviewer should still see: warnings, one function each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.catalog.validation.body import POD
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
)


@check(
    warning(
        "duplicate-env",
        "A variable should be set only once in its container.",
        "Kubernetes uses the last value, but a reader may see only the first.",
    )
)
def _duplicate_env(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        variables = container.fields.get("env", ())
        seen = set()
        for index, variable in enumerate(variables):
            name = variable.get("name")
            if name and name in seen:
                yield (
                    (*container.pointer, "env", index, "name"),
                    f"{shown(name)} is set twice, and this one counts",
                    "delete one of them",
                )
            seen.add(name)


@check(
    warning(
        "no-limits",
        "A container should have a memory limit.",
        "A remediation runs when the cluster is already in trouble. Without a limit it "
        "can use the memory that the failing workload needs.",
    )
)
def _no_limits(body: Body) -> Iterator[Breach]:
    if "memory" in body.pod.get("resources", {}).get("limits", {}):
        return
    for container in body.containers:
        if "memory" not in container.fields.get("resources", {}).get("limits", {}):
            yield (
                (*container.pointer, "resources", "limits", "memory"),
                f"the container {shown(container.name)} may use all of its node's memory",
                "add resources: {limits: {memory: 128Mi}}",
            )


@check(
    warning(
        "image-tag",
        "An image should be pinned to a version or a digest.",
        "The commit on a Job should identify what ran. An image with the tag `latest` "
        "can change without a commit.",
    )
)
def _image_tag(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        image = container.fields.get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        if image and "@" not in image and tag in ("", "latest"):
            yield (
                (*container.pointer, "image"),
                f"{shown(image)} is another image tomorrow, and no commit says so",
                "name a version, NAME:1.2.3, or a digest, NAME@sha256:…",
            )


@check(
    warning(
        "privileged",
        "A container should not be privileged.",
        "A privileged container is root on its node, and so is everybody who can get a "
        "change merged.",
    )
)
def _privileged(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        if container.fields.get("securityContext", {}).get("privileged"):
            yield (
                (*container.pointer, "securityContext", "privileged"),
                f"the container {shown(container.name)} may do on its node whatever root may",
                "add single capabilities instead",
            )


@check(
    warning(
        "host-path",
        "A Pod should not mount a path of its node.",
        "The Job can read and write files of the node, including the credentials of its kubelet.",
    )
)
def _host_path(body: Body) -> Iterator[Breach]:
    for at, volume in body.volumes:
        if "hostPath" in volume:
            yield (
                (*at, "hostPath"),
                f"the volume {shown(volume.get('name', ''))} is a path of the node",
                "mount an emptyDir, a ConfigMap or a claim",
            )


@check(
    warning(
        "host-namespace",
        "A Pod should not share the network, process or IPC namespace of its node.",
        "The Job can see and reach everything that runs on the node, and NetworkPolicies "
        "do not apply to it.",
    )
)
def _host_namespace(body: Body) -> Iterator[Breach]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if body.pod.get(field):
            yield (*POD, field), f"{field} lets the Pod into its node", f"delete {field}"


@check(
    warning(
        "default-account",
        "A Job should run as a ServiceAccount of its own, or without a token.",
        "The default ServiceAccount is shared by all Pods of the namespace, so its "
        "permissions are rarely those that the remediation needs.",
    )
)
def _default_account(body: Body) -> Iterator[Breach]:
    named = body.pod.get("serviceAccountName") or body.pod.get("serviceAccount") or "default"
    has_token = body.pod.get("automountServiceAccountToken") is not False
    if named == "default" and has_token and body.containers:
        yield (
            (*POD, "serviceAccountName"),
            "the Job gets the token, and all rights, of its namespace's default ServiceAccount",
            "name one with the rights it needs, or write automountServiceAccountToken: false",
        )

"""What Kubernetes accepts in a Job and a reviewer should still see: warnings, one function each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import Breach, check, shown, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.catalog.validation.body import Body

NO_EFFECT = warning("no-effect", "What is written has an effect.")


@check(warning("duplicate-env", "A variable is set once in its container."))
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


@check(warning("no-limits", "A container has a memory limit."))
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


@check(warning("image-tag", "An image is named by a version or a digest."))
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


@check(warning("privileged", "A container is not privileged."))
def _privileged(body: Body) -> Iterator[Breach]:
    for container in body.containers:
        if container.fields.get("securityContext", {}).get("privileged"):
            yield (
                (*container.pointer, "securityContext", "privileged"),
                f"the container {shown(container.name)} may do on its node whatever root may",
                "add single capabilities instead",
            )


@check(warning("host-path", "A Pod mounts no path of its node."))
def _host_path(body: Body) -> Iterator[Breach]:
    for at, volume in body.volumes:
        if "hostPath" in volume:
            yield (
                (*at, "hostPath"),
                f"the volume {shown(volume.get('name', ''))} is a path of the node",
                "mount an emptyDir, a ConfigMap or a claim",
            )


@check(warning("host-namespace", "A Pod does not share its node's network, processes or IPC."))
def _host_namespace(body: Body) -> Iterator[Breach]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if body.pod.get(field):
            yield (*POD, field), f"{field} lets the Pod into its node", f"delete {field}"


@check(warning("default-account", "A Job runs as a ServiceAccount of its own, or without a token."))
def _default_account(body: Body) -> Iterator[Breach]:
    named = body.pod.get("serviceAccountName") or body.pod.get("serviceAccount") or "default"
    has_token = body.pod.get("automountServiceAccountToken") is not False
    if named == "default" and has_token and body.containers:
        yield (
            (*POD, "serviceAccountName"),
            "the Job gets the token, and all rights, of its namespace's default ServiceAccount",
            "name one with the rights it needs, or write automountServiceAccountToken: false",
        )

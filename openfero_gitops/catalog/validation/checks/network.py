"""What the API server rejects in DNS settings, host ports and shared namespaces of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.catalog.validation.body import POD, items_of
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.catalog.validation.body import Body

_MAX_SEARCHES_CHARACTERS: Final = 2048  # including the spaces between them


@check(
    kubernetes_error(
        "dns",
        "A Pod with `dnsPolicy: None` must name its DNS servers, and DNS settings must be valid.",
    )
)
def _dns(body: Body) -> Iterator[Breach]:
    config = body.pod.get("dnsConfig", {})
    if body.pod.get("dnsPolicy") == "None" and not config.get("nameservers"):
        yield (
            (*POD, "dnsConfig", "nameservers"),
            "dnsPolicy: None requires nameservers",
            "add dnsConfig: {nameservers: [10.0.0.10]}, or delete dnsPolicy",
        )
    for pointer, option in items_of((*POD, "dnsConfig"), config, "options"):
        if not option.get("name"):
            message = "an option of dnsConfig has no name"
            yield pointer, message, "for example name: ndots"
    if len(" ".join(config.get("searches", ()))) > _MAX_SEARCHES_CHARACTERS:
        message = f"searches has more than {_MAX_SEARCHES_CHARACTERS} characters in total"
        yield (*POD, "dnsConfig", "searches"), message, "delete some of them"


@check(
    kubernetes_error(
        "host-port",
        "A host port must be used only once; with `hostNetwork` it is the container port.",
    )
)
def _host_port(body: Body) -> Iterator[Breach]:
    uses_host_network = body.pod.get("hostNetwork") is True
    used: dict[bool, set[tuple[object, ...]]] = {False: set(), True: set()}  # by is_init
    for container in body.containers:
        for port_pointer, port in items_of(container.pointer, container.fields, "ports"):
            container_port = port.get("containerPort")
            host_port = port.get("hostPort") or (container_port if uses_host_network else None)
            if not host_port:
                continue
            pointer = (*port_pointer, "hostPort")
            if uses_host_network and host_port != container_port and not container.is_init:
                message = (
                    f"with hostNetwork, hostPort {host_port} must equal containerPort"
                    f" {container_port}"
                )
                yield pointer, message, "delete hostPort"
            binding = (port.get("protocol") or "TCP", port.get("hostIP", ""), host_port)
            if binding in used[container.is_init]:
                message = f"port {host_port} of the node is already in use"
                yield pointer, message, "delete it, or use another port"
            used[container.is_init].add(binding)


@check(
    kubernetes_error(
        "host-fields",
        "Fields that share the node's namespaces must be consistent.",
        "delete one of them",
    )
)
def _host_fields(body: Body) -> Iterator[Breach]:
    pod = body.pod
    if pod.get("hostPID") and pod.get("shareProcessNamespace"):
        message = "shareProcessNamespace contradicts hostPID"
        yield (*POD, "shareProcessNamespace"), message, ""
    if pod.get("hostUsers") is False:
        for field in ("hostPID", "hostIPC", "hostNetwork"):
            if pod.get(field):
                yield (*POD, field), f"{field} contradicts hostUsers: false", ""
    if pod.get("hostnameOverride") is not None:
        for field in ("setHostnameAsFQDN", "hostNetwork"):
            if pod.get(field):
                yield (*POD, "hostnameOverride"), f"hostnameOverride contradicts {field}", ""
    for container in body.containers:
        is_unmasked = container.fields.get("securityContext", {}).get("procMount") == "Unmasked"
        if is_unmasked and pod.get("hostUsers") is not False:
            yield (
                (*container.pointer, "securityContext", "procMount"),
                "procMount: Unmasked requires hostUsers: false in the Pod",
                "delete procMount",
            )

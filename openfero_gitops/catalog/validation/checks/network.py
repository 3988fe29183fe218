"""What the API server refuses in names, DNS and ports that a Pod shares with its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.rule import error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openfero_gitops.catalog.validation.body import Body

_SEARCHES = 2048  # characters, the spaces between them included


@check(
    error(
        "dns",
        "A Pod with `dnsPolicy: None` must name its DNS servers, and DNS settings must be valid.",
        API_SERVER_REJECTS,
    )
)
def _dns(body: Body) -> Iterator[Breach]:
    config = body.pod.get("dnsConfig", {})
    if body.pod.get("dnsPolicy") == "None" and not config.get("nameservers"):
        yield (
            (*POD, "dnsConfig", "nameservers"),
            "dnsPolicy: None needs a server to ask",
            "add dnsConfig: {nameservers: [10.0.0.10]}, or leave dnsPolicy out",
        )
    for index, option in enumerate(config.get("options", ())):
        if not option.get("name"):
            message = "an option of dnsConfig has no name"
            yield (*POD, "dnsConfig", "options", index), message, "add name: ndots"
    if len(" ".join(config.get("searches", ()))) > _SEARCHES:
        message = f"the search domains have more than {_SEARCHES} characters together"
        yield (*POD, "dnsConfig", "searches"), message, "name fewer"


@check(
    error(
        "host-port",
        "A host port must be used only once; with `hostNetwork` it is the container port.",
        API_SERVER_REJECTS,
    )
)
def _host_port(body: Body) -> Iterator[Breach]:
    on_host = body.pod.get("hostNetwork") is True
    taken: dict[str, set[tuple[object, ...]]] = {"containers": set(), "initContainers": set()}
    for container in body.containers:
        for index, port in enumerate(container.fields.get("ports", ())):
            inside = port.get("containerPort")
            number = port.get("hostPort") or (inside if on_host else None)
            if not number:
                continue
            at = (*container.pointer, "ports", index, "hostPort")
            if on_host and number != inside and not container.is_init:
                message = (
                    f"with hostNetwork, hostPort {number} would have to be containerPort {inside}"
                )
                yield at, message, "delete it"
            asked = (port.get("protocol") or "TCP", port.get("hostIP", ""), number)
            kind = "initContainers" if container.is_init else "containers"
            if asked in taken[kind]:
                message = f"another container has the port {number} of the node already"
                yield at, message, "delete it, or write another one"
            taken[kind].add(asked)


@check(
    error(
        "host-fields",
        "Fields that share the node's namespaces must be consistent.",
        API_SERVER_REJECTS,
    )
)
def _host_fields(body: Body) -> Iterator[Breach]:
    pod = body.pod
    if pod.get("hostPID") and pod.get("shareProcessNamespace"):
        message = "shareProcessNamespace contradicts hostPID"
        yield (*POD, "shareProcessNamespace"), message, "delete one of them"
    if pod.get("hostUsers") is False:
        for field in ("hostPID", "hostIPC", "hostNetwork"):
            if pod.get(field):
                yield (*POD, field), f"hostUsers: false contradicts {field}", "delete one of them"
    if pod.get("hostnameOverride") is not None:
        for field in ("setHostnameAsFQDN", "hostNetwork"):
            if pod.get(field):
                message = f"hostnameOverride contradicts {field}"
                yield (*POD, "hostnameOverride"), message, "delete one of them"
    for container in body.containers:
        unmasked = container.fields.get("securityContext", {}).get("procMount") == "Unmasked"
        if unmasked and pod.get("hostUsers") is not False:
            yield (
                (*container.pointer, "securityContext", "procMount"),
                "procMount: Unmasked needs a Pod with hostUsers: false",
                "delete it",
            )

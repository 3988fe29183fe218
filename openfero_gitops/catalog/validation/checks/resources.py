"""What the API server rejects in resource requests and limits."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, items_of
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error
from openfero_gitops.domain.dns import is_qualified_name
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.text import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

_OVERCOMMITTED: Final = ("cpu", "memory", "ephemeral-storage")


@check(
    kubernetes_error(
        "quantity",
        "A quantity must be a non-negative number, optionally with a Kubernetes unit.",
    )
)
def _quantity(body: Body) -> Iterator[Breach]:
    for pointer, resource, value in _quantities(body):
        if isinstance(amount := _amount(value), ValueError):
            yield pointer, f"{resource}: {amount}", ""
        elif amount < 0:
            yield pointer, f"{resource} must not be negative, but is {value}", "write 0 or more"
        elif resource.startswith("hugepages-") and not _is_whole_pages(amount, resource):
            size = resource.removeprefix("hugepages-")
            message = f"{resource} must be a positive multiple of {size}, but is {value}"
            yield pointer, message, f"write {size}"
        elif "/" in resource and amount % 1:
            yield pointer, f"{resource} must be a whole number, but is {value}", "write 1"


def _is_whole_pages(amount: Decimal, resource: str) -> bool:
    size = _amount(resource.removeprefix("hugepages-"))
    return not isinstance(size, ValueError) and size > 0 and amount > 0 and amount % size == 0


_OVER_LIMITS: Final = kubernetes_error(
    "requests-over-limits",
    "Requests must not exceed limits, in each container and in the Pod as a whole.",
)


@check(_OVER_LIMITS)
def _requests_over_limits(body: Body) -> Iterator[Breach]:
    for pointer, resources in _resources(body):
        limits = resources.get("limits", {})
        for name, value in resources.get("requests", {}).items():
            request, limit = _amount(value), _amount(limits.get(name, value))
            if isinstance(request, ValueError) or isinstance(limit, ValueError):
                continue
            if request > limit:
                yield (
                    (*pointer, "requests", name),
                    f"the {name} request {value} exceeds the limit {limits[name]}",
                    "raise the limit or lower the request",
                )
            elif name not in _OVERCOMMITTED and (name not in limits or request < limit):
                yield (
                    (*pointer, "requests", name),
                    f"the {name} request must equal its limit",
                    f"write limits: {{{name}: {value}}}",
                )


@check(_OVER_LIMITS)
def _pod_resources(body: Body) -> Iterator[Breach]:
    pod_resources = body.pod.get("resources", {})
    pod_limits = pod_resources.get("limits", {})
    resources = [
        (container, container.fields.get("resources", {}))
        for container in body.containers
        if not container.is_init
    ]
    for container, of_container in resources:
        for name, value in of_container.get("limits", {}).items():
            limit, pod_limit = _amount(value), _amount(pod_limits.get(name, value))
            if isinstance(limit, ValueError) or isinstance(pod_limit, ValueError):
                continue
            if limit > pod_limit:
                yield (
                    (*container.pointer, "resources", "limits", name),
                    f"the {name} limit {value} exceeds the Pod's limit {pod_limits[name]}",
                    "lower it, or raise the Pod's limit",
                )
    totals: dict[str, Decimal] = {}
    for _, of_container in resources:
        requested = {**of_container.get("limits", {}), **of_container.get("requests", {})}
        for name, value in requested.items():
            if not isinstance(request := _amount(value), ValueError):
                totals[name] = totals.get(name, Decimal(0)) + request
    for name, value in pod_resources.get("requests", {}).items():
        pod_request = _amount(value)
        if not isinstance(pod_request, ValueError) and totals.get(name, 0) > pod_request:
            message = f"the containers request more {name} than the Pod's request {value}"
            yield (*POD, "resources", "requests", name), message, "raise the Pod's request"


@check(
    kubernetes_error(
        "resource-name",
        "A resource must be cpu, memory, ephemeral-storage, hugepages-SIZE or domain/name; "
        "hugepages require cpu or memory beside them.",
    )
)
def _resource_name(body: Body) -> Iterator[Breach]:
    quantities = list(_quantities(body))
    for pointer, name, _ in quantities:
        is_standard = name in _OVERCOMMITTED or name.startswith("hugepages-")
        is_extended = "/" in name and is_qualified_name(name) and not name.startswith("requests.")
        is_of_pod = len(pointer) == len(POD) + 3
        if is_standard or (is_extended and not is_of_pod):
            continue
        if is_extended:
            message = f"resource {shown(name)} cannot be set for the Pod as a whole"
            yield pointer, message, "move it to a container"
        else:
            yield pointer, f"resource {shown(name)} does not exist", partial(_similar, name)
    if any(name.startswith("hugepages-") for _, name, _ in quantities):
        yield from _lonely_hugepages(body)


def _lonely_hugepages(body: Body) -> Iterator[Breach]:
    for pointer, resources in _resources(body):
        names = {*resources.get("limits", ()), *resources.get("requests", ())}
        huge = min((name for name in names if name.startswith("hugepages-")), default="")
        if huge and not names & {"cpu", "memory"}:
            message = f"{huge} requires cpu or memory in the same resources"
            yield pointer, message, "add limits: {memory: …}"


def _similar(name: str) -> str:
    choice = nearest(name, _OVERCOMMITTED)
    return f"did you mean {choice}?" if choice else "write cpu, memory or domain/name"


@check(
    kubernetes_error(
        "resize-policy",
        "A `resizePolicy` must be unique per resource and fit the Pod's `restartPolicy`.",
    )
)
def _resize_policy(body: Body) -> Iterator[Breach]:
    never = body.pod.get("restartPolicy") == "Never"
    for container in body.containers:
        seen: set[str] = set()
        for pointer, policy in items_of(container.pointer, container.fields, "resizePolicy"):
            if (name := policy.get("resourceName", "")) in seen:
                yield pointer, f"resizePolicy of {shown(name)} is not unique", "delete one of them"
            seen.add(name)
            if never and policy.get("restartPolicy") == "RestartContainer":
                message = "RestartContainer contradicts the Pod's restartPolicy: Never"
                yield (*pointer, "restartPolicy"), message, "write NotRequired"


def _resources(body: Body) -> Iterator[tuple[Pointer, Mapping[str, Any]]]:
    for container in body.containers:
        yield (*container.pointer, "resources"), container.fields.get("resources", {})
    yield (*POD, "resources"), body.pod.get("resources", {})


def _quantities(body: Body) -> Iterator[tuple[Pointer, str, Any]]:
    for pointer, resources in _resources(body):
        for kind in ("requests", "limits"):
            for name, value in resources.get(kind, {}).items():
                yield (*pointer, kind, name), name, value


def _amount(value: str | float) -> Decimal | ValueError:
    try:
        return parse_quantity(value)
    except ValueError as error:
        return error

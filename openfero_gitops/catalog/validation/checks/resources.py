"""What the API server refuses in requests and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.dns import is_qualified_name
from openfero_gitops.domain.quantity import parse_quantity
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from openfero_gitops.catalog.validation.body import Body


@check(
    error(
        "quantity",
        "A quantity must be a non-negative number, optionally with a Kubernetes unit.",
        API_SERVER_REJECTS,
    )
)
def _quantity(body: Body) -> Iterator[Breach]:
    for pointer, resource, value in _quantities(body):
        if isinstance(amount := _amount(value), ValueError):
            yield pointer, f"{resource}: {amount}", ""
        elif amount < 0:
            yield pointer, f"{resource} is {value}: an amount is not negative", "write 0 or more"
        elif resource.startswith("hugepages-") and _parts(amount, resource):
            message = f"{resource} is {value}: pages are whole, and there is one at least"
            yield pointer, message, f"write {resource.removeprefix('hugepages-')}"
        elif "/" in resource and amount % 1:
            message = f"{resource} is {value}: of it there are whole ones only"
            yield pointer, message, "write 1"


_OVER_LIMITS: Final = error(
    "requests-over-limits",
    "Requests must not exceed limits, in each container and in the Pod as a whole.",
    API_SERVER_REJECTS,
)


@check(_OVER_LIMITS)
def _requests_over_limits(body: Body) -> Iterator[Breach]:
    for at, resources in _resources(body):
        limits = resources.get("limits", {})
        for name, value in resources.get("requests", {}).items():
            requested, limit = _amount(value), _amount(limits.get(name, value))
            if isinstance(requested, ValueError) or isinstance(limit, ValueError):
                continue
            if requested > limit:
                yield (
                    (*at, "requests", name),
                    f"requests {name} {value}, more than its limit {limits[name]}",
                    "raise the limit, or request less",
                )
            elif name not in _OVERCOMMITTED and (name not in limits or requested < limit):
                yield (
                    (*at, "requests", name),
                    f"of {name} one requests exactly the limit",
                    f"write limits: {{{name}: {value}}}",
                )


@check(
    error(
        "resource-name",
        "A resource must be cpu, memory, ephemeral-storage, hugepages-SIZE or domain/name.",
        API_SERVER_REJECTS,
    )
)
def _resource_name(body: Body) -> Iterator[Breach]:
    for pointer, name, _ in _quantities(body):
        standard = name in _OVERCOMMITTED or name.startswith("hugepages-")
        qualified = "/" in name and is_qualified_name(name) and not name.startswith("requests.")
        of_pod = len(pointer) == len(POD) + 3
        if not standard and not (qualified and not of_pod):
            where = " of a Pod as a whole" if qualified else ""
            meant = nearest(name, _OVERCOMMITTED)
            suggestion = f"did you mean {meant}?" if meant else "write cpu, memory or domain/name"
            yield (
                pointer,
                f"there is no resource {shown(name)}{where}",
                "move it to a container" if qualified else suggestion,
            )


def _parts(amount: Decimal, resource: str) -> bool:
    """Whether an amount of huge pages is none, or more than whole ones."""
    size = _amount(resource.removeprefix("hugepages-"))
    return isinstance(size, ValueError) or size <= 0 or not amount or amount % size != 0


@check(_OVER_LIMITS)
def _pod_resources(body: Body) -> Iterator[Breach]:
    of_pod = body.pod.get("resources", {})
    limits, requests = of_pod.get("limits", {}), of_pod.get("requests", {})
    for container in body.containers:
        if container.is_init:
            continue
        for name, value in container.fields.get("resources", {}).get("limits", {}).items():
            own, whole = _amount(value), _amount(limits.get(name, value))
            if (
                not isinstance(own, ValueError)
                and not isinstance(whole, ValueError)
                and own > whole
            ):
                yield (
                    (*container.pointer, "resources", "limits", name),
                    f"the limit {value} is above the Pod's, {limits[name]}",
                    "lower it, or raise the Pod's",
                )
    for name, value in requests.items():
        whole = _amount(value)
        asked = [
            _amount(
                resources.get("requests", {}).get(name, resources.get("limits", {}).get(name, 0))
            )
            for container in body.containers
            if not container.is_init
            for resources in (container.fields.get("resources", {}),)
        ]
        amounts = [one for one in asked if not isinstance(one, ValueError)]
        if not isinstance(whole, ValueError) and sum(amounts) > whole:
            message = f"the containers request more {name} than the Pod, {value}"
            yield (*POD, "resources", "requests", name), message, "raise it"


@check(
    error(
        "resize-policy",
        "A `resizePolicy` must be unique per resource and fit the Pod's `restartPolicy`.",
        API_SERVER_REJECTS,
    )
)
def _resize_policy(body: Body) -> Iterator[Breach]:
    never = body.pod.get("restartPolicy") == "Never"
    for container in body.containers:
        seen: set[str] = set()
        for index, policy in enumerate(container.fields.get("resizePolicy", ())):
            at = (*container.pointer, "resizePolicy", index)
            if (name := policy.get("resourceName", "")) in seen:
                message = f"there are two policies of resizing {shown(name)}"
                yield at, message, "delete one of them"
            seen.add(name)
            if never and policy.get("restartPolicy") == "RestartContainer":
                message = "a Pod that restarts Never restarts no container"
                yield (*at, "restartPolicy"), message, "write NotRequired"


_OVERCOMMITTED: Final = ("cpu", "memory", "ephemeral-storage")


def _resources(body: Body) -> Iterator[tuple[Pointer, Mapping[str, Any]]]:
    for container in body.containers:
        yield (*container.pointer, "resources"), container.fields.get("resources", {})
    yield (*POD, "resources"), body.pod.get("resources", {})


def _quantities(body: Body) -> Iterator[tuple[Pointer, str, Any]]:
    for at, resources in _resources(body):
        for kind in ("requests", "limits"):
            for name, value in resources.get(kind, {}).items():
                yield (*at, kind, name), name, value


def _amount(value: str | float) -> Decimal | ValueError:
    try:
        return parse_quantity(value)
    except ValueError as problem:
        return problem

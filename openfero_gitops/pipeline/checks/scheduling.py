"""What the API server refuses in the wishes for a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.pipeline.body import POD
from openfero_gitops.pipeline.dns import is_label_value, is_qualified_name
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.pipeline.body import Body

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_HEAVIEST: Final = 100


@check(error("toleration", "A toleration's operator, value, effect and seconds fit each other."))
def _toleration(body: Body) -> Iterator[Breach]:
    for index, toleration in enumerate(body.pod.get("tolerations", ())):
        at = (*POD, "tolerations", index)
        key, value = toleration.get("key", ""), toleration.get("value", "")
        operator = toleration.get("operator") or "Equal"
        if key and not is_qualified_name(key):
            yield (*at, "key"), f"{shown(key)} is no taint's key", ""
        if operator == "Exists" and value:
            yield (*at, "value"), "operator: Exists has no value", "delete the value"
        elif operator == "Equal" and not key:
            yield at, "without a key the operator is Exists", "write operator: Exists"
        elif operator == "Equal" and not is_label_value(value):
            yield (*at, "value"), f"{shown(value)} is no taint's value", ""
        elif operator not in ("Exists", "Equal"):
            yield (*at, "operator"), f"{shown(operator)} is neither Exists nor Equal", ""
        if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
            message = "tolerationSeconds are for effect: NoExecute"
            yield (*at, "tolerationSeconds"), message, ""


@check(error("affinity", "Affinities and spread constraints are complete."))
def _affinity(body: Body) -> Iterator[Breach]:
    affinity = body.pod.get("affinity", {})
    at: Pointer = (*POD, "affinity", "nodeAffinity")
    node = affinity.get("nodeAffinity", {})
    required = node.get(_REQUIRED)
    if required is not None:
        here = (*at, _REQUIRED, "nodeSelectorTerms")
        if required.get("nodeSelectorTerms") == []:
            yield here, "one term at least is wanted", ""
        for index, term in enumerate(required.get("nodeSelectorTerms", ())):
            yield from _expressions((*here, index), term)
    for index, preferred in enumerate(node.get(_PREFERRED, ())):
        here = (*at, _PREFERRED, index)
        yield from _weight(here, preferred)
        yield from _expressions((*here, "preference"), preferred.get("preference", {}))
    for kind in ("podAffinity", "podAntiAffinity"):
        at = (*POD, "affinity", kind)
        for index, term in enumerate(affinity.get(kind, {}).get(_REQUIRED, ())):
            yield from _pod_term((*at, _REQUIRED, index), term)
        for index, preferred in enumerate(affinity.get(kind, {}).get(_PREFERRED, ())):
            here = (*at, _PREFERRED, index)
            yield from _weight(here, preferred)
            yield from _pod_term((*here, "podAffinityTerm"), preferred.get("podAffinityTerm", {}))
    for index, constraint in enumerate(body.pod.get("topologySpreadConstraints", ())):
        here = (*POD, "topologySpreadConstraints", index)
        yield from _pod_term(here, constraint)
        if constraint.get("maxSkew", 1) < 1:
            yield (*here, "maxSkew"), "maxSkew is 1 at least", ""


def _weight(at: Pointer, preferred: Mapping[str, Any]) -> Iterator[Breach]:
    if not 1 <= preferred.get("weight", 1) <= _HEAVIEST:
        yield (*at, "weight"), f"a weight is from 1 to {_HEAVIEST}", ""


def _pod_term(at: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    key = term.get("topologyKey")
    if key is not None and not is_qualified_name(key):
        yield (*at, "topologyKey"), f"{shown(key)} is no label key of nodes", ""
    yield from _expressions((*at, "labelSelector"), term.get("labelSelector", {}))


def _expressions(at: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    for index, expression in enumerate(term.get("matchExpressions", ())):
        here = (*at, "matchExpressions", index)
        key, operator = expression.get("key", ""), expression.get("operator")
        values = expression.get("values", [])
        if not is_qualified_name(key):
            yield (*here, "key"), f"{shown(key)} is no label key", ""
        if operator in ("In", "NotIn") and not values:
            yield (*here, "values"), f"operator: {operator} has values", ""
        elif operator in ("Exists", "DoesNotExist") and values:
            yield (*here, "values"), f"operator: {operator} has no values", "delete them"
        elif operator in ("Gt", "Lt") and len(values) != 1:
            yield (*here, "values"), f"operator: {operator} has one value", ""
        elif operator in ("In", "NotIn") and not all(map(is_label_value, values)):
            yield (*here, "values"), "one of the values is no label's", ""

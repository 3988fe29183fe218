"""What the API server refuses in the wishes for a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.pipeline.body import POD
from openfero_gitops.pipeline.dns import is_dns_subdomain, is_label_value, is_qualified_name
from openfero_gitops.pipeline.rules import Breach, Pointer, check, did_you_mean, error, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
            yield from _node_term((*here, index), term)
    for index, preferred in enumerate(node.get(_PREFERRED, ())):
        here = (*at, _PREFERRED, index)
        yield from _weight(here, preferred)
        yield from _node_term((*here, "preference"), preferred.get("preference", {}))
    for kind in ("podAffinity", "podAntiAffinity"):
        at = (*POD, "affinity", kind)
        for index, term in enumerate(affinity.get(kind, {}).get(_REQUIRED, ())):
            yield from _pod_term((*at, _REQUIRED, index), term)
        for index, preferred in enumerate(affinity.get(kind, {}).get(_PREFERRED, ())):
            here = (*at, _PREFERRED, index)
            yield from _weight(here, preferred)
            yield from _pod_term((*here, "podAffinityTerm"), preferred.get("podAffinityTerm", {}))
    yield from _spread(body.pod.get("topologySpreadConstraints", ()))


def _spread(constraints: Sequence[Mapping[str, Any]]) -> Iterator[Breach]:
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        here = (*POD, "topologySpreadConstraints", index)
        yield from _pod_term(here, constraint)
        if constraint.get("maxSkew", 1) < 1:
            yield (*here, "maxSkew"), "maxSkew is 1 at least", ""
        when = constraint.get("whenUnsatisfiable", "")
        domains = constraint.get("minDomains")
        if domains is not None and (domains < 1 or when != "DoNotSchedule"):
            message = "minDomains is 1 at least, and for whenUnsatisfiable: DoNotSchedule"
            yield (*here, "minDomains"), message, ""
        if (pair := (constraint.get("topologyKey", ""), when)) in seen:
            yield here, f"a constraint on {shown(pair[0])} stands before", "delete one of them"
        seen.add(pair)


def _weight(at: Pointer, preferred: Mapping[str, Any]) -> Iterator[Breach]:
    if not 1 <= preferred.get("weight", 1) <= _HEAVIEST:
        yield (*at, "weight"), f"a weight is from 1 to {_HEAVIEST}", ""


def _pod_term(at: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    key = term.get("topologyKey")
    if key is not None and not is_qualified_name(key):
        yield (*at, "topologyKey"), f"{shown(key)} is no label key of nodes", ""
    for kind in ("labelSelector", "namespaceSelector"):
        yield from selector((*at, kind), term.get(kind, {}))
    of_labels = term.get("labelSelector")
    named = {*(of_labels or {}).get("matchLabels", ())} | {
        one.get("key") for one in (of_labels or {}).get("matchExpressions", ())
    }
    for kind in ("matchLabelKeys", "mismatchLabelKeys"):
        keys = term.get(kind, ())
        if keys and of_labels is None:
            yield (*at, kind), f"{kind} stand beside a labelSelector", "delete them"
        for index, key in enumerate(keys):
            if not is_qualified_name(key):
                yield (*at, kind, index), f"{shown(key)} is no label key", ""
            elif kind == "matchLabelKeys" and (key in named or key in term.get(_UNLIKE, ())):
                yield (*at, kind, index), f"{shown(key)} is selected by already", "delete it"


_UNLIKE: Final = "mismatchLabelKeys"


def _node_term(at: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    yield from _expressions(at, term, _OF_NODES)
    for index, field in enumerate(term.get("matchFields", ())):
        here = (*at, "matchFields", index)
        if field.get("key") != "metadata.name":
            yield (*here, "key"), "of a node's fields only metadata.name is matched", ""
        if field.get("operator") not in ("In", "NotIn"):
            yield (*here, "operator"), "it is In or NotIn", ""
        elif len(field.get("values", ())) != 1 or not is_dns_subdomain(field["values"][0]):
            yield (*here, "values"), "it is one node's name", ""


def selector(at: Pointer, labels: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with a selector of labels."""
    for key, value in labels.get("matchLabels", {}).items():
        if not is_qualified_name(key):
            yield (*at, "matchLabels", key), f"{shown(key)} is no label key", ""
        if not is_label_value(value):
            yield (*at, "matchLabels", key), f"{shown(value)} is no label's value", ""
    yield from _expressions(at, labels, _OF_LABELS)


_OF_LABELS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_OF_NODES: Final = (*_OF_LABELS, "Gt", "Lt")


def _expressions(
    at: Pointer, term: Mapping[str, Any], operators: Sequence[str]
) -> Iterator[Breach]:
    for index, expression in enumerate(term.get("matchExpressions", ())):
        here = (*at, "matchExpressions", index)
        key, operator = expression.get("key", ""), expression.get("operator")
        values = expression.get("values", [])
        if not is_qualified_name(key):
            yield (*here, "key"), f"{shown(key)} is no label key", ""
        if operator not in operators:
            message = f"{shown(operator)} is none of {', '.join(operators)}"
            yield (*here, "operator"), message, did_you_mean(str(operator), operators)
        elif operator in ("In", "NotIn") and not values:
            yield (*here, "values"), f"operator: {operator} has values", ""
        elif operator in ("Exists", "DoesNotExist") and values:
            yield (*here, "values"), f"operator: {operator} has no values", "delete them"
        elif operator in ("Gt", "Lt") and len(values) != 1:
            yield (*here, "values"), f"operator: {operator} has one value", ""
        elif not all(map(is_label_value, values)):
            yield (*here, "values"), "one of the values is no label's", ""


@check(error("claim", "A Pod's claims have names of their own, and each says what it claims."))
def _claim(body: Body) -> Iterator[Breach]:
    claims = body.pod.get("resourceClaims", ())
    names: set[str] = set()
    for index, claim in enumerate(claims):
        at = (*POD, "resourceClaims", index)
        name = claim.get("name", "")
        if name in names:
            yield (*at, "name"), f"there are two of the claim {shown(name)}", "rename one of them"
        names.add(name)
        said = claim.get("source", claim)  # (as Kubernetes 1.30 still has it)
        if ("resourceClaimName" in said) is ("resourceClaimTemplateName" in said):
            yield at, "a claim names either a resourceClaimName or a resourceClaimTemplateName", ""
    for container in body.containers:
        used: set[str] = set()
        for index, claim in enumerate(container.fields.get("resources", {}).get("claims", ())):
            here: Pointer = (*container.pointer, "resources", "claims", index)
            name = claim.get("name", "")
            if name not in names:
                yield here, f"the Pod has no claim {shown(name)}", "add it under resourceClaims"
            asked = f"{name}/{claim.get('request', '')}"
            if asked in used or (f"{name}/" in used):
                yield here, f"the claim {shown(name)} is used already", "delete one of them"
            used.add(asked)
    if "claims" in body.pod.get("resources", {}):
        yield (*POD, "resources", "claims"), "a container has claims, not the Pod", "move them"


@check(error("named-twice", "A scheduling gate and a sysctl are named once."))
def _named_once(body: Body) -> Iterator[Breach]:
    for at, entries in (
        ((*POD, "schedulingGates"), body.pod.get("schedulingGates", ())),
        (
            (*POD, "securityContext", "sysctls"),
            body.pod.get("securityContext", {}).get("sysctls", ()),
        ),
    ):
        seen: set[str] = set()
        for index, entry in enumerate(entries):
            if (name := entry.get("name", "")) in seen:
                yield (*at, index, "name"), f"{shown(name)} is named twice", "delete one of them"
            seen.add(name)

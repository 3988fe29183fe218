"""What the API server rejects in the fields that choose a node, and in resource claims."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, items_of
from openfero_gitops.catalog.validation.rules import Breach, check, duplicates, kubernetes_error
from openfero_gitops.domain.dns import is_dns_subdomain, is_label_value, is_qualified_name
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.domain.rule import Pointer

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_MAX_WEIGHT: Final = 100
_KEY: Final = "write name or domain/name"
_VALUE: Final = "write letters, digits, -, _ and ., at most 63, a letter or digit at both ends"
_LABEL_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_NODE_OPERATORS: Final = (*_LABEL_OPERATORS, "Gt", "Lt")


@check(
    kubernetes_error(
        "toleration",
        "The operator, value, effect and seconds of a toleration must be consistent.",
    )
)
def _toleration(body: Body) -> Iterator[Breach]:
    for pointer, toleration in items_of(POD, body.pod, "tolerations"):
        key, value = toleration.get("key", ""), toleration.get("value", "")
        operator = toleration.get("operator") or "Equal"
        if key and not is_qualified_name(key):
            yield (*pointer, "key"), f"{shown(key)} is not a valid taint key", _KEY
        if operator == "Exists" and value:
            yield (*pointer, "value"), "operator: Exists cannot have a value", "delete the value"
        elif operator == "Equal" and not key:
            message = "a toleration without a key requires operator: Exists"
            yield pointer, message, "write operator: Exists, or add a key"
        elif operator == "Equal" and not is_label_value(value):
            yield (*pointer, "value"), f"{shown(value)} is not a valid taint value", _VALUE
        elif operator not in ("Exists", "Equal"):
            message = f"operator must be Exists or Equal, not {shown(operator)}"
            suggestion = partial(did_you_mean, operator, ("Exists", "Equal"))
            yield (*pointer, "operator"), message, suggestion
        if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
            message = "tolerationSeconds requires effect: NoExecute"
            yield (*pointer, "tolerationSeconds"), message, "delete it, or set that effect"


@check(
    kubernetes_error(
        "affinity", "Affinity terms and topology spread constraints must be complete and valid."
    )
)
def _affinity(body: Body) -> Iterator[Breach]:
    affinity = body.pod.get("affinity", {})
    node_affinity = affinity.get("nodeAffinity", {})
    node_pointer = (*POD, "affinity", "nodeAffinity")
    required = node_affinity.get(_REQUIRED)
    if required is not None:
        if required.get("nodeSelectorTerms") == []:
            message = "nodeSelectorTerms is empty: no node matches"
            suggestion = "add a term, or delete the requirement"
            yield (*node_pointer, _REQUIRED, "nodeSelectorTerms"), message, suggestion
        for pointer, term in items_of((*node_pointer, _REQUIRED), required, "nodeSelectorTerms"):
            yield from _node_term(pointer, term)
    for pointer, preferred in items_of(node_pointer, node_affinity, _PREFERRED):
        yield from _weight(pointer, preferred)
        yield from _node_term((*pointer, "preference"), preferred.get("preference", {}))
    for kind in ("podAffinity", "podAntiAffinity"):
        pod_affinity = affinity.get(kind, {})
        for pointer, term in items_of((*POD, "affinity", kind), pod_affinity, _REQUIRED):
            yield from _pod_term(pointer, term)
        for pointer, preferred in items_of((*POD, "affinity", kind), pod_affinity, _PREFERRED):
            yield from _weight(pointer, preferred)
            yield from _pod_term(
                (*pointer, "podAffinityTerm"), preferred.get("podAffinityTerm", {})
            )
    yield from _spread(items_of(POD, body.pod, "topologySpreadConstraints"))


def _spread(constraints: Sequence[tuple[Pointer, Mapping[str, Any]]]) -> Iterator[Breach]:
    seen: set[tuple[str, str]] = set()
    for pointer, constraint in constraints:
        yield from _pod_term(pointer, constraint)
        if constraint.get("maxSkew", 1) < 1:
            yield (*pointer, "maxSkew"), "maxSkew must be at least 1", "write 1"
        when = constraint.get("whenUnsatisfiable", "")
        domains = constraint.get("minDomains")
        if domains is not None and (domains < 1 or when != "DoNotSchedule"):
            message = "minDomains must be at least 1 and requires whenUnsatisfiable: DoNotSchedule"
            yield (*pointer, "minDomains"), message, "delete it"
        if (pair := (constraint.get("topologyKey", ""), when)) in seen:
            message = f"the constraint on topologyKey {shown(pair[0])} is not unique"
            yield pointer, message, "delete one of them"
        seen.add(pair)


def _weight(pointer: Pointer, preferred: Mapping[str, Any]) -> Iterator[Breach]:
    weight = preferred.get("weight", 1)
    if not 1 <= weight <= _MAX_WEIGHT:
        message = f"weight must be from 1 to {_MAX_WEIGHT}, but is {weight}"
        yield (*pointer, "weight"), message, f"write {_MAX_WEIGHT}"


def _pod_term(pointer: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    key = term.get("topologyKey")
    if key is not None and not is_qualified_name(key):
        message = f"topologyKey {shown(key)} is not a valid label key"
        yield (*pointer, "topologyKey"), message, "for example kubernetes.io/hostname"
    for kind in ("labelSelector", "namespaceSelector"):
        yield from selector((*pointer, kind), term.get(kind, {}))
    labels = term.get("labelSelector") or {}
    selected = {*labels.get("matchLabels", ())} | {
        expression.get("key") for expression in labels.get("matchExpressions", ())
    }
    selected.update(term.get("mismatchLabelKeys", ()))
    for kind in ("matchLabelKeys", "mismatchLabelKeys"):
        keys = term.get(kind, ())
        if keys and term.get("labelSelector") is None:
            yield (*pointer, kind), f"{kind} requires a labelSelector", "delete it"
        for index, key in enumerate(keys):
            if not is_qualified_name(key):
                yield (*pointer, kind, index), f"{shown(key)} is not a valid label key", _KEY
            elif kind == "matchLabelKeys" and key in selected:
                message = f"label key {shown(key)} is already selected"
                yield (*pointer, kind, index), message, "delete it"


def _node_term(pointer: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    yield from _expressions(pointer, term, _NODE_OPERATORS)
    for at, field in items_of(pointer, term, "matchFields"):
        if field.get("key") != "metadata.name":
            message = "matchFields supports only metadata.name"
            yield (*at, "key"), message, "write metadata.name"
        if field.get("operator") not in ("In", "NotIn"):
            message = "matchFields supports only the operators In and NotIn"
            yield (*at, "operator"), message, "write In"
        elif len(field.get("values", ())) != 1 or not is_dns_subdomain(field["values"][0]):
            message = "matchFields requires exactly one value, the name of a node"
            yield (*at, "values"), message, "for example [worker-1]"


def selector(pointer: Pointer, labels: Mapping[str, Any]) -> Iterator[Breach]:
    """Check a label selector."""
    for key, value in labels.get("matchLabels", {}).items():
        if not is_qualified_name(key):
            yield (*pointer, "matchLabels", key), f"{shown(key)} is not a valid label key", _KEY
        if not is_label_value(value):
            message = f"{shown(value)} is not a valid label value"
            yield (*pointer, "matchLabels", key), message, _VALUE
    yield from _expressions(pointer, labels, _LABEL_OPERATORS)


def _expressions(
    pointer: Pointer, term: Mapping[str, Any], operators: Sequence[str]
) -> Iterator[Breach]:
    for at, expression in items_of(pointer, term, "matchExpressions"):
        key, operator = expression.get("key", ""), expression.get("operator")
        values = expression.get("values", [])
        if not is_qualified_name(key):
            yield (*at, "key"), f"{shown(key)} is not a valid label key", _KEY
        if operator not in operators:
            message = f"operator must be one of {', '.join(operators)}, not {shown(operator)}"
            yield (*at, "operator"), message, partial(did_you_mean, str(operator), operators)
        elif operator in ("In", "NotIn") and not values:
            message = f"operator {operator} requires values"
            yield (*at, "values"), message, "add values: […], or write Exists"
        elif operator in ("Exists", "DoesNotExist") and values:
            message = f"operator {operator} cannot have values"
            yield (*at, "values"), message, "delete the values, or write In"
        elif operator in ("Gt", "Lt") and len(values) != 1:
            message = f"operator {operator} requires exactly one value, not {len(values)}"
            yield (*at, "values"), message, 'for example ["5"]'
        elif not all(map(is_label_value, values)):
            invalid = next(value for value in values if not is_label_value(value))
            yield (*at, "values"), f"{shown(invalid)} is not a valid label value", _VALUE


@check(
    kubernetes_error(
        "claim",
        "Resource claims must be complete and have unique names; containers must use only these.",
    )
)
def _claim(body: Body) -> Iterator[Breach]:
    claims = items_of(POD, body.pod, "resourceClaims")
    names = {claim.get("name", "") for _, claim in claims}
    yield from duplicates("claim name", "name", claims)
    for pointer, claim in claims:
        source = claim.get("source", claim)  # Kubernetes 1.30 has the field `source`
        if ("resourceClaimName" in source) is ("resourceClaimTemplateName" in source):
            message = "a claim must have either resourceClaimName or resourceClaimTemplateName"
            yield pointer, message, "write one of them"
    for container in body.containers:
        used: set[str] = set()
        resources = container.fields.get("resources", {})
        for pointer, claim in items_of((*container.pointer, "resources"), resources, "claims"):
            name = claim.get("name", "")
            if name not in names:
                message = f"the Pod has no claim {shown(name)}"
                yield (*pointer, "name"), message, "add it under resourceClaims"
            request = f"{name}/{claim.get('request', '')}"
            if request in used or f"{name}/" in used:
                yield pointer, f"claim {shown(name)} is already used", "delete one of them"
            used.add(request)
    if "claims" in body.pod.get("resources", {}):
        message = "claims cannot be set for the Pod as a whole"
        yield (*POD, "resources", "claims"), message, "move them to the containers"


@check(kubernetes_error("named-twice", "Scheduling gates and sysctls must be unique."))
def _named_twice(body: Body) -> Iterator[Breach]:
    gates = items_of(POD, body.pod, "schedulingGates")
    yield from duplicates("scheduling gate", "name", gates)
    context = body.pod.get("securityContext", {})
    sysctls = items_of((*POD, "securityContext"), context, "sysctls")
    yield from duplicates("sysctl", "name", sysctls)

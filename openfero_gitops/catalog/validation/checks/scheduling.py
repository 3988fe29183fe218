"""What the API server refuses in the wishes for a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.dns import is_dns_subdomain, is_label_value, is_qualified_name
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openfero_gitops.catalog.validation.body import Body

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_HEAVIEST: Final = 100
_KEY: Final = "write name or domain/name"
_VALUE: Final = "write letters, digits, -, _ and ., at most 63, a letter or digit at both ends"


@check(
    error(
        "toleration",
        "The operator, value, effect and seconds of a toleration must be consistent.",
        API_SERVER_REJECTS,
    )
)
def _toleration(body: Body) -> Iterator[Breach]:
    for index, toleration in enumerate(body.pod.get("tolerations", ())):
        at = (*POD, "tolerations", index)
        key, value = toleration.get("key", ""), toleration.get("value", "")
        operator = toleration.get("operator") or "Equal"
        if key and not is_qualified_name(key):
            yield (*at, "key"), f"{shown(key)} is no taint's key", _KEY
        if operator == "Exists" and value:
            yield (*at, "value"), "operator: Exists has no value", "delete the value"
        elif operator == "Equal" and not key:
            message = "a toleration without a key is of every taint, and has operator: Exists"
            yield at, message, "write operator: Exists, or add a key"
        elif operator == "Equal" and not is_label_value(value):
            yield (*at, "value"), f"{shown(value)} is no taint's value", _VALUE
        elif operator not in ("Exists", "Equal"):
            message = f"the operator {shown(operator)} is neither Exists nor Equal"
            yield (*at, "operator"), message, did_you_mean(operator, ("Exists", "Equal"))
        if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
            message = "tolerationSeconds go with effect: NoExecute alone"
            yield (*at, "tolerationSeconds"), message, "delete them, or write that effect"


@check(
    error(
        "affinity",
        "Affinity terms and topology spread constraints must be complete and valid.",
        API_SERVER_REJECTS,
    )
)
def _affinity(body: Body) -> Iterator[Breach]:
    affinity = body.pod.get("affinity", {})
    at: Pointer = (*POD, "affinity", "nodeAffinity")
    node = affinity.get("nodeAffinity", {})
    required = node.get(_REQUIRED)
    if required is not None:
        here = (*at, _REQUIRED, "nodeSelectorTerms")
        if required.get("nodeSelectorTerms") == []:
            message = "nodeSelectorTerms are empty: no node would fit"
            yield here, message, "add a term, or delete the requirement"
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
            yield (*here, "maxSkew"), "maxSkew is 1 at least", "write 1"
        when = constraint.get("whenUnsatisfiable", "")
        domains = constraint.get("minDomains")
        if domains is not None and (domains < 1 or when != "DoNotSchedule"):
            message = "minDomains is 1 at least, and goes with whenUnsatisfiable: DoNotSchedule"
            yield (*here, "minDomains"), message, "delete it"
        if (pair := (constraint.get("topologyKey", ""), when)) in seen:
            message = f"there are two such constraints on {shown(pair[0])}"
            yield here, message, "delete one of them"
        seen.add(pair)


def _weight(at: Pointer, preferred: Mapping[str, Any]) -> Iterator[Breach]:
    if not 1 <= preferred.get("weight", 1) <= _HEAVIEST:
        message = f"the weight is {preferred['weight']}, and may be from 1 to {_HEAVIEST}"
        yield (*at, "weight"), message, f"write {_HEAVIEST}"


def _pod_term(at: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    key = term.get("topologyKey")
    if key is not None and not is_qualified_name(key):
        message = f"{shown(key)} is no key of a node's label"
        yield (*at, "topologyKey"), message, "write kubernetes.io/hostname"
    for kind in ("labelSelector", "namespaceSelector"):
        yield from selector((*at, kind), term.get(kind, {}))
    of_labels = term.get("labelSelector")
    named = {*(of_labels or {}).get("matchLabels", ())} | {
        one.get("key") for one in (of_labels or {}).get("matchExpressions", ())
    }
    for kind in ("matchLabelKeys", "mismatchLabelKeys"):
        keys = term.get(kind, ())
        if keys and of_labels is None:
            yield (*at, kind), f"{kind} need a labelSelector beside them", "delete them"
        for index, key in enumerate(keys):
            if not is_qualified_name(key):
                yield (*at, kind, index), f"{shown(key)} is no label key", _KEY
            elif kind == "matchLabelKeys" and (key in named or key in term.get(_UNLIKE, ())):
                yield (*at, kind, index), f"{shown(key)} is selected by already", "delete it"


_UNLIKE: Final = "mismatchLabelKeys"


def _node_term(at: Pointer, term: Mapping[str, Any]) -> Iterator[Breach]:
    yield from _expressions(at, term, _OF_NODES)
    for index, field in enumerate(term.get("matchFields", ())):
        here = (*at, "matchFields", index)
        if field.get("key") != "metadata.name":
            message = "of a node's fields only its name is matched"
            yield (*here, "key"), message, "write metadata.name"
        if field.get("operator") not in ("In", "NotIn"):
            message = "a node's name is matched with In or NotIn"
            yield (*here, "operator"), message, "write In"
        elif len(field.get("values", ())) != 1 or not is_dns_subdomain(field["values"][0]):
            message = "a node's name is matched with one value, a name"
            yield (*here, "values"), message, "write [worker-1]"


def selector(at: Pointer, labels: Mapping[str, Any]) -> Iterator[Breach]:
    """What is wrong with a selector of labels."""
    for key, value in labels.get("matchLabels", {}).items():
        if not is_qualified_name(key):
            yield (*at, "matchLabels", key), f"{shown(key)} is no label key", _KEY
        if not is_label_value(value):
            yield (*at, "matchLabels", key), f"{shown(value)} is no label's value", _VALUE
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
            yield (*here, "key"), f"{shown(key)} is no label key", _KEY
        if operator not in operators:
            message = f"{shown(operator)} is none of {', '.join(operators)}"
            yield (*here, "operator"), message, did_you_mean(str(operator), operators)
        elif operator in ("In", "NotIn") and not values:
            message = f"the operator {operator} compares {shown(key)} with values, and has none"
            yield (*here, "values"), message, "add values: […], or write Exists"
        elif operator in ("Exists", "DoesNotExist") and values:
            message = f"the operator {operator} asks only whether {shown(key)} is there"
            yield (*here, "values"), message, "delete the values, or write In"
        elif operator in ("Gt", "Lt") and len(values) != 1:
            message = f"the operator {operator} compares with one value, not {len(values)}"
            yield (*here, "values"), message, 'write ["5"]'
        elif not all(map(is_label_value, values)):
            wrong = next(value for value in values if not is_label_value(value))
            yield (*here, "values"), f"{shown(wrong)} is no label's value", _VALUE


@check(
    error(
        "claim",
        "Resource claims must be complete and have unique names; containers must use only these.",
        API_SERVER_REJECTS,
    )
)
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
            message = "a claim has either a resourceClaimName or a resourceClaimTemplateName"
            yield at, message, "write one of them"
    for container in body.containers:
        used: set[str] = set()
        for index, claim in enumerate(container.fields.get("resources", {}).get("claims", ())):
            here: Pointer = (*container.pointer, "resources", "claims", index)
            name = claim.get("name", "")
            if name not in names:
                message = f"the Pod has no claim {shown(name)}"
                yield (*here, "name"), message, "add it under resourceClaims"
            asked = f"{name}/{claim.get('request', '')}"
            if asked in used or (f"{name}/" in used):
                yield here, f"the claim {shown(name)} is used already", "delete one of them"
            used.add(asked)
    if "claims" in body.pod.get("resources", {}):
        message = "claims are used by containers, not by the Pod as a whole"
        yield (*POD, "resources", "claims"), message, "move them to the containers"


@check(
    error(
        "named-twice",
        "Scheduling gates and sysctls must be unique.",
        API_SERVER_REJECTS,
    )
)
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

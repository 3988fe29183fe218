"""What the API server rejects in a Job's own fields, and the fields that are reserved."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, SPEC, items_of
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error
from openfero_gitops.domain import keys
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body

_COUNTS: Final = (
    "activeDeadlineSeconds",
    "backoffLimit",
    "backoffLimitPerIndex",
    "completions",
    "maxFailedIndexes",
    "parallelism",
    "ttlSecondsAfterFinished",
)
_USERS: Final = ("runAsUser", "runAsGroup", "fsGroup")
_MAX_INT32: Final = 2**31 - 1
# Kubernetes limits an Indexed Job further when it has very many completions.
_MANY_INDEXES: Final = 100_000
_MAX_OF_MANY_INDEXES: Final = 10_000
_INTERVAL: Final = re.compile(r"(0|[1-9][0-9]{0,9})(?:-(0|[1-9][0-9]{0,9}))?")
_INTERVAL_INSIDE: Final = re.compile(r"([0-9]{1,10})(?:\s*-\s*([0-9]{1,10}))?")
_MAX_FAILURE_RULES: Final = 20
_MAX_EXIT_CODES: Final = 255
_MAX_SUGGESTION_CHARACTERS: Final = 200

RESTART_POLICY = error(
    "restart-policy",
    "A Job must set `restartPolicy` to `Never` or `OnFailure`.",
    "The default of a Pod is `Always`, which Kubernetes rejects in a Job, because such a Pod never "
    "finishes.",
)
OUT_OF_RANGE = kubernetes_error(
    "out-of-range", "A number, or the length of a list, must be within the range of its field."
)

POD_FAILURE_POLICY = kubernetes_error(
    "pod-failure-policy", "A `podFailurePolicy` must be complete and consistent with its Job."
)


@check(RESTART_POLICY)
def _restart_policy(body: Body) -> Iterator[Breach]:
    policy = body.pod.get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        problem = f"is {policy}" if policy else "is missing"
        message = f"restartPolicy {problem}: a Job requires Never or OnFailure"
        yield (*POD, "restartPolicy"), message, "write restartPolicy: Never"
    for container in body.containers:
        policy = container.fields.get("restartPolicy")
        if policy and policy not in ("Always", "Never", "OnFailure"):
            message = f"restartPolicy must be Always, Never or OnFailure, not {shown(policy)}"
            yield (*container.pointer, "restartPolicy"), message, "delete it to use the Pod's"


@check(
    error(
        "reserved-field",
        "A Job must not set `selector`, `manualSelector` or `managedBy`.",
        "With these fields a Job can adopt other Pods or be run by another controller, so that its "
        "limits could not be enforced and its end would not be noticed. The exception is "
        "`managedBy: kueue.x-k8s.io/multikueue` in a Job with the label "
        "`kueue.x-k8s.io/queue-name`: Kueue runs it on another cluster and reports its end.",
        "delete it",
    )
)
def _reserved_field(body: Body) -> Iterator[Breach]:
    for field in ("selector", "manualSelector"):
        if field in body.spec:
            message = f"{field} is reserved: it changes which Pods the Job uses"
            yield (*SPEC, field), message, ""
    manager = body.spec.get("managedBy")
    if manager is None or (manager == keys.KUEUE_MULTIKUEUE and keys.KUEUE_QUEUE in body.labels):
        return
    if manager == keys.KUEUE_MULTIKUEUE:
        message = (
            f"managedBy {manager} requires the label {keys.KUEUE_QUEUE}: without a queue, nothing "
            "runs the Job"
        )
        yield (*SPEC, "managedBy"), message, "add the label, or delete managedBy"
        return
    message = (
        f"managedBy is reserved: only {keys.KUEUE_MULTIKUEUE} is supported, for a Job with the "
        f"label {keys.KUEUE_QUEUE}"
    )
    yield (*SPEC, "managedBy"), message, ""


@check(OUT_OF_RANGE)
def _out_of_range(body: Body) -> Iterator[Breach]:
    contexts = [
        ((*pointer, "securityContext"), fields.get("securityContext"))
        for pointer, fields in body.pod_and_containers()
    ]
    # The schema limits fields of 32 bits; users and deadlines have 64.
    numbers: list[tuple[Pointer, Mapping[str, Any], tuple[str, ...], int, int]] = [
        (SPEC, body.spec, _COUNTS, 0, 2**63),
        (POD, body.pod, ("activeDeadlineSeconds",), 1, _MAX_INT32),
        *((pointer, context, _USERS, 0, _MAX_INT32) for pointer, context in contexts if context),
    ]
    for pointer, fields, names, least, most in numbers:
        for name in names:
            value = fields.get(name)
            if value is not None and not least <= value <= most:
                bound, limit = ("least", least) if value < least else ("most", most)
                message = f"{name} must be at {bound} {limit}, but is {value}"
                yield (*pointer, name), message, f"write {limit}"


@check(
    kubernetes_error(
        "indexed-job",
        "Fields of an Indexed Job require `completionMode: Indexed` and must be consistent.",
    )
)
def _indexed_job(body: Body) -> Iterator[Breach]:
    spec = body.spec
    if spec.get("completionMode") == "Indexed":
        if "completions" not in spec and "parallelism" in spec:
            message = "an Indexed Job requires completions"
            yield (*SPEC, "completions"), message, f"add completions: {spec['parallelism']}"
        if spec.get("parallelism", 1) > _MANY_INDEXES:
            message = f"parallelism of an Indexed Job must be at most {_MANY_INDEXES}"
            yield (*SPEC, "parallelism"), message, f"write {_MANY_INDEXES} or less"
        yield from _failed_indexes(spec)
    else:
        for field in ("backoffLimitPerIndex", "successPolicy"):
            if field in spec:
                message = f"{field} requires an Indexed Job"
                yield (*SPEC, field), message, "add completionMode: Indexed, or delete it"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        message = "maxFailedIndexes requires backoffLimitPerIndex"
        yield (*SPEC, "maxFailedIndexes"), message, "add backoffLimitPerIndex: 0, or delete it"


def _failed_indexes(spec: Mapping[str, Any]) -> Iterator[Breach]:
    completions, failed = spec.get("completions", 1), spec.get("maxFailedIndexes")
    pointer = (*SPEC, "maxFailedIndexes")
    if failed is not None and failed > min(completions, _MANY_INDEXES):
        most = min(completions, _MANY_INDEXES)
        message = f"maxFailedIndexes must be at most {most}, but is {failed}"
        yield pointer, message, f"write {most} or less"
    if completions > _MANY_INDEXES and "backoffLimitPerIndex" in spec:
        suggestion = f"write {_MAX_OF_MANY_INDEXES} or less"
        condition = f"with more than {_MANY_INDEXES} completions"
        if failed is None or failed > _MAX_OF_MANY_INDEXES:
            message = f"maxFailedIndexes is required and at most {_MAX_OF_MANY_INDEXES} {condition}"
            yield pointer, message, suggestion
        if spec.get("parallelism", 1) > _MAX_OF_MANY_INDEXES:
            message = f"parallelism must be at most {_MAX_OF_MANY_INDEXES} {condition}"
            yield (*SPEC, "parallelism"), message, suggestion


@check(
    kubernetes_error("success-policy", "A `successPolicy` must refer to indexes that its Job has.")
)
def _success_policy(body: Body) -> Iterator[Breach]:
    pointer = (*SPEC, "successPolicy", "rules")
    policy = body.spec.get("successPolicy")
    if policy is None or body.spec.get("completionMode") != "Indexed":
        return
    if not policy.get("rules"):
        yield pointer, "successPolicy has no rules", "add a rule, or delete the policy"
    completions = body.spec.get("completions", 1)
    for at, rule in items_of((*SPEC, "successPolicy"), policy, "rules"):
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        most, total = completions, f"{completions} completions"
        if count is None and indexes is None:
            message = "a success rule requires succeededIndexes or succeededCount"
            yield at, message, "add succeededCount: 1"
        if indexes is not None:
            number = _count_indexes(indexes, completions)
            if number is None:
                yield (
                    (*at, "succeededIndexes"),
                    f"{shown(indexes)} is not a sorted list of indexes below {completions}",
                    f"write {_valid_indexes(indexes, completions)}",
                )
                continue
            most, total = min(most, number), f"{number} indexes"
        if count is not None and not 0 <= count <= most:
            message = f"succeededCount is {count}, but the rule has {total}"
            yield (*at, "succeededCount"), message, f"write 0 to {most}"


def _valid_indexes(text: str, completions: int) -> str:
    """The indexes in a text that the Job has, as Kubernetes writes them; otherwise all of them."""
    intervals: list[tuple[int, int]] = []
    named = (
        (int(match[1]), int(match[2] or match[1])) for match in _INTERVAL_INSIDE.finditer(text)
    )
    for first, end in sorted((min(pair), max(pair)) for pair in named):
        last = min(end, completions - 1)
        if first > last:
            continue
        if intervals and first <= intervals[-1][1] + 1:
            intervals[-1] = intervals[-1][0], max(intervals[-1][1], last)
        else:
            intervals.append((first, last))
    chosen = intervals or [(0, completions - 1)]
    return ",".join(str(first) if first >= end else f"{first}-{end}" for first, end in chosen)


def _count_indexes(text: str, completions: int) -> int | None:
    """How many indexes a text such as `0,2-4` contains; None if it is invalid."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        match = _INTERVAL.fullmatch(part)
        if match is None:
            return None
        first, end = int(match[1]), int(match[2] or match[1])
        if not last < first <= end < completions or (match[2] and first == end):
            return None
        total, last = total + end - first + 1, end
    return total


@check(POD_FAILURE_POLICY)
def _pod_failure_policy(body: Body) -> Iterator[Breach]:
    pointer = (*SPEC, "podFailurePolicy")
    policy = body.spec.get("podFailurePolicy")
    if policy is None:
        return
    if body.pod.get("restartPolicy") == "OnFailure":
        message = "podFailurePolicy requires restartPolicy: Never, but it is OnFailure"
        yield pointer, message, "write restartPolicy: Never, or delete the policy"
    if body.spec.get("podReplacementPolicy", "Failed") != "Failed":
        message = "podFailurePolicy requires podReplacementPolicy: Failed"
        yield (*SPEC, "podReplacementPolicy"), message, "delete podReplacementPolicy"
    if len(policy.get("rules", ())) > _MAX_FAILURE_RULES:
        message = f"podFailurePolicy can have at most {_MAX_FAILURE_RULES} rules"
        yield (*pointer, "rules"), message, "combine exit codes in one rule"
    containers = {container.name: None for container in body.containers}  # in their order
    for at, rule in items_of(pointer, policy, "rules"):
        yield from _failure_rule(at, rule, body.spec, containers)


def _failure_rule(
    pointer: Pointer,
    rule: Mapping[str, Any],
    spec: Mapping[str, Any],
    containers: Collection[str],
) -> Iterator[Breach]:
    if ("onExitCodes" in rule) is bool(rule.get("onPodConditions")):
        message = "a rule of podFailurePolicy must have either onExitCodes or onPodConditions"
        yield pointer, message, "write one of them"
    if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in spec:
        message = "action: FailIndex requires backoffLimitPerIndex"
        yield (*pointer, "action"), message, "write FailJob, or add backoffLimitPerIndex"
    codes = rule.get("onExitCodes", {})
    container = codes.get("containerName")
    if container is not None and container not in containers:
        yield (
            (*pointer, "onExitCodes", "containerName"),
            f"the Pod has no container {shown(container)}",
            partial(did_you_mean, container, containers),
        )
    values = codes.get("values")
    if values is not None and (
        not 1 <= len(values) <= _MAX_EXIT_CODES
        or sorted(set(values)) != values
        or (codes.get("operator") == "In" and 0 in values)
    ):
        message = (
            f"exit codes must be sorted and unique, 1 to {_MAX_EXIT_CODES} of them, and with"
            " operator In not include 0"
        )
        valid = sorted({value for value in values if value or codes.get("operator") != "In"})
        suggestion = f"write {valid[:_MAX_EXIT_CODES] or [1, 42]}"
        if len(suggestion) > _MAX_SUGGESTION_CHARACTERS:
            suggestion = "for example [1, 42]"
        yield (*pointer, "onExitCodes", "values"), message, suggestion

"""What the API server refuses in a Job's own fields, and what we refuse there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import POD, SPEC
from openfero_gitops.catalog.validation.rules import API_SERVER_REJECTS, Breach, check
from openfero_gitops.domain.rule import Pointer, error
from openfero_gitops.domain.text import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body


RESTART_POLICY = error(
    "restart-policy",
    "A Job must set `restartPolicy` to `Never` or `OnFailure`.",
    "The default of a Pod is `Always`, which Kubernetes rejects in a Job, because "
    "such a Pod never finishes.",
)


@check(RESTART_POLICY)
def _restart_policy(body: Body) -> Iterator[Breach]:
    policy = body.pod.get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        said = f"restartPolicy is {policy}" if policy else "restartPolicy is missing"
        yield (
            (*POD, "restartPolicy"),
            f"{said}: a Job's is Never or OnFailure",
            "write restartPolicy: Never",
        )
    for container in body.containers:
        policy = container.fields.get("restartPolicy")
        if policy and policy not in ("Always", "Never", "OnFailure"):
            yield (
                (*container.pointer, "restartPolicy"),
                f"{shown(policy)} is none of Always, Never, OnFailure",
                "delete it: the Pod's counts",
            )


@check(
    error(
        "reserved-field",
        "A Job must not set `selector`, `manualSelector` or `managedBy`.",
        "With these fields a Job can adopt other Pods or be run by another controller, "
        "so that its limits could not be enforced and its end would not be noticed.",
    )
)
def _reserved_field(body: Body) -> Iterator[Breach]:
    for field in ("selector", "manualSelector", "managedBy"):
        if field in body.spec:
            yield (
                (*SPEC, field),
                f"{field} would take the Job out of the hands that start and count it",
                f"delete {field}",
            )


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
_LARGEST: Final = 2**31 - 1

OUT_OF_RANGE = error(
    "out-of-range",
    "A number, or the length of a list, must be within the range of its field.",
    API_SERVER_REJECTS,
)


@check(OUT_OF_RANGE)
def _out_of_range(body: Body) -> Iterator[Breach]:
    contexts = [
        ((*at, "securityContext"), fields.get("securityContext"))
        for at, fields in ((POD, body.pod), *((c.pointer, c.fields) for c in body.containers))
    ]
    # (The schema bounds from above what has 32 bits; of these users and deadlines have 64.)
    numbers: list[tuple[Pointer, Mapping[str, Any], tuple[str, ...], int, int]] = [
        (SPEC, body.spec, _COUNTS, 0, 2**63),
        (POD, body.pod, ("activeDeadlineSeconds",), 1, _LARGEST),
        *((at, context, _USERS, 0, _LARGEST) for at, context in contexts if context),
    ]
    for at, mapping, names, least, most in numbers:
        for name in names:
            value = mapping.get(name)
            if value is not None and not least <= value <= most:
                bound, edge = ("least", least) if value < least else ("most", most)
                yield (*at, name), f"{name} is {value}, and {edge} is the {bound}", f"write {edge}"


@check(
    error(
        "indexed-job",
        "Fields of an Indexed Job require `completionMode: Indexed` and must be consistent.",
        API_SERVER_REJECTS,
    )
)
def _indexed_job(body: Body) -> Iterator[Breach]:
    spec = body.spec
    if spec.get("completionMode") == "Indexed":
        if "completions" not in spec and "parallelism" in spec:
            message = "an Indexed Job says how many indexes it has"
            yield (*SPEC, "completions"), message, f"add completions: {spec['parallelism']}"
        if spec.get("parallelism", 1) > 100_000:  # noqa: PLR2004
            message = "an Indexed Job runs at most 100000 Pods at a time"
            yield (*SPEC, "parallelism"), message, "write 100000 or less"
        yield from _failed_indexes(spec)
    else:
        for field in ("backoffLimitPerIndex", "successPolicy"):
            if field in spec:
                yield (
                    (*SPEC, field),
                    f"{field} is for Indexed Jobs",
                    "write completionMode: Indexed, or delete it",
                )
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        message = "maxFailedIndexes needs backoffLimitPerIndex"
        yield (*SPEC, "maxFailedIndexes"), message, "add backoffLimitPerIndex: 0, or delete it"


_MANY: Final = 100_000
_MOST_OF_MANY: Final = 10_000


def _failed_indexes(spec: Mapping[str, Any]) -> Iterator[Breach]:
    completions, failed = spec.get("completions", 1), spec.get("maxFailedIndexes")
    at = (*SPEC, "maxFailedIndexes")
    if failed is not None and failed > min(completions, _MANY):
        most = min(completions, _MANY)
        yield at, f"of {completions} indexes, {failed} cannot fail", f"write {most} or less"
    if completions > _MANY and "backoffLimitPerIndex" in spec:
        if failed is None or failed > _MOST_OF_MANY:
            message = f"more than {_MANY} completions need maxFailedIndexes"
            yield at, message, f"write {_MOST_OF_MANY} or less"
        if spec.get("parallelism", 1) > _MOST_OF_MANY:
            message = f"of more than {_MANY} completions at most {_MOST_OF_MANY} run at a time"
            yield (*SPEC, "parallelism"), message, f"write {_MOST_OF_MANY} or less"


@check(
    error(
        "success-policy",
        "A `successPolicy` must refer to indexes that its Job has.",
        API_SERVER_REJECTS,
    )
)
def _success_policy(body: Body) -> Iterator[Breach]:
    at = (*SPEC, "successPolicy", "rules")
    policy = body.spec.get("successPolicy")
    if policy is None or body.spec.get("completionMode") != "Indexed":
        return
    if not policy.get("rules"):
        yield at, "the successPolicy has no rules", "add one, or delete the policy"
    completions = body.spec.get("completions", 1)
    for index, rule in enumerate(policy.get("rules", ())):
        count, written = rule.get("succeededCount"), rule.get("succeededIndexes")
        most, message = completions, f"of {completions} completions"
        if count is None and written is None:
            message = "a rule of a successPolicy says which indexes, or how many"
            yield (*at, index), message, "add succeededIndexes: 0-2 or succeededCount: 1"
        if written is not None:
            named = _indexes(written, completions)
            if named is None:
                yield (
                    (*at, index, "succeededIndexes"),
                    f"{shown(written)} are no indexes below {completions}, in order",
                    "write 0,2-4",
                )
                continue
            most, message = min(most, named), f"of {named} indexes"
        if count is not None and not 0 <= count <= most:
            message = f"{message}, {count} cannot succeed"
            yield (*at, index, "succeededCount"), message, f"write 0 to {most}"


def _indexes(text: str, completions: int) -> int | None:
    """How many indexes a text like `0,2-4` names; None where it is none."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        found = _INTERVAL.fullmatch(part)
        if found is None:
            return None
        first, end = int(found[1]), int(found[2] or found[1])
        if not last < first <= end < completions or (found[2] and first == end):
            return None
        total, last = total + end - first + 1, end
    return total


_INTERVAL: Final = re.compile(r"(0|[1-9][0-9]{0,9})(?:-(0|[1-9][0-9]{0,9}))?")
_MOST_RULES: Final = 20
_MOST_CODES: Final = 255

POD_FAILURE_POLICY = error(
    "pod-failure-policy",
    "A `podFailurePolicy` must be complete and consistent with its Job.",
    API_SERVER_REJECTS,
)


@check(POD_FAILURE_POLICY)
def _pod_failure_policy(body: Body) -> Iterator[Breach]:
    at = (*SPEC, "podFailurePolicy")
    policy = body.spec.get("podFailurePolicy")
    if policy is None:
        return
    if body.pod.get("restartPolicy") == "OnFailure":
        message = "a podFailurePolicy needs restartPolicy: Never, and the Pods restart OnFailure"
        yield at, message, "write restartPolicy: Never, or delete the policy"
    if body.spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield (
            (*SPEC, "podReplacementPolicy"),
            "with a podFailurePolicy, podReplacementPolicy is Failed",
            "write podReplacementPolicy: Failed, or leave it out",
        )
    names = {container.name for container in body.containers}
    if len(policy.get("rules", ())) > _MOST_RULES:
        message = f"a podFailurePolicy has at most {_MOST_RULES} rules"
        yield (*at, "rules"), message, "put exit codes together in one rule"
    for index, rule in enumerate(policy.get("rules", ())):
        here = (*at, "rules", index)
        if ("onExitCodes" in rule) is bool(rule.get("onPodConditions")):
            message = "a rule of a podFailurePolicy has either onExitCodes or onPodConditions"
            yield here, message, "write one of them"
        if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in body.spec:
            message = "action: FailIndex needs backoffLimitPerIndex"
            yield (*here, "action"), message, "write FailJob, or add backoffLimitPerIndex"
        codes = rule.get("onExitCodes", {})
        container = codes.get("containerName")
        if container is not None and container not in names:
            yield (
                (*here, "onExitCodes", "containerName"),
                f"the Pod has no container {shown(container)}",
                did_you_mean(container, sorted(names)),
            )
        values = codes.get("values")
        if values is not None and (
            not 1 <= len(values) <= _MOST_CODES
            or sorted(set(values)) != values
            or (codes.get("operator") == "In" and 0 in values)
        ):
            message = (
                f"exit codes are {_MOST_CODES} at most, once each, in order, and with In never 0"
            )
            yield (*here, "onExitCodes", "values"), message, "write [1, 42]"

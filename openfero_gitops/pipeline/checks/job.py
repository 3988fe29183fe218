"""What the API server refuses in a Job's own fields, and what we refuse there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.pipeline.body import POD, SPEC
from openfero_gitops.pipeline.rules import Breach, Pointer, check, error, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.pipeline.body import Body


@check(error("restart-policy", "A Job's Pods restart Never or OnFailure, and the Job says which."))
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


@check(error("reserved-field", "selector, manualSelector and managedBy are left to Kubernetes."))
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

OUT_OF_RANGE = error("out-of-range", "A number is one that its field takes.")


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
                bound = f"{least} is the least" if value < least else f"{most} is the most"
                yield (*at, name), f"{name} is {value}, and {bound}", ""


@check(error("indexed-job", "What only an Indexed Job has stands in an Indexed Job alone."))
def _indexed_job(body: Body) -> Iterator[Breach]:
    spec = body.spec
    if spec.get("completionMode") == "Indexed":
        if "completions" not in spec and "parallelism" in spec:
            yield (*SPEC, "completions"), "an Indexed Job says how many completions", ""
        if spec.get("parallelism", 1) > 100_000:  # noqa: PLR2004
            yield (*SPEC, "parallelism"), "an Indexed Job runs at most 100000 at a time", ""
    else:
        for field in ("backoffLimitPerIndex", "successPolicy"):
            if field in spec:
                yield (
                    (*SPEC, field),
                    f"{field} is for Indexed Jobs",
                    "write completionMode: Indexed, or delete it",
                )
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield (*SPEC, "maxFailedIndexes"), "maxFailedIndexes needs backoffLimitPerIndex", ""


_MOST_RULES: Final = 20
_MOST_CODES: Final = 255

POD_FAILURE_POLICY = error("pod-failure-policy", "A podFailurePolicy fits the rest of its Job.")


@check(POD_FAILURE_POLICY)
def _pod_failure_policy(body: Body) -> Iterator[Breach]:
    at = (*SPEC, "podFailurePolicy")
    policy = body.spec.get("podFailurePolicy")
    if policy is None:
        return
    if body.pod.get("restartPolicy") == "OnFailure":
        yield at, "a podFailurePolicy needs restartPolicy: Never", ""
    if body.spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield (
            (*SPEC, "podReplacementPolicy"),
            "with a podFailurePolicy, podReplacementPolicy is Failed",
            "write podReplacementPolicy: Failed, or leave it out",
        )
    names = {container.name for container in body.containers}
    if len(policy.get("rules", ())) > _MOST_RULES:
        yield (*at, "rules"), f"there are more than {_MOST_RULES} rules", ""
    for index, rule in enumerate(policy.get("rules", ())):
        here = (*at, "rules", index)
        if ("onExitCodes" in rule) is bool(rule.get("onPodConditions")):
            yield here, "a rule has either onExitCodes or onPodConditions", ""
        if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in body.spec:
            yield (*here, "action"), "FailIndex needs backoffLimitPerIndex", ""
        codes = rule.get("onExitCodes", {})
        container = codes.get("containerName")
        if container is not None and container not in names:
            yield (
                (*here, "onExitCodes", "containerName"),
                f"there is no container {shown(container)}",
                "",
            )
        values = codes.get("values")
        if values is not None and (
            not 1 <= len(values) <= _MOST_CODES
            or sorted(set(values)) != values
            or (codes.get("operator") == "In" and 0 in values)
        ):
            message = f"{_MOST_CODES} exit codes at most, once each, in order, without 0 for In"
            yield (*here, "onExitCodes", "values"), message, ""

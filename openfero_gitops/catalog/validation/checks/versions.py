"""What depends on the version of Kubernetes in a field that the version has.

A version can refuse a value that a later one takes, and ignores fields whose feature gate it does
not enable by default. Which fields a version has at all is a matter of its schema.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.catalog.validation.body import Container, items_of
from openfero_gitops.catalog.validation.checks.fields import Node, breaches_in, tree
from openfero_gitops.catalog.validation.rules import Breach, check, kubernetes_error
from openfero_gitops.catalog.validation.schema.gates import (
    Release,
    enabled_since,
    is_enabled,
    text_of,
)
from openfero_gitops.domain import keys
from openfero_gitops.domain.rule import warning
from openfero_gitops.domain.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from openfero_gitops.catalog.validation.body import Body
    from openfero_gitops.catalog.validation.checks.fields import Judge
    from openfero_gitops.catalog.validation.rules import Suggestion

    Applies = Callable[[Any], bool]

_RESTART_RULES: Final = "ContainerRestartRules"
_RESTART_ALL: Final = "RestartAllContainersOnContainerExits"
#: The first version that has the restart policy of a container that is not an init container.
_OWN_RESTART_POLICY: Final = (1, 34)
_NO_DEVICES_FOR_USERS: Final = (1, 34)
_NO_RESTART_OF_INIT: Final = (1, 36)
_ALWAYS: Final = "Always"
_VARIABLE: Final = re.compile(r"(?!\.\.?(?:$|\.))[-._a-zA-Z][-._a-zA-Z0-9]*")


def _any(value: Any) -> bool:
    del value
    return True


def _is_not_always(value: Any) -> bool:
    return bool(value != _ALWAYS)


# Fields that the API server drops while a feature gate is disabled: gate, paths (see `fields`), and
# for which values.
_GATED: Final[tuple[tuple[str, str, Applies], ...]] = (
    (
        "AtomicWriteVolumeUserFields",
        """
        V.secret.defaultUser V.secret.items[].user V.configMap.defaultUser V.configMap.items[].user
        V.downwardAPI.defaultUser V.downwardAPI.items[].user V.projected.defaultUser
        V.projected.sources[].secret.items[].user V.projected.sources[].configMap.items[].user
        V.projected.sources[].downwardAPI.items[].user
        V.projected.sources[].serviceAccountToken.user
        V.projected.sources[].clusterTrustBundle.user V.projected.sources[].podCertificate.user
        """,
        _any,
    ),
    ("ClusterTrustBundleProjection", "V.projected.sources[].clusterTrustBundle", _any),
    (_RESTART_RULES, "MAIN.restartPolicy C.restartPolicyRules", _any),
    (_RESTART_RULES, "INIT.restartPolicy", _is_not_always),
    ("ContainerStopSignals", "C.lifecycle.stopSignal", _any),
    ("DynamicResourceAllocation", "POD.resourceClaims C.resources.claims", _any),
    ("EmptyDirVolumeMode", "V.emptyDir.mode", _any),
    ("EnvFiles", "C.env[].valueFrom.fileKeyRef", _any),
    ("EvictionRequestAPI", "POD.evictionResponders", _any),
    (
        "GRPCContainerProbeTLS",
        "C.livenessProbe.grpc.mode C.readinessProbe.grpc.mode C.startupProbe.grpc.mode",
        _any,
    ),
    ("GenericWorkload", "POD.schedulingGroup POD.workloadRef", _any),
    (
        "H2CContainerProbe",
        """
        C.livenessProbe.httpGet.protocol C.readinessProbe.httpGet.protocol
        C.startupProbe.httpGet.protocol
        """,
        _any,
    ),
    ("HostnameOverride", "POD.hostnameOverride", _any),
    ("ImageVolume", "V.image", _any),
    ("InPlacePodVerticalScaling", "C.resizePolicy", _any),
    # (Other values are errors in every version.)
    ("JobManagedBy", "managedBy", lambda value: value == keys.KUEUE_MULTIKUEUE),
    ("JobSuccessPolicy", "successPolicy", _any),
    ("MatchLabelKeysInPodAffinity", "TERM.matchLabelKeys TERM.mismatchLabelKeys", _any),
    ("PodCertificateRequest", "V.projected.sources[].podCertificate", _any),
    ("PodLevelResources", "POD.resources", _any),
    ("ProcMountType", "C.securityContext.procMount", lambda value: value == "Unmasked"),
    ("RecursiveReadOnlyMounts", "C.volumeMounts[].recursiveReadOnly", _any),
    ("SELinuxChangePolicy", "POD.securityContext.seLinuxChangePolicy", _any),
    ("SupplementalGroupsPolicy", "POD.securityContext.supplementalGroupsPolicy", _any),
    ("UserNamespacesSupport", "POD.hostUsers", _any),
    ("VolumeAttributesClass", "CLAIM.spec.volumeAttributesClassName", _any),
    ("VolumeBindMountOptions", "C.volumeMounts[].bindMountOptions", _any),
    ("WorkloadWithJob", "scheduling", _any),
)


@check(
    warning(
        "feature-gate",
        "A field should be one that the Kubernetes version uses by default.",
        "While a feature gate is disabled, the API server silently drops the fields that belong to "
        "it. The Job then runs without them. A cluster whose administrators have enabled the gate "
        "uses the field.",
    )
)
def _feature_gate(body: Body) -> Iterator[Breach]:
    return breaches_in(_ignored_in(body.release), body)


@functools.cache
def _ignored_in(release: Release) -> Node:
    """The fields that a version ignores by default."""
    return tree(
        (_ignored(gate, release, applies), paths)
        for gate, paths, applies in _GATED
        if not is_enabled(gate, release)
        # Versions without this gate refuse the field.
        and not (gate == _RESTART_RULES and release < _OWN_RESTART_POLICY)
    )


def _ignored(gate: str, release: Release, applies: Applies) -> Judge:
    since = enabled_since(gate)
    message = (
        f"ignored by Kubernetes {text_of(release)}, which does not enable the feature gate"
        f" {gate} by default"
    )
    advice = f"delete it, or use Kubernetes {text_of(since)} or later" if since else "delete it"
    return lambda value: (message, advice) if applies(value) else None


VERSION_VALUE: Final = kubernetes_error(
    "version-value", "A field must have a value that the Kubernetes version accepts."
)


# Values that the API server refuses until a version, or while a feature gate is disabled: the
# version or the gate, paths, for which values, what is required, and what to do.
_REFUSED_UNTIL: Final[tuple[tuple[Release | str, str, Applies, str, str], ...]] = (
    (
        _OWN_RESTART_POLICY,
        "MAIN.restartPolicy",
        _any,
        "only an init container can have a restartPolicy of its own",
        "delete it: the Pod's restartPolicy applies",
    ),
    (
        _OWN_RESTART_POLICY,
        "INIT.restartPolicy",
        _is_not_always,
        "the restartPolicy of an init container must be Always",
        "delete it: the Pod's restartPolicy applies",
    ),
    (
        "PodLifecycleSleepActionAllowZero",
        "C.lifecycle.postStart.sleep.seconds C.lifecycle.preStop.sleep.seconds",
        lambda seconds: seconds == 0,
        "a sleep must last at least 1 second",
        "write 1, or delete the hook",
    ),
    (
        "RelaxedDNSSearchValidation",
        "POD.dnsConfig.searches[]",
        lambda domain: domain == "." or "_" in domain,
        "a search domain must not contain _ or be a single dot",
        "write lower-case letters, digits, - and .",
    ),
    (
        "RelaxedEnvironmentVariableValidation",
        "C.env[].name C.envFrom[].prefix",
        lambda name: bool(name) and _VARIABLE.fullmatch(name) is None,
        "a variable name must consist of letters, digits, _, - and ., and not begin with a digit",
        "write letters, digits and _",
    ),
    (
        "SELinuxMount",
        "POD.securityContext.seLinuxChangePolicy",
        lambda policy: policy == "MountOption",
        "seLinuxChangePolicy must be Recursive",
        "write Recursive, or delete it",
    ),
)


@check(VERSION_VALUE)
def _version_value(body: Body) -> Iterator[Breach]:
    return breaches_in(_refused_in(body.release), body)


@functools.cache
def _refused_in(release: Release) -> Node:
    """The values that a version refuses."""
    return tree(
        (_refused(since, release, applies, required, advice), paths)
        for since, paths, applies, required, advice in _REFUSED_UNTIL
        if not (is_enabled(since, release) if isinstance(since, str) else since <= release)
    )


def _refused(
    since: Release | str, release: Release, applies: Applies, required: str, advice: str
) -> Judge:
    first = enabled_since(since) if isinstance(since, str) else since
    later = f"; Kubernetes {text_of(first)} and later accept it" if first else ""

    def judge(value: Any) -> tuple[str, Suggestion] | None:
        if not applies(value):
            return None
        return (
            f"{shown(value)} is refused by Kubernetes {text_of(release)}: {required}{later}",
            advice,
        )

    return judge


@check(VERSION_VALUE)
def _restart_all(body: Body) -> Iterator[Breach]:
    # While even the rules are ignored, so is what they contain.
    if not is_enabled(_RESTART_RULES, body.release) or is_enabled(_RESTART_ALL, body.release):
        return
    refused = (
        f"refused by Kubernetes {text_of(body.release)}, which does not enable the feature gate"
    )
    for container in body.containers:
        rules = items_of(container.pointer, container.fields, "restartPolicyRules")
        if rules and container.is_init and container.fields.get("restartPolicy") == _ALWAYS:
            message = f"restartPolicyRules of a sidecar container: {refused} {_RESTART_ALL}"
            yield (*container.pointer, "restartPolicyRules"), message, "delete them"
        for pointer, rule in rules:
            if rule.get("action") == "RestartAllContainers":
                message = f"action: RestartAllContainers is {refused} {_RESTART_ALL}"
                yield (*pointer, "action"), message, "write Restart"


@check(VERSION_VALUE)
def _refused_since(body: Body) -> Iterator[Breach]:
    """What later versions refuse that earlier ones accept."""
    version = f"refused by Kubernetes {text_of(body.release)}"
    if body.release >= _NO_DEVICES_FOR_USERS and body.pod.get("hostUsers") is False:
        for container in body.containers:
            if container.fields.get("volumeDevices"):
                message = f"volumeDevices with hostUsers: false are {version}"
                yield (*container.pointer, "volumeDevices"), message, "delete hostUsers"
    if body.release >= _NO_RESTART_OF_INIT:
        for container in body.containers:
            if not container.is_init or "resizePolicy" not in container.fields:
                continue
            if container.fields.get("restartPolicy") == _ALWAYS:
                continue
            for pointer, policy in items_of(container.pointer, container.fields, "resizePolicy"):
                if policy.get("restartPolicy") == "RestartContainer":
                    message = f"RestartContainer in an init container is {version}"
                    yield (*pointer, "restartPolicy"), message, "write NotRequired"


@check(
    warning(
        "never-ends",
        "A container of a Job should not be restarted after it succeeded.",
        "A Job ends when its containers have ended. With a container that is always started again, "
        "it runs until `activeDeadlineSeconds` stops it, and counts as failed.",
        "delete it: the Pod's restartPolicy applies",
    )
)
def _never_ends(body: Body) -> Iterator[Breach]:
    if body.release < _OWN_RESTART_POLICY:
        return  # refused
    for container in body.containers:
        if container.is_init or "restartPolicy" not in container.fields:
            continue
        if container.fields["restartPolicy"] == _ALWAYS:
            message = (
                f"container {shown(container.name)} is restarted whenever it ends, so the Job never"
                " ends by itself"
            )
            yield (*container.pointer, "restartPolicy"), message, ""
        yield from _restarts_after_success(container)


def _restarts_after_success(container: Container) -> Iterator[Breach]:
    for pointer, rule in items_of(container.pointer, container.fields, "restartPolicyRules"):
        if _matches_success(rule.get("exitCodes", {})):
            message = (
                f"container {shown(container.name)} is restarted when it exits with 0, so the Job"
                " never ends by itself"
            )
            yield (*pointer, "exitCodes"), message, "exclude exit code 0"
            return  # the first rule that matches counts


def _matches_success(exit_codes: Mapping[str, Any]) -> bool:
    values = exit_codes.get("values", ())
    match exit_codes.get("operator"):
        case "In":
            return 0 in values
        case "NotIn":
            return 0 not in values
        case _:
            return False

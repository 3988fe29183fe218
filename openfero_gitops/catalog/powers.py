"""What a Job may do on its node and with Secrets, beyond the RBAC rights of its ServiceAccount.

Powers are compared as sets: a power that is new allows more, wherever the file sets it. Powers
that are `grave` are also reported for a new operario.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.sentence import Quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.domain.sentence import Sentence


@dataclass(frozen=True, slots=True)
class Power:
    """One power, as a sentence without its subject."""

    sentence: Sentence
    grave: bool = True


def powers(spec: Mapping[str, Any]) -> frozenset[Power]:
    """The powers that a Job's spec requests, or does not forbid."""
    pod = spec["template"]["spec"]
    return frozenset((*_of_pod(pod), *_of_containers(pod)))


def _of_pod(pod: Mapping[str, Any]) -> Iterator[Power]:
    for field, text in (
        ("hostNetwork", "uses the network of its node"),
        ("hostPID", "sees the processes of its node"),
        ("hostIPC", "shares the IPC namespace of its node"),
    ):
        if pod.get(field):
            yield Power((f"{text} ({field})",))
    if pod.get("automountServiceAccountToken") is not False:
        yield Power(("gets the token of its ServiceAccount",), grave=False)
    for volume in pod.get("volumes", ()):
        if path := (volume.get("hostPath") or {}).get("path"):
            yield Power(("mounts ", Quote(path), " of its node (hostPath)"))
        if secret := (volume.get("secret") or {}).get("secretName"):
            yield _reads(secret)
        for source in (volume.get("projected") or {}).get("sources", ()):
            if secret := (source.get("secret") or {}).get("name"):
                yield _reads(secret)


def _reads(secret: str) -> Power:
    return Power(("reads Secret ", Quote(secret)))


def _of_containers(pod: Mapping[str, Any]) -> Iterator[Power]:
    pod_context = pod.get("securityContext") or {}
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        name = Quote(container.get("name", ""))
        for power in _of_container(container, pod_context):
            yield Power(("container ", name, " ", *power.sentence), power.grave)
        for variable in container.get("env", ()):
            source = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
            if secret := source.get("name"):
                yield _reads(secret)
        for source in container.get("envFrom", ()):
            if secret := (source.get("secretRef") or {}).get("name"):
                yield _reads(secret)


def _of_container(container: Mapping[str, Any], pod_context: Mapping[str, Any]) -> Iterator[Power]:
    own = container.get("securityContext") or {}
    capabilities = own.get("capabilities") or {}
    user, profile = (own.get(key, pod_context.get(key)) for key in ("runAsUser", "seccompProfile"))
    if own.get("privileged"):
        yield Power(("is privileged",))
    if own.get("procMount") == "Unmasked":
        yield Power(("sees all of /proc (procMount: Unmasked)",))
    for capability in capabilities.get("add", ()):
        yield Power(("has capability ", Quote(capability)))
    for port in container.get("ports", ()):
        if number := port.get("hostPort"):
            yield Power((f"listens on port {number} of its node (hostPort)",))
    if user == 0:
        yield Power(("runs as root",))
    for is_allowed, text in (
        (
            user != 0 and own.get("runAsNonRoot", pod_context.get("runAsNonRoot")) is not True,
            "may run as root",
        ),
        (own.get("allowPrivilegeEscalation") is not False, "may escalate privileges"),
        ("ALL" not in capabilities.get("drop", ()), "keeps the default capabilities"),
        (own.get("readOnlyRootFilesystem") is not True, "can write to its root filesystem"),
        ((profile or {}).get("type", "Unconfined") == "Unconfined", "has no seccomp profile"),
    ):
        if is_allowed:
            yield Power((text,), grave=False)

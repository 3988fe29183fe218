"""What a Job may do to its node and to Secrets, beyond what its ServiceAccount may ask of the API.

Powers are compared as sets: one that was not there before allows more, wherever in the file it
was written. Those that are `grave` are told of a new operario, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.author.diff.change import Quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.author.diff.change import Sentence


@dataclass(frozen=True, slots=True)
class Power:
    """One of them, as a sentence after "it" or "container NAME"."""

    sentence: Sentence
    grave: bool = True


def powers(spec: Mapping[str, Any]) -> frozenset[Power]:
    """Everything of the kind that a Job's spec asks for, or does not forbid."""
    pod = spec["template"]["spec"]
    return frozenset((*_of_pod(pod), *_of_containers(pod)))


def _of_pod(pod: Mapping[str, Any]) -> Iterator[Power]:
    for name, what in (
        ("hostNetwork", "uses the network of its node"),
        ("hostPID", "sees the processes of its node"),
        ("hostIPC", "shares memory with its node"),
    ):
        if pod.get(name):
            yield Power((f"{what} ({name})",))
    if pod.get("automountServiceAccountToken") is not False:
        yield Power(("has the token of its ServiceAccount",), grave=False)
    for volume in pod.get("volumes", ()):
        if path := (volume.get("hostPath") or {}).get("path"):
            yield Power(("mounts ", Quote(path), " of its node"))
        if secret := (volume.get("secret") or {}).get("secretName"):
            yield _reads(secret)
        for source in (volume.get("projected") or {}).get("sources", ()):
            if secret := (source.get("secret") or {}).get("name"):
                yield _reads(secret)


def _reads(secret: str) -> Power:
    return Power(("reads the Secret ", Quote(secret)))


def _of_containers(pod: Mapping[str, Any]) -> Iterator[Power]:
    around = pod.get("securityContext") or {}
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        name = Quote(container.get("name", ""))
        for power in _of_container(container, around):
            yield Power(("container ", name, " ", *power.sentence), power.grave)
        for variable in container.get("env", ()):
            source = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
            if secret := source.get("name"):
                yield _reads(secret)
        for source in container.get("envFrom", ()):
            if secret := (source.get("secretRef") or {}).get("name"):
                yield _reads(secret)


def _of_container(container: Mapping[str, Any], around: Mapping[str, Any]) -> Iterator[Power]:
    own = container.get("securityContext") or {}
    capabilities = own.get("capabilities") or {}
    user, profile = (own.get(key, around.get(key)) for key in ("runAsUser", "seccompProfile"))
    if own.get("privileged"):
        yield Power(("is privileged",))
    if own.get("procMount") == "Unmasked":
        yield Power(("sees all of /proc",))
    for capability in capabilities.get("add", ()):
        yield Power(("has the capability ", Quote(capability)))
    for port in container.get("ports", ()):
        if number := port.get("hostPort"):
            yield Power((f"listens on port {number} of its node",))
    if user == 0:
        yield Power(("runs as root",))
    for allowed, what in (
        (
            user != 0 and own.get("runAsNonRoot", around.get("runAsNonRoot")) is not True,
            "may run as root",
        ),
        (own.get("allowPrivilegeEscalation") is not False, "may gain privileges"),
        ("ALL" not in capabilities.get("drop", ()), "keeps the default capabilities"),
        (own.get("readOnlyRootFilesystem") is not True, "can write to its root file system"),
        ((profile or {}).get("type", "Unconfined") == "Unconfined", "has no seccomp profile"),
    ):
        if allowed:
            yield Power((what,), grave=False)

"""Why the Pods of a started Job do not run, as the kubelet, scheduler or API server says.

A Job only says that it is active. Kubernetes deletes the Pods of a Job that exceeds its deadline,
and the reason with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Object = Mapping[str, Any]

_MAX_CHARACTERS: Final = 900
#: Every container is like this at first: these say nothing.
_STARTING: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
#: The kubelet alternates between both. Older ones give the cause only with the first.
_IMAGE: Final = ("ErrImagePull", "ImagePullBackOff")


@dataclass(frozen=True, slots=True)
class PodWait:
    """Why a Pod waits: a reason in CamelCase as Kubernetes has it, and a message."""

    reason: str
    message: str

    def __str__(self) -> str:
        """Format as the annotation on the Job: `REASON: MESSAGE`."""
        return printable(f"{self.reason}: {self.message}", _MAX_CHARACTERS)

    def replaces(self, recorded: str) -> bool:
        """Whether it says more than what is recorded already, so that it is worth a write."""
        reason = recorded.partition(":")[0]
        if reason in _IMAGE and self.reason in _IMAGE:
            return reason == _IMAGE[1] and self.reason == _IMAGE[0]
        return reason != self.reason


def has_started(pod: Object) -> bool:
    """Whether a container of a Pod runs or ran."""
    return any(
        (container.get(state) or {}).get(kind)
        for container in _containers(pod)
        for state in ("state", "lastState")
        for kind in ("running", "terminated")
    )


def is_pending(pod: Object) -> bool:
    """Whether a Pod exists that has not ended, and is not being deleted."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and (
        "deletionTimestamp" not in pod["metadata"]
    )


def wait_of_pod(pod: Object) -> PodWait | None:
    """Return why a Pod waits, as far as its status says."""
    name = pod["metadata"]["name"]
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason not in _STARTING:
            where = f"Pod {name}, container {container.get('name')}"
            return PodWait(reason, f"{where}: {waiting.get('message') or 'no message'}")
    if has_started(pod):
        return None
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = condition.get("message") or "not scheduled"
            return PodWait(condition.get("reason") or "Unschedulable", f"Pod {name}: {message}")
    return None


def wait_of_events(about: str, events: Iterable[Object]) -> PodWait | None:
    """Return the last Warning about an object: of volumes, sandboxes and quotas nothing else says.

    `about` names the object in the message.
    """
    warnings = [event for event in events if event.get("type") == "Warning"]
    if not warnings:
        return None
    last = max(warnings, key=_last_time)
    note = last.get("note") or "no message"
    return PodWait(last.get("reason") or "Warning", f"{about}: {note}")


def _last_time(event: Object) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("deprecatedLastTimestamp")
        or event.get("eventTime")
        or ""
    )


def _containers(pod: Object) -> Iterator[Object]:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(kind) or ()

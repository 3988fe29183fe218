"""Why a Job failed, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openfero_gitops.domain.remediation import Remediation

_MAX_MESSAGE_CHARACTERS: Final = 2048


def failure_message(job: Remediation, pods: Iterable[Mapping[str, Any]]) -> str:
    """Return the Job's condition and its last failed container: exit code, reason, message.

    If there is none, return why its Pod waited, as recorded when it did. It says, too, if the Job
    was started more than once.
    """
    parts = [f"{job.reason}: {job.message}" if job.message else job.reason or "the Job failed"]
    failed = sorted(_failed_containers(pods), key=lambda container: container[0])
    if failed:
        _, name, state = failed[-1]
        text = f"container {name} exited with code {state.get('exitCode')}"
        if state.get("reason"):
            text += f" ({state['reason']})"
        if message := (state.get("message") or "").strip():
            text += f": {message}"
        parts.append(text)
    elif job.pod_waiting:
        parts.append(f"its Pod waited: {job.pod_waiting}")
    if job.starts > 1:
        parts.append(f"the Job had been stopped and started again ({job.starts} starts)")
    return "; ".join(parts)[:_MAX_MESSAGE_CHARACTERS]


def _failed_containers(
    pods: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield when each container failed, its name, and its state."""
    for pod in pods:
        status = pod.get("status") or {}
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind) or ():
                state = (container.get("state") or {}).get("terminated")
                if state and state.get("exitCode"):
                    yield str(state.get("finishedAt") or ""), container["name"], state

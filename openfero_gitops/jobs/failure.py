"""Why a Job failed, in one sentence a person can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openfero_gitops.domain.remediation import Remediation

_LONGEST: Final = 2048


def last_words(one: Remediation, pods: Iterable[Mapping[str, Any]]) -> str:
    """The Job's condition, then the last container that failed: exit code and what it said."""
    parts = [f"{one.reason}: {one.message}" if one.message else one.reason or "the Job failed"]
    ends = sorted(_ends(pods), key=lambda end: end[0])
    if ends:
        _, container, state = ends[-1]
        words = f"container {container} exited with code {state.get('exitCode')}"
        if state.get("reason"):
            words += f" ({state['reason']})"
        if said := (state.get("message") or "").strip():
            words += f": {said}"
        parts.append(words)
    return "; ".join(parts)[:_LONGEST]


def _ends(pods: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for pod in pods:
        status = pod.get("status") or {}
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind) or ():
                state = (container.get("state") or {}).get("terminated")
                if state and state.get("exitCode"):
                    yield str(state.get("finishedAt") or ""), container["name"], state

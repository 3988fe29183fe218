"""Decides how long simulated Pods run, and how they end.

Annotations of a Job's Pod template set it for each Job; the real test cluster reads the same ones:
`kwok.openfero.io/run-for` (a Go duration, or `forever`), `stop-for`, `fail`, `exit-code`,
`message`, `log`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.cluster.api import Object

PREFIX: Final = "kwok.openfero.io/"
_POD_LOG: Final = "This Pod is simulated by the demo: no container ran.\n"
FOREVER: Final = math.inf
_GO_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class PodOutcome:
    """The exit code and termination message of a Pod's containers."""

    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Durations:
    """Default durations in seconds, for Pods without annotations."""

    run: float = 1.0
    stop: float = 0.0  # from deletion to the end of the Pod
    retry: float = 10.0  # from a failure to the next Pod; doubled with each failure


def as_annotated(job: Object) -> PodOutcome:
    """Succeed, unless the Pod template has the annotation `kwok.openfero.io/fail: "true"`.

    Then its annotations `exit-code` and `message` are used.
    """
    annotations = _annotations(job["spec"]["template"])
    if annotations.get(PREFIX + "fail") != "true":
        return PodOutcome()
    return PodOutcome(
        int(annotations.get(PREFIX + "exit-code") or 1),
        annotations.get(PREFIX + "message") or "failed as requested",
    )


class JobPlayer:
    """Decides how the Pods of Jobs run.

    Args:
        durations: for Pods without the annotations `run-for` and `stop-for`.
        outcome: called for a Job when one of its Pods ends.
    """

    def __init__(
        self,
        durations: Durations = Durations(),
        outcome: Callable[[Object], PodOutcome] = as_annotated,
    ) -> None:
        self.durations = durations
        self.outcome = outcome

    def run_for(self, pod: Object) -> float:
        """Return the seconds until a Pod ends by itself."""
        duration = _annotations(pod).get(PREFIX + "run-for", "")
        return FOREVER if duration == "forever" else _seconds(duration, self.durations.run)

    def log(self, pod: Object) -> str:
        """Return what a container of a Pod writes when it starts."""
        return _annotations(pod).get(PREFIX + "log") or _POD_LOG

    def stop_for(self, pod: Object) -> float:
        """Return the seconds from the deletion of a Pod to its end."""
        return _seconds(_annotations(pod).get(PREFIX + "stop-for", ""), self.durations.stop)


def _annotations(item: Object) -> dict[str, Any]:
    return (item.get("metadata") or {}).get("annotations") or {}


def _seconds(text: str, default: float) -> float:
    """Parse a Go duration such as `1m30s`."""
    parts = _GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return default
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)

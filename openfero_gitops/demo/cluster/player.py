"""How the Pods of Jobs are played: for how long they run, and how they end.

Annotations of a Job's Pod template say it Job by Job, and are read by the real test cluster, too:
`kwok.openfero.io/run-for` (a Go duration, or `forever`), `stop-for`, `fail`, `exit-code`,
`message`.
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
FOREVER: Final = math.inf
_GO_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a Pod of a Job ends: the exit code and termination message of its containers."""

    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long Pods take, in seconds, where their annotations do not say so."""

    run: float = 1.0
    stop: float = 0.0  # from being deleted to being gone
    retry: float = 10.0  # from a failure to the next Pod; doubled with each further one


def as_annotated(job: Object) -> Outcome:
    """Succeed, but for a Job whose Pod template says `kwok.openfero.io/fail: "true"`.

    `exit-code` and `message` there say how. (The real test cluster reads the same.)
    """
    said = _annotations(job["spec"]["template"])
    if said.get(PREFIX + "fail") != "true":
        return Outcome()
    return Outcome(
        int(said.get(PREFIX + "exit-code") or 1),
        said.get(PREFIX + "message") or "failed as asked",
    )


class JobPlayer:
    """Plays the Pods of Jobs: each runs for a while, and then ends somehow.

    Args:
        durations: where `kwok.openfero.io/run-for` (a Go duration, or `forever`) and `stop-for`,
            annotations of the Pod template, say nothing else.
        outcome: asked for a Job when one of its Pods ends.
    """

    def __init__(
        self,
        durations: Durations = Durations(),
        outcome: Callable[[Object], Outcome] = as_annotated,
    ) -> None:
        self.durations = durations
        self.outcome = outcome

    def run_for(self, pod: Object) -> float:
        """Seconds until this Pod ends by itself."""
        said = _annotations(pod).get(PREFIX + "run-for", "")
        return FOREVER if said == "forever" else _seconds(said, self.durations.run)

    def stop_for(self, pod: Object) -> float:
        """Seconds until this Pod is gone once it is deleted."""
        return _seconds(_annotations(pod).get(PREFIX + "stop-for", ""), self.durations.stop)


def _annotations(holder: Object) -> dict[str, Any]:
    return (holder.get("metadata") or {}).get("annotations") or {}


def _seconds(text: str, otherwise: float) -> float:
    """A Go duration, `1m30s`."""
    parts = _GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return otherwise
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)

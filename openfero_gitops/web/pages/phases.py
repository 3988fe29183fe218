"""How each phase is drawn, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openfero_gitops.domain.remediation import Phase


@dataclass(frozen=True, slots=True)
class PhaseStyle:
    """How a phase is drawn, and what it means."""

    tone: str
    icon: str
    meaning: str


PHASES: Final = {
    Phase.AWAITING_APPROVAL: PhaseStyle("ask", "ask", "waits for approval"),
    Phase.WAITING: PhaseStyle("idle", "wait", "suspended until the leader admits it"),
    Phase.QUEUED: PhaseStyle("idle", "queue", "admitted; waits for Kueue to start it"),
    Phase.RUNNING: PhaseStyle("run", "run", "started; its Pods may exist"),
    Phase.HELD: PhaseStyle("warn", "hold", "suspended by someone else after it was admitted"),
    Phase.FAILED: PhaseStyle("bad", "fail", "the Job failed"),
    Phase.SUCCEEDED: PhaseStyle("ok", "ok", "the Job completed"),
    Phase.REFUSED: PhaseStyle("idle", "refuse", "the Job never starts"),
    Phase.CANCELLED: PhaseStyle("idle", "cancel", "stopped by a person or by a resolved alert"),
}

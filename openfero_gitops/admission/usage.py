"""How full the limits of one operario are, and on which targets its next Job would wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from openfero_gitops.admission.index import AdmissionIndex
from openfero_gitops.admission.job_index import JobIndex
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.remediation import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.domain.remediation import Remediation


@dataclass(frozen=True, slots=True)
class TargetState:
    """Why the next Job for a target would wait.

    Attributes:
        latest: the last Job of the operario for this target.
        busy: the Job of any operario that runs for the target now.
        cooldown_until: when the cooldown ends.
        not_helping: why the circuit breaker is open, as a clause; empty if it is closed.
    """

    latest: Remediation
    busy: Remediation | None = None
    cooldown_until: datetime | None = None
    not_helping: str = ""


@dataclass(frozen=True, slots=True)
class OperarioUsage:
    """What counts for the limits of an operario now.

    `targets` are those for which its next Job would wait: first those whose breaker is open.
    """

    running: int
    started_last_hour: int
    waiting: int
    targets: Sequence[TargetState]


def measure_usage(
    operario: Operario, remediations: Iterable[Remediation], now: datetime
) -> OperarioUsage:
    """Count as admission does.

    Args:
        operario: of the active catalog.
        remediations: all that are known: others may occupy a target of the operario.
        now: the current time (UTC).
    """
    own: dict[str, Remediation] = {}
    waiting = 0
    relevant = sorted(_relevant(operario, remediations), key=lambda r: r.order)
    index = AdmissionIndex(JobIndex(relevant), now)
    for remediation in relevant:
        if remediation.operario == operario.name and not remediation.deleting:
            waiting += remediation.waiting
            own[remediation.target] = remediation
    states = [state for latest in own.values() if (state := _target_state(operario, latest, index))]
    states.sort(key=lambda state: state.latest.order, reverse=True)
    states.sort(key=lambda state: not state.not_helping)
    return OperarioUsage(
        running=index.occupying(operario.name),
        started_last_hour=len(index.last_hour(operario.name)),
        waiting=waiting,
        targets=states,
    )


def _relevant(operario: Operario, remediations: Iterable[Remediation]) -> list[Remediation]:
    """Return the Jobs of the operario, those of their incidents, and all that occupy a target."""
    remediations = list(remediations)
    incidents = {r.incident for r in remediations if r.operario == operario.name}
    return [r for r in remediations if r.occupying or r.incident in incidents]


def _target_state(
    operario: Operario, latest: Remediation, index: AdmissionIndex
) -> TargetState | None:
    """Return why the next Job for a target would wait; None if it would not."""
    next_job = structs.replace(
        latest,
        phase=Phase.WAITING,
        status=Status.FIRING,
        approved_by=None,
        options=operario.options,
        spec_digest=operario.spec_digest,
        active_digest="",
    )
    breaker = index.breakers.check(next_job) if operario.status is Status.FIRING else None
    busy = index.busy(latest.target)
    ended = index.last_end(operario.name, latest.target)
    until = ended + operario.options.cooldown if ended is not None else None
    if until is not None and until <= index.now:
        until = None
    if breaker is None and busy is None and until is None:
        return None
    return TargetState(latest, busy, until, breaker.message if breaker else "")

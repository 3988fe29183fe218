"""A remediation as a row of a table: why it is in its phase, and what to do about it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.decide import Admit, Refuse, Wait
from openfero_gitops.domain.catalog import git_show
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.help import REASON_TOPICS, link
from openfero_gitops.domain.operario import changed_options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import FINAL, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.web.ports import ReplicaState

EFFECTS: Final = {
    Effect.PENDING: "Effect pending",
    Effect.HEALED: "Healed",
    Effect.NOT_HEALED: "Not healed",
    Effect.UNKNOWN: "Effect unknown",
}
_REASON_TEXTS: Final = {reason.value: reason.text for reason in Reason}


@dataclass(frozen=True, slots=True)
class RemediationRow:
    """A row of the remediations table.

    `meaning` explains the `reason`; `until` is when a wait ends by itself; `commands` are pairs
    of a purpose and a shell command.
    """

    remediation: Remediation
    reason: str
    meaning: str
    help: str
    why: tuple[str, ...]
    until: datetime | None
    approver_note: str
    target: Mapping[str, str]
    options: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]

    @property
    def ran(self) -> timedelta | None:
        """How long the Job ran; None if it has not finished or never started."""
        remediation = self.remediation
        started_at, finished_at = remediation.started_at, remediation.finished_at
        if not remediation.has_run or started_at is None or finished_at is None:
            return None
        return max(finished_at - started_at, timedelta(0))


def row_of(
    remediation: Remediation, decision: Decision | None, state: ReplicaState
) -> RemediationRow:
    """Compute the row of a remediation."""
    return _row(
        remediation,
        decision,
        state.effect(remediation),
        approval_verified=state.is_approval_verified(remediation),
    )


def _row(
    remediation: Remediation,
    decision: Decision | None,
    effect: Assessment | None,
    *,
    approval_verified: bool,
) -> RemediationRow:
    reason, message = remediation.reason, remediation.message
    why: list[str] = []
    until = None
    match decision if remediation.waiting else None:
        case Wait() as wait:
            reason, message, until = wait.reason.value, wait.message, wait.until
        case Refuse() as refusal:
            reason, message = refusal.reason.value, refusal.message
            why.append("The leader is about to refuse it")
        case Admit() as admission:
            reason, message = admission.reason.value, ""
            why.append("The leader is about to start it")
    meaning = _REASON_TEXTS.get(reason, "")
    if message:
        # A failed Job's message begins with its condition, which is the reason.
        why.append(message.removeprefix(f"{reason}: ") if reason else message)
    elif meaning:
        why.append(meaning[0].upper() + meaning[1:])
    approver_note = "" if approval_verified else "unverified: the cluster does not check this name"
    if remediation.approved_by:
        note = f" ({approver_note})" if approver_note else ""
        given = f": {remediation.approval_reason}" if remediation.approval_reason else ""
        why.append(f"Approved by {remediation.approved_by}{note}{given}")
    why.extend(_phase_details(remediation))
    if effect is not None and remediation.phase in FINAL:
        why.append(f"{EFFECTS[effect.effect]}: {effect.message}")
    return RemediationRow(
        remediation=remediation,
        reason=reason,
        meaning=meaning,
        help=link(REASON_TOPICS.get(reason, "")),
        why=tuple(why),
        until=until,
        approver_note=approver_note,
        target=remediation.target_labels,
        options=changed_options(remediation.options),
        commands=tuple(commands(remediation, reason)),
    )


def _phase_details(remediation: Remediation) -> Iterator[str]:
    match remediation.phase:
        case Phase.QUEUED if remediation.queue:
            yield f"Waits for Kueue, in queue {remediation.queue}"
        case Phase.QUEUED:
            yield "Waits for Kueue"
        case Phase.HELD:
            yield "Someone suspended it after it started; the controller does not restart it"
        case Phase.RUNNING if remediation.started_by_other:
            yield "Started by someone else, not by the controller"
    if remediation.starts > 1 and remediation.phase in FINAL:
        yield f"Started {remediation.starts} times: it was stopped and started again"
    if remediation.deleting:
        yield "It is being deleted"


def commands(remediation: Remediation, reason: str) -> Iterator[tuple[str, str]]:
    """List commands that an operator may want to run next, quoted for a shell."""
    job = shlex.quote(str(remediation.key))
    name = shlex.quote(remediation.key.name)
    kubectl = f"kubectl -n {shlex.quote(remediation.key.namespace)}"
    if remediation.phase is Phase.AWAITING_APPROVAL or (
        remediation.phase is Phase.WAITING and reason == Reason.NOT_HELPING
    ):
        yield "Approve", f"openfero-gitops approve {job}"
        yield "Refuse", f"openfero-gitops refuse {job}"
    elif remediation.phase not in FINAL:
        yield "Cancel", f"openfero-gitops cancel {job}"
    if show := git_show(remediation.commit, remediation.path):
        yield "Reviewed file", show
    yield "Job", f"{kubectl} get job {name} -o yaml"
    yield "Events", f"{kubectl} describe job {name}"
    if remediation.has_run:
        yield "Logs", f"{kubectl} logs job/{name} --all-containers"


def search_texts(
    remediation: Remediation, decision: Decision | None, *, held_back: bool
) -> Iterator[str]:
    """List the texts by which a reader may search for a remediation."""
    yield from (str(remediation.key), remediation.operario, remediation.alertname)
    yield from (remediation.status, remediation.phase, remediation.reason, remediation.message)
    yield from (remediation.commit, remediation.path, remediation.fingerprint)
    yield from (f"{name}={value}" for name, value in remediation.labels.items())
    if remediation.effect is not None:
        yield remediation.effect
    if decision is not None and remediation.waiting:
        yield decision.reason
    if held_back:
        yield Reason.NOT_HELPING

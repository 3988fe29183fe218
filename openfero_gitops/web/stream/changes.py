"""Compares two observations of a replica and says what happened between them.

Jobs change often in ways that nobody needs to hear of. So what counts of a remediation is a small
value, and a remediation is only looked at if it is another object than before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.delivery.unanswered import EMPTY
from openfero_gitops.domain.lease import Leadership
from openfero_gitops.domain.sync import SyncStatus
from openfero_gitops.domain.text import printable
from openfero_gitops.web.stream.models import (
    AlertHeard,
    HealthChanged,
    LeadershipChanged,
    PauseChanged,
    RemediationChanged,
    Reset,
    SyncChanged,
    SyncResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.health import Condition
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.changes import JobChange
    from openfero_gitops.web.stream.models import EventBody

#: If more remediations changed at once, reading the lists again is cheaper than as many events.
MAX_CHANGES: Final = 300
_TOO_MANY: Final = "too many remediations changed at once"
_TOO_MANY_ALERTS: Final = "too many different alerts came at once"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a replica's clients may want to know, at one moment."""

    sync: SyncStatus = field(default_factory=SyncStatus)
    leadership: Leadership = field(default_factory=Leadership)
    pause: Pause | None = None
    conditions: Sequence[Condition] = ()
    #: None until the shares of the other replicas have been read.
    alerts: UnansweredRecord | None = EMPTY


def list_changes(
    before: Observation,
    after: Observation,
    jobs: Iterable[JobChange],
    effect: Callable[[Remediation], Effect | None],
) -> list[EventBody]:
    """Return what happened between two observations, as events.

    `jobs` are those that changed, and `effect` returns whether a remediation helped.
    """
    return [
        *_sync_changes(before.sync, after.sync),
        *_leadership_changes(before.leadership, after.leadership),
        *_pause_changes(before.pause, after.pause),
        *_health_changes(before.conditions, after.conditions),
        *_remediation_changes(jobs, effect),
        *_alerts_heard(before.alerts, after.alerts),
    ]


def _remediation_changes(
    jobs: Iterable[JobChange], effect: Callable[[Remediation], Effect | None]
) -> Iterable[EventBody]:
    changed: list[Remediation] = []
    deleted: list[Remediation] = []
    for before, after in jobs:
        if after is None:
            if before is not None:
                deleted.append(before)
        elif before is None or _visible(before) != _visible(after):
            changed.append(after)
    # (A Job that was created again under its name is no deleted one.)
    present = {remediation.key for remediation in changed}
    deleted = [remediation for remediation in deleted if remediation.key not in present]
    if len(changed) + len(deleted) > MAX_CHANGES:
        return (Reset(reason=_TOO_MANY),)
    changed.sort(key=lambda remediation: remediation.order)
    return (
        *(_body(remediation, effect(remediation), deleted=False) for remediation in changed),
        *(_body(remediation, None, deleted=True) for remediation in deleted),
    )


def _visible(remediation: Remediation) -> tuple[object, ...]:
    """Return the values whose changes are events; renewals of a Job's record are none."""
    return (
        remediation.phase,
        remediation.reason,
        remediation.message,
        remediation.approved_by,
        remediation.started_at,
        remediation.resolved_at,
        remediation.still_firing_at,
        remediation.effect,
        remediation.effect_message,
        remediation.active,
        remediation.pod_waiting,
        remediation.deleting,
    )


def _body(remediation: Remediation, effect: Effect | None, *, deleted: bool) -> RemediationChanged:
    return RemediationChanged(
        namespace=remediation.key.namespace,
        job=remediation.key.name,
        deleted=deleted,
        phase=remediation.phase,
        reason=printable(remediation.reason),
        effect=effect,
        alert=printable(remediation.alertname),
        status=remediation.status,
        operario=printable(remediation.operario),
    )


def _sync_changes(before: SyncStatus, after: SyncStatus) -> Iterator[SyncChanged]:
    commit = after.revision.commit if after.revision else ""
    if after.revision is not None and after.revision != before.revision:
        yield SyncChanged(result=SyncResult.ACTIVATED, commit=commit)
    elif before.error is not None and after.error is None:
        yield SyncChanged(result=SyncResult.RECOVERED, commit=commit)
    refused = after.refused
    if refused is not None and _refusal(before) != _refusal(after):
        yield SyncChanged(
            result=SyncResult.REFUSED, commit=refused.commit, reason=printable(refused.reason)
        )
    elif after.error is not None and after.error != before.error:
        yield SyncChanged(result=SyncResult.FAILING, commit="", reason=printable(after.error))


def _refusal(status: SyncStatus) -> tuple[str, str] | None:
    return (status.refused.commit, status.refused.reason) if status.refused else None


def _alerts_heard(
    before: UnansweredRecord | None, after: UnansweredRecord | None
) -> Iterable[EventBody]:
    # (What is read first was heard before, perhaps hours ago.)
    if before is None or after is None or before is after:
        return ()
    heard = [
        (unanswered.last, kind)
        for kind, unanswered in after.kinds.items()
        # (Times are in seconds: another occurrence may come within the same one.)
        if (known := before.kinds.get(kind)) is None
        or known.last < unanswered.last
        or len(known.occurrences) < len(unanswered.occurrences)
    ]
    if len(heard) > MAX_CHANGES:
        return (Reset(reason=_TOO_MANY_ALERTS),)
    return [
        AlertHeard(
            alert=printable(kind.alertname),
            status=kind.status,
            reason=kind.reason,
            heard_at=datetime.fromtimestamp(last, UTC),
        )
        for last, kind in sorted(heard)
    ]


def _health_changes(
    before: Sequence[Condition], after: Sequence[Condition]
) -> Iterator[HealthChanged]:
    if (body := _health(after)) != _health(before):
        yield body


def _health(conditions: Sequence[Condition]) -> HealthChanged:
    failing = [condition for condition in conditions if not condition.holds]
    return HealthChanged(
        healthy=all(condition.advice for condition in failing),
        failing=tuple(condition.name for condition in failing),
    )


def _leadership_changes(before: Leadership, after: Leadership) -> Iterator[LeadershipChanged]:
    if (body := _leadership(after)) != _leadership(before):
        yield body


def _leadership(leadership: Leadership) -> LeadershipChanged:
    return LeadershipChanged(holder=printable(leadership.holder), leader=leadership.leader)


def _pause_changes(before: Pause | None, after: Pause | None) -> Iterator[PauseChanged]:
    if before is not after and (body := _pause(after)) != _pause(before):
        yield body


def _pause(pause: Pause | None) -> PauseChanged:
    if pause is None:
        return PauseChanged(paused=False)
    return PauseChanged(
        paused=True,
        cause=pause.cause,
        by=printable(pause.by),
        reason=printable(pause.reason),
        until=pause.until,
    )

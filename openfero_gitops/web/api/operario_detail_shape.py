"""The model of one operario with everything that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.web.api.operario_shape import (
    OperarioShape,
    OperarioStatsShape,
    operario_shape,
    operario_stats_shape,
)
from openfero_gitops.web.api.problem_shape import ProblemShape, problem_shape
from openfero_gitops.web.api.shape import Moment, Shape, Text

if TYPE_CHECKING:
    from openfero_gitops.admission.usage import OperarioUsage, TargetState
    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.effects.regression import Regression
    from openfero_gitops.web.operario_facts import OperarioFacts, Run

_MAX_TARGETS = 100


class WaitingTargetShape(Shape):
    """A target for which the next Job would wait."""

    target: dict[Text, Text]
    """The labels that identify the target."""
    busy_with: Text | None
    """NAMESPACE/NAME of the Job that runs for the target now."""
    cooldown_until: Moment | None
    """When the cooldown ends."""
    not_helping: Text | None
    """Why the circuit breaker is open; null if it is closed."""


class LimitsShape(Shape):
    """How full the limits of an operario are now."""

    running: int
    """Jobs that run; at most the option maxConcurrent."""
    started_last_hour: int
    """Jobs that started in the last hour; at most the option maxPerHour."""
    waiting: int
    """Jobs that wait."""
    targets: list[WaitingTargetShape]
    """The first 100 targets for which the next Job would wait."""
    total_targets: int
    """How many such targets there are."""


class RunShape(Shape):
    """A Job that started."""

    job: Text
    """Name of the Job."""
    namespace: Text
    """Namespace of the Job."""
    phase: Phase
    effect: Effect | None
    """Whether the alert went away; null if its alert was a resolved one."""
    commit: Text
    """The commit of the operario."""
    spec_digest: Text | None
    """Identifies the definition of the operario."""
    received_at: Moment
    """When the alert was received."""
    started_at: Moment | None
    """When the Job started."""
    finished_at: Moment | None
    """When the Job ended."""


class RegressionShape(Shape):
    """A commit since which the operario heals clearly fewer alerts."""

    commit: Text
    healed: int
    """Healed alerts since the commit."""
    decided: int
    """Alerts since the commit of which it is known whether they were healed."""
    healed_before: int
    """The same of the version before."""
    decided_before: int


class OperarioDetailShape(OperarioShape):
    """A remediation definition of the active catalog, and how it did."""

    text: Text | None
    """The content of its file at its commit; null if it is not in memory."""
    candidates: list[Text]
    """The operarios for the same alert and status, in the order in which they are tried."""
    problems: list[ProblemShape]
    """Problems of the newest version of its file."""
    limits: LimitsShape
    runs: list[RunShape]
    """The last 50 Jobs that started, newest first."""
    stats: OperarioStatsShape
    """By commit, from the Jobs that exist."""
    regressions: list[RegressionShape]


def operario_detail_shape(
    operario: Operario, usage: OperarioUsage, facts: OperarioFacts
) -> OperarioDetailShape:
    """Convert what is known of an operario of the active catalog."""
    return OperarioDetailShape(
        **dict(operario_shape(operario)),
        text=facts.file.content.decode(errors="replace") if facts.file else None,
        candidates=[candidate.name for candidate in facts.candidates],
        problems=[problem_shape(problem) for problem in facts.problems],
        limits=LimitsShape(
            running=usage.running,
            started_last_hour=usage.started_last_hour,
            waiting=usage.waiting,
            targets=[_target_shape(target) for target in usage.targets[:_MAX_TARGETS]],
            total_targets=len(usage.targets),
        ),
        runs=[_run_shape(run) for run in facts.runs],
        stats=operario_stats_shape(facts.name, facts.stats),
        regressions=[_regression_shape(*pair) for pair in facts.regressions.items()],
    )


def _target_shape(value: TargetState) -> WaitingTargetShape:
    return WaitingTargetShape(
        target=value.latest.target_labels,
        busy_with=str(value.busy.key) if value.busy else None,
        cooldown_until=value.cooldown_until,
        not_helping=value.not_helping or None,
    )


def _run_shape(run: Run) -> RunShape:
    remediation = run.remediation
    return RunShape(
        job=remediation.key.name,
        namespace=remediation.key.namespace,
        phase=remediation.phase,
        effect=run.effect.effect if run.effect else None,
        commit=remediation.commit,
        spec_digest=remediation.spec_digest or None,
        received_at=remediation.received_at,
        started_at=remediation.started_at,
        finished_at=remediation.finished_at,
    )


def _regression_shape(commit: str, value: Regression) -> RegressionShape:
    return RegressionShape(
        commit=commit,
        healed=value.healed,
        decided=value.decided,
        healed_before=value.healed_before,
        decided_before=value.decided_before,
    )

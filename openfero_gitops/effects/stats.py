"""Statistics of an operario, for each of its commits: how often it ran, and whether it helped.

They cover the Jobs that still exist.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.assess import assess, index_incidents, is_dry_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment


@dataclass(frozen=True, slots=True)
class EffectCounts:
    """How many remediations had each effect.

    `median_to_heal` is the median time from receiving the alert to its resolution, of the healed
    ones; None if there are none.
    """

    healed: int
    not_healed: int
    unknown: int
    pending: int
    median_to_heal: timedelta | None

    @property
    def total(self) -> int:
        """How many there are."""
        return self.healed + self.not_healed + self.unknown + self.pending

    @property
    def heal_rate(self) -> float | None:
        """The share of healed ones (0 to 1) among those that healed or did not; None of none."""
        decided = self.healed + self.not_healed
        return self.healed / decided if decided else None


@dataclass(frozen=True, slots=True)
class RunStats:
    """Statistics of remediations; times are UTC.

    `runs` started, of which `succeeded` and `failed` ended by themselves. `effects` are those of
    the runs for firing alerts. `dry_runs` are not runs: of these, `healed` counts alerts that were
    resolved without a remediation. `median_duration` is the median time from start to end of the
    runs that ended; None if there are none.
    """

    runs: int
    succeeded: int
    failed: int
    effects: EffectCounts
    dry_runs: EffectCounts
    first_received_at: datetime
    last_received_at: datetime
    median_duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class CommitStats:
    """Statistics of the Jobs that an operario created from one commit.

    `spec_digest` identifies the operario's definition, which most commits do not change; it is
    empty if the Jobs of the commit differ in it.
    """

    operario: str
    commit: str
    spec_digest: str
    stats: RunStats


@dataclass(frozen=True, slots=True)
class _Outcome:
    remediation: Remediation
    assessment: Assessment | None


@dataclass(frozen=True, slots=True)
class StatsReport:
    """The statistics of remediations whose Jobs exist.

    `oldest` is when the first of their alerts was received (UTC); None if there are none.
    `total` is None if nothing ran. Of `commits`, the operario that was needed last comes first,
    with its commits from the newest.
    """

    oldest: datetime | None
    total: RunStats | None
    commits: Sequence[CommitStats]


def report_stats(
    remediations: Iterable[Remediation],
    now: datetime,
    selects: Callable[[Remediation], bool] = lambda _: True,
) -> StatsReport:
    """Compute the statistics of each operario and commit.

    Args:
        remediations: all that are known, since others of an incident determine an effect.
        now: the current time (UTC).
        selects: those that count.
    """
    remediations = list(remediations)
    incidents = index_incidents(remediations)
    selected = [remediation for remediation in remediations if selects(remediation)]
    ran = [
        _Outcome(
            remediation,
            assess(remediation, incidents.get(remediation.incident, [remediation]), now),
        )
        for remediation in selected
        if remediation.has_run or is_dry_run(remediation)
    ]
    groups: dict[tuple[str, str], list[_Outcome]] = defaultdict(list)
    for outcome in ran:
        groups[outcome.remediation.operario, outcome.remediation.commit].append(outcome)
    return StatsReport(
        oldest=min((remediation.received_at for remediation in selected), default=None),
        total=_run_stats(ran) if ran else None,
        commits=_newest_first([_of_commit(*names, group) for names, group in groups.items()]),
    )


def _newest_first(rows: Sequence[CommitStats]) -> list[CommitStats]:
    latest: dict[str, datetime] = {}
    for row in rows:
        moment = row.stats.last_received_at
        latest[row.operario] = max(moment, latest.get(row.operario, moment))
    return sorted(
        rows,
        key=lambda row: (latest[row.operario], row.operario, row.stats.last_received_at),
        reverse=True,
    )


def _of_commit(operario: str, commit: str, group: Sequence[_Outcome]) -> CommitStats:
    digests = {outcome.remediation.spec_digest for outcome in group}
    digest = digests.pop() if len(digests) == 1 else ""
    return CommitStats(operario, commit, digest, _run_stats(group))


def _run_stats(group: Sequence[_Outcome]) -> RunStats:
    runs = [outcome for outcome in group if outcome.remediation.has_run]
    phases = Counter(outcome.remediation.phase for outcome in runs)
    received = [outcome.remediation.received_at for outcome in group]
    return RunStats(
        runs=len(runs),
        succeeded=phases[Phase.SUCCEEDED],
        failed=phases[Phase.FAILED],
        effects=_effect_counts(runs),
        dry_runs=_effect_counts([outcome for outcome in group if is_dry_run(outcome.remediation)]),
        first_received_at=min(received),
        last_received_at=max(received),
        median_duration=_median(
            outcome.remediation.finished_at - outcome.remediation.started_at
            for outcome in runs
            if outcome.remediation.started_at and outcome.remediation.finished_at
        ),
    )


def _effect_counts(group: Iterable[_Outcome]) -> EffectCounts:
    counts: Counter[Effect] = Counter()
    times: list[timedelta] = []
    for outcome in group:
        if outcome.assessment is None:
            continue
        counts[outcome.assessment.effect] += 1
        healed_at = outcome.remediation.resolved_at or outcome.assessment.at
        if outcome.assessment.effect is Effect.HEALED and healed_at is not None:
            times.append(healed_at - outcome.remediation.received_at)
    return EffectCounts(
        healed=counts[Effect.HEALED],
        not_healed=counts[Effect.NOT_HEALED],
        unknown=counts[Effect.UNKNOWN],
        pending=counts[Effect.PENDING],
        median_to_heal=_median(times),
    )


def _median(times: Iterable[timedelta]) -> timedelta | None:
    seconds = [max(time.total_seconds(), 0.0) for time in times]
    return timedelta(seconds=median(seconds)) if seconds else None

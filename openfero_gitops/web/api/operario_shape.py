"""The models of an operario, and of its statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WithJsonSchema

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.operario import OPTIONS, Form
from openfero_gitops.web.api.shape import ListShape, Moment, Shape, Text

if TYPE_CHECKING:
    from datetime import timedelta

    from openfero_gitops.domain.operario import Operario
    from openfero_gitops.effects.stats import CommitStats, RunStats, StatsReport

_OptionValues = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                option.member: {"description": option.description.replace("`", "")}
                for option in OPTIONS
            },
            "required": [option.member for option in OPTIONS],
            "additionalProperties": False,
        }
    ),
]


class OperarioShape(Shape):
    """A remediation definition of the active catalog."""

    name: Text
    """Name of the operario."""
    alert: Text
    """Name of the alert that it answers."""
    status: Status
    """Status of the alert that it answers."""
    form: Form
    """Which of OpenFero's formats its file has."""
    namespace: Text | None
    """Namespace of its Jobs; null for the default."""
    path: Text
    """Its file, from the root of the repository."""
    commit: Text
    """The commit of its file."""
    blob: Text
    """Git's id of the file's content."""
    author: Text | None
    """Author of the commit."""
    time: Text | None
    """Time of the commit."""
    verified_signer: Text | None
    """Who signed the commit, if the signature was verified."""
    stale: bool
    """Whether a newer version of the file has errors."""
    spec_digest: Text
    """Identifies the definition; changes when its meaning changes."""
    options: _OptionValues
    """Its options, as an author writes them."""


class OperarioListShape(ListShape[OperarioShape]):
    """Operarios, by name."""


def operario_shape(value: Operario) -> OperarioShape:
    """Convert an operario of the active catalog, with its commit."""
    return OperarioShape(
        name=value.name,
        alert=value.alertname,
        status=value.status,
        form=value.form,
        namespace=value.namespace,
        path=value.origin.path,
        commit=value.origin.commit,
        blob=value.origin.blob,
        author=value.origin.commit_author or None,
        time=value.origin.commit_time or None,
        verified_signer=value.origin.verified_signer or None,
        stale=value.origin.stale,
        spec_digest=value.spec_digest,
        options={option.member: option.to_api(option.of(value.options)) for option in OPTIONS},
    )


class DryRunCountsShape(Shape):
    """Counts of dry runs, which start no Job."""

    would_have_run: int
    resolved_without_job: int
    not_resolved: int
    unknown: int
    pending: int
    median_seconds_to_resolve: float | None


class RunStatsShape(Shape):
    """Statistics of remediations whose Jobs exist."""

    runs: int
    """Jobs that started."""
    succeeded: int
    failed: int
    healed: int
    """Runs after which the alert was resolved in time, and did not fire again."""
    not_healed: int
    unknown: int
    pending: int
    heal_rate: float | None
    """The share of healed ones among those that healed or did not, from 0 to 1."""
    median_seconds_to_heal: float | None
    median_seconds_to_run: float | None
    """The median duration of the Jobs that ended."""
    dry_runs: DryRunCountsShape
    first_received_at: Moment
    last_received_at: Moment


class CommitStatsShape(RunStatsShape):
    """Statistics of an operario's Jobs from one commit."""

    commit: Text
    spec_digest: Text | None
    """Identifies the definition; null if the Jobs of the commit differ in it."""


class OperarioCommitStatsShape(CommitStatsShape):
    """Statistics of one commit of one of several operarios."""

    operario: Text


class OperarioStatsShape(Shape):
    """Statistics of one operario."""

    operario: Text
    """Name of the operario."""
    since: Moment | None
    """When the first alert was received of a Job that exists."""
    total: RunStatsShape | None
    """All commits together; null if nothing ran."""
    commits: list[CommitStatsShape]
    """Each commit, newest first."""


class StatsReportShape(Shape):
    """Statistics of operarios by commit."""

    since: Moment | None
    items: list[OperarioCommitStatsShape]


def stats_report_shape(value: StatsReport) -> StatsReportShape:
    """Convert the statistics of operarios by commit, as `openfero-gitops stats` prints them."""
    return StatsReportShape(
        since=value.oldest,
        items=[
            OperarioCommitStatsShape(operario=commit.operario, **_commit_stats(commit))
            for commit in value.commits
        ],
    )


def operario_stats_shape(name: str, value: StatsReport) -> OperarioStatsShape:
    """Convert the statistics of one operario."""
    return OperarioStatsShape(
        operario=name,
        since=value.oldest,
        total=RunStatsShape(**_run_stats(value.total)) if value.total else None,
        commits=[CommitStatsShape(**_commit_stats(commit)) for commit in value.commits],
    )


def _commit_stats(value: CommitStats) -> dict[str, Any]:
    return {
        "commit": value.commit,
        "spec_digest": value.spec_digest or None,
        **_run_stats(value.stats),
    }


def _run_stats(value: RunStats) -> dict[str, Any]:
    """Convert statistics; rates are from 0 to 1, and medians in seconds."""
    effects, dry_runs = value.effects, value.dry_runs
    return {
        "runs": value.runs,
        "succeeded": value.succeeded,
        "failed": value.failed,
        "healed": effects.healed,
        "not_healed": effects.not_healed,
        "unknown": effects.unknown,
        "pending": effects.pending,
        "heal_rate": None if effects.heal_rate is None else round(effects.heal_rate, 4),
        "median_seconds_to_heal": _in_seconds(effects.median_to_heal),
        "median_seconds_to_run": _in_seconds(value.median_duration),
        "dry_runs": DryRunCountsShape(
            would_have_run=dry_runs.total,
            resolved_without_job=dry_runs.healed,
            not_resolved=dry_runs.not_healed,
            unknown=dry_runs.unknown,
            pending=dry_runs.pending,
            median_seconds_to_resolve=_in_seconds(dry_runs.median_to_heal),
        ),
        "first_received_at": value.first_received_at,
        "last_received_at": value.last_received_at,
    }


def _in_seconds(value: timedelta | None) -> float | None:
    return None if value is None else round(value.total_seconds(), 3)

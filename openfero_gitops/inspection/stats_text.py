"""Statistics of operarios for people: a table of runs, and one of dry runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openfero_gitops.domain.duration import format_age
from openfero_gitops.domain.text import aligned, plural, printable
from openfero_gitops.domain.timestamp import format_seconds

if TYPE_CHECKING:
    from datetime import timedelta

    from openfero_gitops.effects.stats import CommitStats, StatsReport

_COMMIT_CHARACTERS: Final = 12
_DIGEST_CHARACTERS: Final = 8
_MAX_CELL_CHARACTERS: Final = 4096
_TEXT_COLUMNS: Final = 3  # the others are numbers
_NAMES: Final = ("OPERARIO", "COMMIT", "SPEC")
_RUNS: Final = (
    "RUNS",
    "SUCCEEDED",
    "FAILED",
    "HEALED",
    "NOT HEALED",
    "UNKNOWN",
    "PENDING",
    "HEAL RATE",
    "TIME TO HEAL",
)
_DRY_RUNS: Final = (
    "DRY RUNS",
    "RESOLVED WITHOUT US",
    "NOT IN TIME",
    "UNKNOWN",
    "PENDING",
    "MEDIAN TIME",
)
_NONE: Final = "-"


def stats_table(report: StatsReport) -> str:
    """One line per operario and commit, then the dry runs, then a summary."""
    runs = [commit for commit in report.commits if commit.stats.runs]
    dry_runs = [commit for commit in report.commits if commit.stats.dry_runs.total]
    tables = [
        aligned([(*_NAMES, *_RUNS), *map(_run_row, runs)], _TEXT_COLUMNS) if runs else [],
        aligned([(*_NAMES, *_DRY_RUNS), *map(_dry_run_row, dry_runs)], _TEXT_COLUMNS)
        if dry_runs
        else [],
        [_summary(report)],
    ]
    return "\n\n".join("\n".join(table) for table in tables if table)


def _run_row(commit: CommitStats) -> tuple[str, ...]:
    stats, effects = commit.stats, commit.stats.effects
    counts = (effects.healed, effects.not_healed, effects.unknown, effects.pending)
    return (
        *_name_cells(commit),
        *map(str, (stats.runs, stats.succeeded, stats.failed)),
        # A remediation of a resolved alert has no effect.
        *(map(str, counts) if effects.total else (_NONE,) * len(counts)),
        _NONE if effects.heal_rate is None else f"{effects.heal_rate:.0%}",
        _duration(effects.median_to_heal),
    )


def _dry_run_row(commit: CommitStats) -> tuple[str, ...]:
    effects = commit.stats.dry_runs
    return (
        *_name_cells(commit),
        str(effects.total),
        str(effects.healed),
        str(effects.not_healed),
        str(effects.unknown),
        str(effects.pending),
        _duration(effects.median_to_heal),
    )


def _name_cells(commit: CommitStats) -> tuple[str, ...]:
    return (
        printable(commit.operario, _MAX_CELL_CHARACTERS) or _NONE,
        printable(commit.commit[:_COMMIT_CHARACTERS]) or _NONE,
        printable(commit.spec_digest[:_DIGEST_CHARACTERS]) or _NONE,
    )


def _duration(value: timedelta | None) -> str:
    return _NONE if value is None else format_age(value)


def _summary(report: StatsReport) -> str:
    """How much the numbers cover, and since when."""
    if report.oldest is None:
        return "No remediations: no Job of the controller matches."
    since = f"since {format_seconds(report.oldest)}, from the Jobs that still exist"
    if report.total is None:
        return f"No Job has started {since}."
    counts = [plural(report.total.runs, "run")]
    if report.total.dry_runs.total:
        counts.append(plural(report.total.dry_runs.total, "dry run"))
    return f"{' and '.join(counts)} {since}."

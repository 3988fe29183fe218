"""The table of `stats`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from openfero_gitops.effects.stats import CommitStats, EffectCounts, RunStats, StatsReport
from openfero_gitops.inspection.stats_text import stats_table
from tests.support.build import NOW

NOTHING = EffectCounts(0, 0, 0, 0, None)
RUNS = RunStats(
    runs=6,
    succeeded=5,
    failed=1,
    effects=EffectCounts(4, 1, 1, 0, timedelta(minutes=4, seconds=12.4)),
    dry_runs=NOTHING,
    first_received_at=NOW,
    last_received_at=NOW,
)
DRY_RUNS = replace(
    RUNS,
    runs=0,
    succeeded=0,
    failed=0,
    effects=NOTHING,
    dry_runs=EffectCounts(9, 2, 0, 1, timedelta(minutes=3)),
)


def report(*rows: CommitStats) -> StatsReport:
    """Put some rows into a report; the total is that of the first."""
    return StatsReport(NOW, rows[0].stats if rows else None, rows)


def test_each_commit_has_a_line_of_aligned_columns() -> None:
    """Names are aligned left, numbers right; commits and digests are abbreviated."""
    long = CommitStats("openfero-hostdown-firing", "a" * 40, "b" * 64, RUNS)
    short = CommitStats("x", "c" * 40, "", replace(RUNS, effects=NOTHING))
    head, first, second, empty, summary = stats_table(report(long, short)).splitlines()
    assert head.split()[:5] == ["OPERARIO", "COMMIT", "SPEC", "RUNS", "SUCCEEDED"]
    assert first.split() == [
        "openfero-hostdown-firing",
        "a" * 12,
        "b" * 8,
        *("6", "5", "1", "4", "1", "1", "0", "80%", "4m12s"),
    ]
    assert second.split() == ["x", "c" * 12, "-", "6", "5", "1", *"------"]
    assert len(head) == len(first) == len(second)
    assert empty == ""
    assert summary == "6 runs since 2026-11-21T03:04:05Z, from the Jobs that still exist."


def test_dry_runs_have_a_table_of_their_own() -> None:
    """It says how many alerts were resolved without a remediation; there is no table of runs."""
    head, row, _, summary = stats_table(
        report(CommitStats("x", "c" * 40, "d" * 64, DRY_RUNS))
    ).splitlines()
    assert "RESOLVED WITHOUT US" in head
    assert row.split()[3:] == ["12", "9", "2", "0", "1", "3m"]
    assert summary.startswith("0 runs and 12 dry runs since ")


def test_no_statistics() -> None:
    """Without Jobs, or without a Job that started, the summary says that nothing ran."""
    assert "no Job of the controller matches" in stats_table(StatsReport(None, None, ()))
    assert stats_table(StatsReport(NOW, None, ())).startswith("No Job has started since 2026")


def test_names_cannot_command_a_terminal() -> None:
    """Control characters of recorded names are escaped."""
    text = stats_table(report(CommitStats("a\x1b[2J", "\n", "", RUNS)))
    assert "a\\x1b[2J" in text
    assert len(text.splitlines()) == 4

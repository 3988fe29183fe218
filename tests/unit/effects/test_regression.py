from __future__ import annotations

import pytest

from openfero_gitops.effects.regression import Regression, find_regressions
from openfero_gitops.effects.stats import CommitStats, EffectCounts, RunStats
from tests.support.build import NOW

NEW, MIDDLE, OLD = "3" * 40, "2" * 40, "1" * 40


def commit(name: str, digest: str, healed: int, not_healed: int) -> CommitStats:
    """Make the statistics of a commit with these effects."""
    effects = EffectCounts(healed, not_healed, 0, 0, None)
    none = EffectCounts(0, 0, 0, 0, None)
    runs = RunStats(healed + not_healed, 0, 0, effects, none, NOW, NOW)
    return CommitStats("restart", name, digest, runs)


def test_a_commit_that_heals_clearly_less_is_named_with_the_figures() -> None:
    """Of nine healed alerts of ten, two of ten are left since the new commit."""
    commits = [commit(NEW, "b", 2, 8), commit(OLD, "a", 9, 1)]
    assert find_regressions(commits) == {NEW: Regression(2, 10, 9, 10)}


@pytest.mark.parametrize(
    ("healed", "not_healed", "healed_before", "not_healed_before"),
    [
        pytest.param(9, 1, 2, 8, id="better"),
        pytest.param(1, 1, 2, 0, id="too few runs"),
        pytest.param(850, 150, 950, 50, id="a small fall"),
        pytest.param(0, 0, 9, 1, id="no known effect"),
    ],
)
def test_a_fall_that_is_small_or_may_be_chance_is_not_reported(
    healed: int, not_healed: int, healed_before: int, not_healed_before: int
) -> None:
    """Only a large fall that enough runs show is reported."""
    commits = [
        commit(NEW, "b", healed, not_healed),
        commit(OLD, "a", healed_before, not_healed_before),
    ]
    assert find_regressions(commits) == {}


def test_commits_of_one_definition_count_together_from_the_first_of_them() -> None:
    """Commits that did not change the operario share its runs; the one that changed it is named."""
    newest = "4" * 40
    commits = [
        commit(newest, "b", 1, 4),
        commit(NEW, "b", 1, 4),
        commit(MIDDLE, "a", 5, 0),
        commit(OLD, "a", 4, 1),
    ]
    assert find_regressions(commits) == {NEW: Regression(2, 10, 9, 10)}


def test_a_version_that_stays_bad_is_not_reported_again() -> None:
    """The version after a bad one is compared with the bad one."""
    commits = [commit(NEW, "c", 2, 8), commit(MIDDLE, "b", 2, 8), commit(OLD, "a", 9, 1)]
    assert list(find_regressions(commits)) == [MIDDLE]

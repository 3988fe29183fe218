"""Which commit made an operario worse: whose version healed clearly fewer alerts than before.

Most commits do not change an operario. So the runs of consecutive commits with the same definition
are counted together, as one version, and a version is compared with the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from math import exp, lgamma
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openfero_gitops.effects.stats import CommitStats

#: A smaller fall of the heal rate is not reported, however many runs show it.
_MIN_FALL: Final = 0.2
#: The probability of a fall as large as this or larger, if the two versions heal equally well.
_MAX_CHANCE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Regression:
    """A fall of the heal rate: how many alerts were healed, of how many with a known effect."""

    healed: int
    decided: int
    healed_before: int
    decided_before: int


@dataclass(slots=True)
class _Version:
    first_commit: str
    healed: int = 0
    decided: int = 0


def find_regressions(commits: Sequence[CommitStats]) -> Mapping[str, Regression]:
    """Return the commits of one operario since which it heals clearly fewer alerts.

    Args:
        commits: of one operario, from the newest.
    """
    versions = [version for version in map(_version, _by_definition(commits)) if version.decided]
    regressions = {}
    for before, version in pairwise(versions):
        regression = Regression(version.healed, version.decided, before.healed, before.decided)
        if _is_clear(regression):
            regressions[version.first_commit] = regression
    return regressions


def _by_definition(commits: Sequence[CommitStats]) -> list[list[CommitStats]]:
    """Group the commits by definition, from the oldest; one without a digest is its own."""
    oldest_first = list(enumerate(reversed(commits)))
    groups = groupby(oldest_first, key=lambda pair: pair[1].spec_digest or pair[0])
    return [[commit for _, commit in group] for _, group in groups]


def _version(commits: Sequence[CommitStats]) -> _Version:
    version = _Version(commits[0].commit)
    for commit in commits:
        effects = commit.stats.effects
        version.healed += effects.healed
        version.decided += effects.healed + effects.not_healed
    return version


def _is_clear(fall: Regression) -> bool:
    """Whether a fall is large, and unlikely to be chance (Fisher's exact test, one-sided)."""
    if fall.healed_before / fall.decided_before - fall.healed / fall.decided < _MIN_FALL:
        return False
    healed = fall.healed + fall.healed_before
    lowest = max(0, healed - fall.decided_before)
    all_ways = _log_choices(fall.decided + fall.decided_before, healed)
    chance = sum(
        exp(
            _log_choices(fall.decided, count)
            + _log_choices(fall.decided_before, healed - count)
            - all_ways
        )
        for count in range(lowest, fall.healed + 1)
    )
    return chance <= _MAX_CHANCE


def _log_choices(count: int, chosen: int) -> float:
    """The logarithm of the binomial coefficient, which itself has thousands of digits."""
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)

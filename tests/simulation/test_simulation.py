"""Every promise, over many seeds; and that a broken one is found out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.sabotage import SABOTAGES, Sabotage
from tests.simulation.simulate import simulate

#: `make simulate` plays more.
SEEDS = 24
_SEEDS_PER_TEST = 4
#: Seeds to try after the known ones.
_SEEDS_PER_SABOTAGE = 150


@pytest.mark.parametrize("first", range(0, SEEDS, _SEEDS_PER_TEST))
def test_every_promise_is_kept(first: int) -> None:
    """No Job is lost, doubled or started that must not be, and in the end all is decided."""
    for seed in range(first, first + _SEEDS_PER_TEST):
        report = simulate(seed)
        assert not report.wrong, report.story()


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_a_broken_controller_is_found_out(sabotage: Sabotage) -> None:
    """Without one of the things that a promise rests on, a seed shows that it is broken."""
    seeds = [*sabotage.known_seeds, *range(_SEEDS_PER_SABOTAGE)]
    if next(sabotage.exposing(seeds), None) is None:
        pytest.fail(f"no seed of {len(seeds)} showed the sabotage")


def test_a_seed_plays_the_same_story_again() -> None:
    """In another process, with another order of hashes: or nobody could look into a failure."""
    stories = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "3"],
            env=os.environ | {"PYTHONHASHSEED": number},
            check=True,
            capture_output=True,
            timeout=300,
        ).stdout
        for number in ("1", "2")
    }
    assert len(stories) == 1

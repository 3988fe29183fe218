"""Every promise, over many seeds; and that a broken one is found out."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.simulation.many import play
from tests.simulation.sabotage import SABOTAGES, Sabotage
from tests.simulation.simulate import simulate

SEEDS = 200


def test_every_promise_is_kept_whatever_happens() -> None:
    """No Job lost, doubled, or started that must not; and in the end all is decided."""
    wrong = [report for report in play(range(SEEDS), os.cpu_count() or 1) if report.wrong]

    assert not wrong, wrong[0].story()


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_a_broken_controller_is_found_out(sabotage: Sabotage) -> None:
    """Without one of the things that a promise rests on, a seed soon shows that it is broken."""
    with ExitStack() as patches:
        for patch in sabotage.patches:
            patches.enter_context(patch())
        for seed in sabotage.seeds:
            found = simulate(seed).wrong
            if any(rule in words for words in found for rule in sabotage.rules):
                return
    pytest.fail(f"nothing was found out in {len(sabotage.seeds)} seeds")


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

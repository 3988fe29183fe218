"""The recorded figures of benchmarks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from openfero_gitops import __version__
from tests.bench.figures import Figure, Measured, Recorded, earlier, keep, version_key
from tests.support import record

if TYPE_CHECKING:
    from pathlib import Path


def _record(folder: Path, version: str, value: float) -> None:
    figures = [{"name": "cost", "value": value}]
    content = {"version": version, "benches": {"alerts": {"figures": figures}}}
    (folder / f"{version}.json").write_text(json.dumps(content))


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """A figure has the median, the lowest and the highest value of the rounds."""
    figure = Figure.of("cost", [3.0, 1.0, 2.0, 8.0])
    assert (figure.value, figure.low, figure.high) == (2.5, 1.0, 8.0)


@pytest.mark.parametrize(
    ("value", "more_is_better", "reached"),
    [(1.5, False, True), (1.6, False, False), (1.5, True, True), (1.4, True, False)],
)
def test_a_goal_is_the_most_or_the_least(value: float, more_is_better: bool, reached: bool) -> None:  # noqa: FBT001
    """A goal is an upper limit, or a lower one for what should be large."""
    assert Figure("x", value, goal=1.5, more_is_better=more_is_better).is_reached is reached


def test_figures_are_compared_with_the_newest_earlier_version(tmp_path: Path) -> None:
    """The comparison is with the newest earlier version, and numbers are compared as numbers."""
    for version, value in (("0.9.0", 1.0), ("0.10.0", 2.0), ("1.0.0", 3.0), ("1.1.0", 4.0)):
        _record(tmp_path, version, value)
    recorded = earlier("alerts", tmp_path, "1.0.0")
    assert recorded is not None
    assert recorded.version == "0.10.0"
    assert "0.10.0" in Measured([Figure("cost", 3.0)]).render(recorded)
    assert "1.50" in Measured([Figure("cost", 3.0)]).render(recorded)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0.9.0", "0.10.0"),
        ("1.0.0rc1", "1.0.0"),
        ("1.0.0rc2", "1.0.0rc10"),
        ("1.0.0", "1.0.1.dev1"),
        ("nightly", "0.1.0"),
    ],
)
def test_versions_are_ordered(older: str, newer: str) -> None:
    """Numbers are compared as numbers, and a pre-release comes before its release."""
    assert version_key(older) < version_key(newer)


def test_other_parameters_and_machines_are_reported() -> None:
    """A comparison says what was measured differently, and nothing if it was measured equally."""
    then = Recorded("1.0.0", {}, "2 cores", {"ALERTS": 500, "ROUNDS": 3})
    assert then.difference({"ALERTS": 500, "ROUNDS": 3}, "2 cores") == ""
    assert then.difference({"ALERTS": 1000, "ROUNDS": 3}, "4 cores") == (
        "1.0.0 was measured differently: ALERTS 500, now 1000; machine 2 cores, now 4 cores."
    )
    assert "ALERTS 500, now 1000" in Measured([], parameters={"ALERTS": 1000}).render(then)


def test_the_first_version_is_compared_with_its_own_record(tmp_path: Path) -> None:
    """Without an earlier version, the figures recorded for this version are used."""
    _record(tmp_path, "1.0.0", 1.0)
    recorded = earlier("alerts", tmp_path, "1.0.0")
    assert recorded is not None
    assert recorded.version == "1.0.0"
    assert earlier("other", tmp_path, "1.0.0") is None


def test_keeping_figures_leaves_those_of_other_benchmarks(tmp_path: Path) -> None:
    """Each benchmark replaces only its own figures in the file of the version."""
    keep("alerts", Measured([Figure("cost", 1.0, "ms")]), tmp_path)
    keep("git", Measured([Figure("sync", 2.0)]), tmp_path)
    keep("alerts", Measured([Figure("cost", 3.0, "ms")], parameters={"ALERTS": 9}), tmp_path)
    content = json.loads((tmp_path / f"{__version__}.json").read_text())
    assert content["version"] == __version__
    figures = {name: bench["figures"] for name, bench in content["benches"].items()}
    assert figures == {
        "alerts": [{"name": "cost", "value": 3.0, "unit": "ms"}],
        "git": [{"name": "sync", "value": 2.0}],
    }
    assert content["benches"]["alerts"]["parameters"] == {"ALERTS": 9}
    recorded = earlier("alerts", tmp_path)
    assert recorded is not None
    assert (recorded.machine, recorded.parameters) == (record.machine(), {"ALERTS": 9})

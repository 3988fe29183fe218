"""The command line of the benches."""

from __future__ import annotations

import sys

import pytest

from tests.bench import __main__ as bench


@pytest.mark.parametrize("variable", ["PROFILE", "TREE"])
def test_profiled_runs_and_other_trees_are_not_recorded(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--keep` is refused before anything is measured."""
    monkeypatch.setenv(variable, "x")
    monkeypatch.setattr(sys, "argv", ["bench", "alerts", "--keep"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert f"--keep does not go together with {variable}" in capsys.readouterr().err

"""The workflows of this repository and of the starter, as actionlint reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.actionlint import ACTIONLINT
from tests.support.paths import ROOT

SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run actionlint, with shellcheck for the scripts in workflows."""
    return subprocess.run(
        [str(ACTIONLINT.build()), f"-shellcheck={SHELLCHECK}", "-no-color", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_actionlint_finds_nothing() -> None:
    """Expressions, names of jobs, inputs of actions and scripts of all workflows are right."""
    files = [
        *ROOT.glob(".github/workflows/*.yml"),
        *ROOT.glob("operarios-example/.github/workflows/*.yaml"),
    ]
    ran = lint(*files)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_actionlint_reads_the_scripts(tmp_path: Path) -> None:
    """A variable without quotes in a script, and an unknown context, are found."""
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    file = tmp_path / "test.yml"
    file.write_text(text.replace("- run: .ci/run", "- run: rm $HOME/${{ unknown.name }}"))
    ran = lint(file)
    assert ran.returncode == 1
    assert "SC2086" in ran.stdout
    assert 'undefined variable "unknown"' in ran.stdout

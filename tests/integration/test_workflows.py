"""The workflows of this repository and of the starter, and what a release runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openfero_gitops import __version__
from tests.support.actionlint import ACTIONLINT
from tests.support.paths import ROOT

CHART = "charts/openfero-gitops/Chart.yaml"
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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what `.ci/release-notes` reads, with a changelog whose first section is released."""
    for name in (".ci/release-notes", "openfero_gitops/__init__.py", CHART):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changes = f"# Changes\n\n## {__version__} (2026-11-30)\n\nOne.\n\n## 0.0.1\n\nOld.\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    return tmp_path


def notes(checkout: Path, tag: str) -> subprocess.CompletedProcess[str]:
    """Run `.ci/release-notes` of a checkout."""
    argv = [str(checkout / ".ci" / "release-notes"), tag]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_a_release_has_the_notes_of_its_version(checkout: Path) -> None:
    """The notes are the first section of the changelog."""
    ran = notes(checkout, f"v{__version__}")
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "One.", "")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "openfero_gitops/__init__.py",
            f'"{__version__}"',
            '"9.0.0"',
            f"the tag is v{__version__}, but the version of the package is v9.0.0",
        ),
        (
            CHART,
            f"appVersion: {__version__}",
            "appVersion: 9.0.0",
            f"the tag is v{__version__}, but the version of the chart's image is v9.0.0",
        ),
        (
            CHART,
            f"\nversion: {__version__}",
            "\nversion: 9.0.0",
            f"the tag is v{__version__}, but the version of the chart is v9.0.0",
        ),
        (
            "CHANGELOG.md",
            f"## {__version__}",
            "## 9.0.0",
            f"the tag is v{__version__}, but the version of the changelog is v9.0.0",
        ),
        (
            "CHANGELOG.md",
            "(2026-11-30)",
            "(unreleased)",
            f"CHANGELOG.md: write the date of the release in '## {__version__} (unreleased)'",
        ),
    ],
)
def test_a_release_of_another_version_is_refused(
    checkout: Path, file: str, old: str, new: str, message: str
) -> None:
    """The tag, the package, the chart and the changelog have one version."""
    text = (checkout / file).read_text()
    assert old in text
    (checkout / file).write_text(text.replace(old, new))
    ran = notes(checkout, f"v{__version__}")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"{message}\n")

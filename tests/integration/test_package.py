"""The installed package is complete: the wheel holds everything that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from packaging.metadata import Metadata
from trove_classifiers import classifiers

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def build(target: str, source: Path, folder: Path) -> Path:
    """Build a wheel or an sdist of the sources in a folder."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=300,
    )
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the unpacked wheel, outside of the checkout."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)  # noqa: S202 - it is ours
    return unpacked


def run(installed: Path, *arguments: str) -> str:
    """Run the command from the wheel; return its output."""
    ran = subprocess.run(
        [sys.executable, "-m", "openfero_gitops", *arguments],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_wheel_runs_the_demo(installed: Path) -> None:
    """Without a checkout, the demo finds the starter repository inside the package."""
    assert "HTTP 200, created" in run(installed, "demo", "--once")


def test_the_wheel_has_the_data_files(installed: Path) -> None:
    """The wheel has the schema, the pages and the starter's hidden folders, but no tests."""
    package = installed / "openfero_gitops"
    assert (package / "catalog" / "validation" / "schema" / "jobs.json").is_file()
    assert (package / "web" / "templates" / "overview.html").is_file()
    assert (package / "web" / "static" / "styles" / "base.css").is_file()
    assert (package / "web" / "swagger" / "initializer.js").is_file()
    assert list((package / "example" / "_alerts").glob("*.json"))
    assert not (installed / "tests").exists()


def test_the_wheel_has_the_console_script(installed: Path) -> None:
    """The wheel installs the command `openfero-gitops`."""
    [entry_points] = installed.glob("*.dist-info/entry_points.txt")
    assert "openfero-gitops = openfero_gitops.__main__:main" in entry_points.read_text()


def test_the_wheel_describes_itself(installed: Path) -> None:
    """The metadata is valid, and names the license with its text, the pages and the Pythons."""
    [file] = installed.glob("*.dist-info/METADATA")
    metadata = Metadata.from_email(file.read_bytes())  # checks every field
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.license_files == ["LICENSE", "NOTICE"]
    for name in metadata.license_files:
        assert (file.parent / "licenses" / name).read_bytes() == (ROOT / name).read_bytes()
    assert metadata.description_content_type == "text/markdown"
    assert {"Changelog", "Documentation", "Issues", "Security"} <= {*(metadata.project_urls or {})}
    assert {*(metadata.classifiers or [])} <= classifiers


def test_the_page_on_pypi_has_links_that_work_there(installed: Path) -> None:
    """Each link of the description has a host, and leads to a file of the main branch."""
    [file] = installed.glob("*.dist-info/METADATA")
    links = re.findall(r"\]\(([^)#]+)", Metadata.from_email(file.read_bytes()).description or "")
    assert links
    for link in links:
        path = link.removeprefix("https://github.com/OpenFero/openfero-gitops/blob/main/")
        assert path != link
        assert (ROOT / path).is_file()


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """The source distribution is complete, and a wheel built from it has the same bytes."""
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    [sources] = (tmp_path / "sources").iterdir()
    assert build("wheel", sources, tmp_path / "wheel").read_bytes() == wheel.read_bytes()

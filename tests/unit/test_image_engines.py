from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts import build_image, image_engines
from scripts.image_engines import Buildah, Docker, EngineError, find_engine

if TYPE_CHECKING:
    from pathlib import Path


def program(folder: Path, name: str, script: str = "exit 0") -> None:
    """Write a program that stands for the one of this name."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder in PATH, with `stat`, to which every file system is ext4."""
    folder = tmp_path / "bin"
    program(folder, "stat", "echo ext2/ext3")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_buildah_is_preferred_to_docker(programs: Path) -> None:
    """Docker is used only where buildah is not installed."""
    program(programs, "docker")
    assert find_engine() == Docker(str(programs / "docker"))
    program(programs, "buildah")
    assert find_engine() == Buildah(str(programs / "buildah"))


@pytest.mark.usefixtures("programs")
def test_without_an_engine_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where neither is installed, one line says so and the exit code is 1."""
    monkeypatch.setattr("sys.argv", ["build_image"])
    assert build_image.main() == 1
    assert capsys.readouterr().err == (
        "an image is built with buildah or docker; install one of them\n"
    )


def test_a_failing_build_shows_the_messages_of_the_engine(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine's own words are shown, and then which step failed."""
    program(programs, "buildah", "echo 'no space left on device' >&2; exit 125")
    with pytest.raises(EngineError, match="buildah push failed"):
        find_engine().save("localhost/image:1", programs / "image.tar")
    assert "no space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file_system", "variables", "options"),
    [
        ("ext2/ext3", {}, ""),
        ("overlayfs", {}, "--storage-driver=vfs "),
        ("overlayfs", {"STORAGE_DRIVER": "overlay"}, ""),
    ],
)
def test_buildah_stores_files_on_an_overlay(
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_system: str,
    variables: dict[str, str],
    options: str,
) -> None:
    """Where the storage lies on an overlay, as in a container, buildah does not use another one."""
    monkeypatch.setattr(image_engines, "_CONFIGURATION", programs / "storage.conf")
    for name in ("STORAGE_DRIVER", "CONTAINERS_STORAGE_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    program(programs, "stat", f"echo {file_system}")
    program(programs, "buildah", 'echo "$@"')
    assert Buildah("buildah").run("mount") == f"{options}mount\n"

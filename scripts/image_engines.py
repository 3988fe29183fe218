"""The programs that build an image: buildah, which needs no daemon, or docker."""  # noqa: INP001 - imported by a script

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class EngineError(Exception):
    """An image cannot be built here; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """What an image is built from.

    Args:
        folder: with the Dockerfile and the sources.
        reference: name and tag of the image.
        arguments: build arguments.
        epoch: seconds since 1970, the modification time of each file and of the image.
        secrets: files that the build can read and that stay out of the image, by their id.
        cached: whether layers of earlier builds are used again.
    """

    folder: Path
    reference: str
    arguments: Mapping[str, str]
    epoch: int
    secrets: Mapping[str, Path]
    cached: bool

    def options(self) -> list[str]:
        """Return the options that both programs share."""
        options = [f"--tag={self.reference}", f"--file={self.folder / 'Dockerfile'}"]
        options += [f"--build-arg={name}={value}" for name, value in self.arguments.items()]
        options += [f"--secret=id={name},src={path}" for name, path in self.secrets.items()]
        return options if self.cached else [*options, "--no-cache"]


class Engine(Protocol):
    """A program that builds images."""

    def has(self, reference: str) -> bool:
        """Return whether the image is there."""

    def build(self, recipe: Recipe) -> None:
        """Build the image."""

    def add(self, root: Path, reference: str) -> None:
        """Make an image with one layer, from the archive of a root file system."""

    def save(self, reference: str, archive: Path) -> None:
        """Write the image as an archive that `docker load` and `ctr image import` read."""


@dataclass(frozen=True)
class Buildah:
    """Builds with buildah. Run as root it needs neither a daemon nor privileges for containers."""

    executable: str

    def has(self, reference: str) -> bool:
        """Return whether the image is in the storage."""
        return _succeeds(self.executable, "inspect", "--type=image", reference)

    def build(self, recipe: Recipe) -> None:
        """Build the image, with each file dated `epoch`."""
        isolation = [] if "BUILDAH_ISOLATION" in os.environ else ["--isolation=chroot"]
        options = [*isolation, "--layers", f"--timestamp={recipe.epoch}", "--identity-label=false"]
        _run(self.executable, "build", *options, *recipe.options(), str(recipe.folder))

    def add(self, root: Path, reference: str) -> None:
        """Make an image with one layer; its date is the same in every build."""
        container = _run(self.executable, "from", "scratch").strip()
        _run(self.executable, "add", container, str(root), "/")
        _run(self.executable, "commit", "--timestamp=0", "--rm", container, reference)

    def save(self, reference: str, archive: Path) -> None:
        """Write the image's archive."""
        _run(self.executable, "push", reference, f"docker-archive:{archive}:{reference}")


@dataclass(frozen=True)
class Docker:
    """Builds with docker. Its layers keep the time of the build."""

    executable: str

    def has(self, reference: str) -> bool:
        """Return whether the daemon has the image."""
        return _succeeds(self.executable, "image", "inspect", reference)

    def build(self, recipe: Recipe) -> None:
        """Build the image."""
        epoch = f"--build-arg=SOURCE_DATE_EPOCH={recipe.epoch}"
        _run(self.executable, "build", epoch, *recipe.options(), str(recipe.folder), buildkit="1")

    def add(self, root: Path, reference: str) -> None:
        """Make an image with one layer."""
        _run(self.executable, "import", str(root), reference)

    def save(self, reference: str, archive: Path) -> None:
        """Write the image's archive."""
        _run(self.executable, "save", f"--output={archive}", reference)


def find_engine() -> Engine:
    """Return buildah if it is installed, else docker.

    Raises:
        EngineError: neither is.
    """
    if (buildah := shutil.which("buildah")) is not None:
        return Buildah(buildah)
    if (docker := shutil.which("docker")) is not None:
        return Docker(docker)
    raise EngineError("an image is built with buildah or docker; install one of them")


#: What the Dockerfile expects of its base.
_PACKAGES: Final = "ca-certificates,python3,python3-venv"
_SUITE: Final = "bookworm"


def local_base(engine: Engine) -> str:
    """Return a base image made of Debian's packages, for machines that reach no registry.

    It is made once, and again when its reference changes.

    Raises:
        EngineError: mmdebstrap is missing, or fails.
    """
    reference = f"localhost/debian-python:{_SUITE}-1"
    if engine.has(reference):
        return reference
    if (mmdebstrap := shutil.which("mmdebstrap")) is None:
        raise EngineError("BASE=local is made with mmdebstrap; install it")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root.tar"
        unused = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale")]
        # Licenses are kept: an image must carry them.
        unused += ["--dpkgopt=path-exclude=/usr/share/doc/*"]
        unused += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
        options = ["--variant=minbase", f"--include={_PACKAGES}", *unused]
        _run(mmdebstrap, *options, _SUITE, str(root))
        engine.add(root, reference)
    return reference


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str, buildkit: str = "") -> str:
    """Return what the command writes to stdout; its messages appear only if it fails."""
    environment = os.environ | ({"DOCKER_BUILDKIT": buildkit} if buildkit else {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise EngineError(f"{Path(command[0]).name} {command[1]} failed; see its messages above")
    return done.stdout

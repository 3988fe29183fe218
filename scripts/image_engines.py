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
    from collections.abc import Mapping, Sequence

#: Of buildah's storage; who wrote it has chosen a driver.
_CONFIGURATION: Final = Path("/etc/containers/storage.conf")


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

    def run(self, *arguments: str) -> str:
        """Return what a command of buildah writes to stdout.

        Raises:
            EngineError: it fails.
        """
        return _run(self.executable, *arguments, options=_storage())

    def has(self, reference: str) -> bool:
        """Return whether the image is in the storage."""
        return _succeeds(self.executable, *_storage(), "inspect", "--type=image", reference)

    def build(self, recipe: Recipe) -> None:
        """Build the image, with each file dated `epoch`."""
        isolation = [] if "BUILDAH_ISOLATION" in os.environ else ["--isolation=chroot"]
        options = [*isolation, "--layers", f"--timestamp={recipe.epoch}", "--identity-label=false"]
        self.run("build", *options, *recipe.options(), str(recipe.folder))

    def add(self, root: Path, reference: str) -> None:
        """Make an image with one layer; its date is the same in every build."""
        container = self.run("from", "scratch").strip()
        self.run("add", container, str(root), "/")
        self.run("commit", "--timestamp=0", "--rm", container, reference)

    def save(self, reference: str, archive: Path) -> None:
        """Write the image's archive."""
        self.run("push", reference, f"docker-archive:{archive}:{reference}")


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
        _run(
            self.executable,
            "build",
            epoch,
            *recipe.options(),
            str(recipe.folder),
            DOCKER_BUILDKIT="1",
        )

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


def local_base(engine: Engine, *, cached: bool) -> str:
    """Return a base image made of Debian's packages, for machines that reach no registry.

    With `cached` it is made once, and again when its reference changes.

    Raises:
        EngineError: mmdebstrap is missing, or fails.
    """
    reference = f"localhost/debian-python:{_SUITE}-2"
    if cached and engine.has(reference):
        return reference
    if (mmdebstrap := shutil.which("mmdebstrap")) is None:
        raise EngineError("BASE=local is made with mmdebstrap; install it")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root.tar"
        unused = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale")]
        # Licenses are kept: an image must carry them.
        unused += ["--dpkgopt=path-exclude=/usr/share/doc/*"]
        unused += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
        # They come from this machine.
        own = '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'
        options = ["--variant=minbase", f"--include={_PACKAGES}", *unused, own]
        _run(mmdebstrap, *options, _SUITE, str(root))
        engine.add(root, reference)
    return reference


def _storage() -> list[str]:
    """Return the option that names buildah's storage driver, where its own choice would fail.

    In most containers the storage lies on an overlay, on which the kernel puts no other one.
    (Without a configuration, buildah 1.28 heeds the option, but not the variable STORAGE_DRIVER.)
    """
    if _CONFIGURATION.exists() or {"STORAGE_DRIVER", "CONTAINERS_STORAGE_CONF"} & {*os.environ}:
        return []
    folder = Path("/var/lib/containers/storage")
    if os.geteuid() != 0:
        if shutil.which("fuse-overlayfs") is not None and Path("/dev/fuse").exists():
            return []  # which buildah uses for other users than root
        folder = Path.home() / ".local/share/containers/storage"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    kind = _run("stat", "--file-system", "--format=%T", str(existing)).strip()
    return ["--storage-driver=vfs"] if kind == "overlayfs" else []


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(program: str, *arguments: str, options: Sequence[str] = (), **variables: str) -> str:
    """Return what a program writes to stdout; its messages appear only if it fails."""
    done = subprocess.run(
        [program, *options, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise EngineError(f"{Path(program).name} {arguments[0]} failed; see its messages above")
    return done.stdout

"""The container image of this checkout, built once for all tests, and a container of it."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.build_image import SOURCES, build, commit_of
from scripts.image_engines import Buildah, EngineError
from scripts.image_sbom import TOOLS
from tests.cluster.node import lacking_privileges
from tests.support.optional import missing, require
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REFERENCE = "localhost/openfero-gitops:ci"
#: Its containers are named after the processes that use them.
_CONTAINER = "openfero-gitops-test-"
#: What else decides what the build makes of its sources, and of the list of packages.
_SCRIPTS = (
    "requirements/image.txt",
    "scripts/build_image.py",
    "scripts/image_*.py",
    "scripts/pip_access.py",
)


#: Prints what is wrong with a document. Its libraries are not in the environment of the tests.
_VALIDATION = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
document = pathlib.Path(sys.argv[1]).read_text()
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(document) or "valid")
"""


def validity(document: Path) -> str:
    """Return `valid`, or what is wrong with a CycloneDX document."""
    done = subprocess.run(
        [TOOLS / "python", "-c", _VALIDATION, document],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def can_be_built() -> bool:
    """Return whether this machine can build the image."""
    programs = ("buildah", "mmdebstrap", "unshare")
    return os.geteuid() == 0 and all(map(shutil.which, programs)) and not lacking_privileges()


def require_image() -> Path:
    """Return the folder with the image's archive, SBOM and checksums; see `missing`.

    It lies outside the checkout and is built again only when a file that it is made of changed.
    """
    if os.geteuid() != 0:
        missing("root", "run the tests as root to build the image")
    require("buildah", "apt-get install buildah", "buildah")
    require("mmdebstrap", "apt-get install mmdebstrap", "mmdebstrap")
    if need := lacking_privileges():
        missing("the right to mount", need)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    images = cache / "openfero-gitops" / "image"
    images.mkdir(parents=True, exist_ok=True)
    with (images / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = images / _key()[:12]
        if not (folder / "SHA256SUMS").exists():  # which is written last
            for outdated in sorted(images.glob("*/"), key=lambda path: path.stat().st_mtime)[:-1]:
                shutil.rmtree(outdated)
            build(folder, REFERENCE, base="local")
            _prune(Buildah("buildah"))
    return folder


def _prune(buildah: Buildah) -> None:
    """Remove from the storage what former builds, and tests that were killed, have left."""
    for container in json.loads(buildah.run("containers", "--json")) or ():
        name = container["containername"]
        process = name.removeprefix(_CONTAINER)
        if process != name and not Path("/proc", process).exists():
            buildah.run("rm", name)
    # Those of the same commit are kept: a further build uses their layers.
    label = "label=org.opencontainers.image.title=openfero-gitops"
    filters = [f"--filter={each}" for each in ("dangling=true", label, f"before={REFERENCE}")]
    for image in buildah.run("images", "--quiet", "--no-trunc", *filters).split():
        with suppress(EngineError):  # a test uses it
            buildah.run("rmi", image)


def _key() -> str:
    """Return a digest of the files that the image is built from, and of whether they are committed.

    The image says so. It names the commit in which its sources were last built.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SOURCES, *_SCRIPTS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    revision, _ = commit_of(ROOT)
    digest = hashlib.sha256(str(revision.endswith("-dirty")).encode())
    for name in sorted(set(listed.stdout.splitlines())):
        if (path := ROOT / name).is_file():
            digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Image:
    """The image: its configuration, and its files at `root`."""

    configuration: Mapping[str, Any]
    root: Path

    def run(self, *arguments: str, uid: int, mounts: Mapping[Path, str]) -> str:
        """Run the entrypoint as a user of group 0 on a read-only root, and return its output.

        Args:
            arguments: after the entrypoint.
            uid: of the user, who needs no entry in the image's passwd.
            mounts: folders of this machine, and where the image sees them.
        """
        return self._run([*self.configuration["Entrypoint"], *arguments], uid, mounts)

    def execute(self, *command: str, uid: int) -> str:
        """Run another command of the image in the same way."""
        return self._run(command, uid, {})

    def _run(self, command: Sequence[str], uid: int, mounts: Mapping[Path, str]) -> str:
        root = self.root
        steps = [
            f"mount --bind {root} {root}",
            f"mount -o remount,ro,bind {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs tmpfs {root}/tmp",
            *(f"mount --bind {source} {root}{target}" for source, target in mounts.items()),
            f'exec chroot --userspec={uid}:0 {root} env --chdir=/ "$@"',
        ]
        shell = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc"]
        done = subprocess.run(
            [*shell, "\n".join(steps), "sh", *command],
            env=dict(variable.split("=", 1) for variable in self.configuration["Env"]),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (
            f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout


@contextmanager
def mounted_image() -> Iterator[Image]:
    """Mount the image's files within the block."""
    [archive] = require_image().glob("*-image.tar")
    # Not by the image's name or ID: the storage may have lost it since it was built.
    buildah = Buildah("buildah")
    name = f"--name={_CONTAINER}{os.getpid()}"
    container = buildah.run("from", name, f"docker-archive:{archive}").strip()
    try:
        yield Image(_configuration(archive), Path(buildah.run("mount", container).strip()))
    finally:
        buildah.run("rm", container)


def _configuration(archive: Path) -> dict[str, Any]:
    """Return the configuration of the image in an archive."""
    with tarfile.open(archive) as tar:
        [manifest] = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        described = json.load(tar.extractfile(manifest["Config"]) or io.BytesIO())
    configuration: dict[str, Any] = described["config"]
    return configuration

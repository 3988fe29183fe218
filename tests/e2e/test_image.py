from __future__ import annotations

import hashlib
import json
import re
import stat
from typing import TYPE_CHECKING

import pytest

import openfero_gitops
from scripts.build_image import commit_of
from tests.support.image import mounted_image, require_image, validity
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.image import Image

# One worker builds and mounts the image.
pytestmark = pytest.mark.xdist_group("image")

#: A user that no passwd file names, as OpenShift assigns one to each namespace.
ARBITRARY = 1_000_650_000
LOCKED = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)
COMPILERS = re.compile(r"(?:.*-)?(?:gcc|g\+\+|cc|c\+\+|clang|ld|as|make|go|rustc|cargo)(?:-\d+)?")


@pytest.fixture(scope="module")
def folder() -> Path:
    """Build the image, unless it is there."""
    return require_image()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Mount the image."""
    with mounted_image() as image:
        yield image


def components(folder: Path) -> dict[str, str]:
    """Return the version of each component of the SBOM, by its package URL without version."""
    [file] = folder.glob("*.cdx.json")
    listed = json.loads(file.read_text())["components"]
    return {entry["purl"].partition("@")[0]: entry["version"] for entry in listed}


def test_the_configuration_says_what_runs_and_from_which_commit(image: Image) -> None:
    """The image runs as a numbered user under tini, and is labelled with version and commit."""
    configuration = image.configuration
    assert configuration["User"] == "65532:65532"
    assert configuration["Entrypoint"] == ["tini", "--", "openfero-gitops"]
    assert configuration["Cmd"] == ["serve"]
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.version"] == openfero_gitops.__version__
    revision, _ = commit_of(ROOT)
    suffix = "-dirty" if revision.endswith("-dirty") else ""
    assert re.fullmatch(r"[0-9a-f]{40}" + suffix, labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.source"].endswith("github.com/OpenFero/openfero-gitops")
    assert f"IMAGE_REVISION={labels['org.opencontainers.image.revision']}" in configuration["Env"]
    assert {"MALLOC_ARENA_MAX=2", "MALLOC_MMAP_THRESHOLD_=131072"} <= {*configuration["Env"]}


def test_any_user_can_run_it_on_a_read_only_root(image: Image) -> None:
    """The command works for a user that the image does not know, with nothing but /tmp writable."""
    version = image.run("--version", uid=ARBITRARY, mounts={})
    assert openfero_gitops.__version__ in version
    example = {ROOT / "operarios-example": "/mnt"}
    assert "valid" in image.run("validate", "/mnt", uid=ARBITRARY, mounts=example)
    image.execute("git", "--version", uid=ARBITRARY)
    image.execute("gpg", "--version", uid=ARBITRARY)


def test_ssh_accepts_any_user(image: Image) -> None:
    """ssh, which refuses a user without a name, runs in the environment that Git gets."""
    script = (
        "import os, pathlib; from openfero_gitops.sources.git import user_name;"
        "named = user_name.user_name_environment(pathlib.Path('/tmp'));"
        "os.execvpe('ssh', ['ssh', '-V'], os.environ | named)"
    )
    image.execute("python", "-c", script, uid=ARBITRARY)
    with pytest.raises(AssertionError, match=f"No user exists for uid {ARBITRARY}"):
        image.execute("ssh", "-V", uid=ARBITRARY)


def test_the_group_of_any_user_can_write_the_cache(image: Image) -> None:
    """Members of group 0 can write the cache folder, and other users cannot read it."""
    cache = (image.root / "var/cache/openfero-gitops").stat()
    assert (cache.st_uid, cache.st_gid, stat.S_IMODE(cache.st_mode)) == (65532, 0, 0o770)


def test_the_image_has_nothing_that_raises_rights_or_builds_programs(image: Image) -> None:
    """No file has a set-ID bit, and there is no compiler, no pip, no cache and no log."""
    files = [path for path in image.root.rglob("*") if not path.is_symlink() and path.is_file()]
    assert [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)] == []
    programs = {path.name for path in files if path.parent.name in {"bin", "sbin"}}
    assert [name for name in programs if COMPILERS.fullmatch(name)] == []
    assert [path for path in image.root.rglob("pip") if path.is_dir()] == []
    assert [*image.root.rglob("pip*.whl")] == []
    assert [*(image.root / "root").glob(".cache")] == []
    assert [*(image.root / "var/lib/apt/lists").glob("*_Packages*")] == []
    assert [*(image.root / "var/log").glob("*.log")] == []


def test_the_image_says_nothing_about_the_machine_that_built_it(image: Image) -> None:
    """Neither the name of the machine nor its name servers are in the image."""
    for name in ("etc/hostname", "etc/resolv.conf"):
        path = image.root / name
        assert not path.exists() or not path.read_text()


def test_python_does_not_compile_at_each_start(image: Image) -> None:
    """Each module of the package has bytecode that is used without looking at the source's time."""
    [package] = image.root.glob("opt/openfero-gitops/lib/python3.*/site-packages/openfero_gitops")
    sources = [*package.rglob("*.py")]
    compiled = [
        next(path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc")) for path in sources
    ]
    assert sources
    assert {path.read_bytes()[4] for path in compiled} == {0b01}  # hash-based, not checked


def test_the_sbom_is_valid_cyclonedx(folder: Path) -> None:
    """The SBOM fits CycloneDX's own schema."""
    [file] = folder.glob("*.cdx.json")
    assert validity(file) == "valid"


def test_the_sbom_names_each_locked_package_and_those_of_debian(folder: Path, image: Image) -> None:
    """The SBOM has every locked package with its version, the project, and all Debian packages."""
    listed = components(folder)
    locked = LOCKED.findall((ROOT / "requirements/otel.txt").read_text())
    assert len(locked) > 40
    normalized = {url.replace("_", "-").lower(): version for url, version in listed.items()}
    for name, version in locked:
        assert normalized[f"pkg:pypi/{name}"] == version
    assert normalized["pkg:pypi/openfero-gitops"] == openfero_gitops.__version__
    status = (image.root / "var/lib/dpkg/status").read_text()
    for name in re.findall(r"^Package: (\S+)$", status, re.MULTILINE):
        assert f"pkg:deb/debian/{name.replace('+', '%2B')}" in listed


def test_the_checksums_are_those_of_the_files(folder: Path) -> None:
    """SHA256SUMS names the archive and the SBOM, and their checksums are right."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    assert sorted(sums) == sorted(
        path.name for path in folder.glob("openfero-gitops-*") if path.is_file()
    )
    for name, expected in sums.items():
        with (folder / name).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == expected

"""Build the container image, list what it contains, and write the checksums of both.

`python -m scripts.build_image` leaves in dist/ the image's archive, which `docker load`,
`ctr image import` and `kind load image-archive` read, its CycloneDX SBOM, and SHA256SUMS.
"""  # noqa: INP001 - a script

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from openfero_gitops import __version__
from scripts.image_engines import EngineError, Recipe, find_engine, local_base
from scripts.image_sbom import bill_of_materials
from scripts.pip_access import pip_secrets

ROOT: Final = Path(__file__).resolve().parents[1]
NAME: Final = "openfero-gitops"
LOCAL: Final = "local"
#: What the image is made of.
SOURCES: Final = (
    ".dockerignore",
    "Dockerfile",
    "LICENSE",
    "NOTICE",
    "openfero_gitops",
    "operarios-example",
    "pyproject.toml",
    "requirements/build.txt",
    "requirements/otel.txt",
)


def main() -> int:
    """Build the image; an engine that is missing or fails is said on stderr, with exit code 1."""
    given = _parse()
    try:
        build(given.output, given.reference, base=given.base, cached=not given.no_cache)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument(
        "--reference", default=f"localhost/{NAME}:{__version__}", metavar="NAME:TAG"
    )
    parser.add_argument(
        "--base", default="", metavar="IMAGE", help=f"a Python image, or '{LOCAL}' to make one"
    )
    parser.add_argument("--no-cache", action="store_true", help="build every layer anew")
    return parser.parse_args()


def build(output: Path, reference: str, *, base: str = "", cached: bool = True) -> Path:
    """Build the image, and return the path of its archive.

    Raises:
        EngineError: neither buildah nor docker is installed, a build fails, or the commit cannot be
            read.
    """
    engine = find_engine()
    arguments = {"VERSION": __version__}
    if base:
        arguments["BASE"] = local_base(engine, cached=cached) if base == LOCAL else base
    revision, epoch = commit_of(ROOT)
    arguments["REVISION"] = revision
    arguments["CREATED"] = datetime.fromtimestamp(epoch, UTC).isoformat()
    with pip_secrets() as secrets:
        engine.build(Recipe(ROOT, reference, arguments, epoch, secrets, cached))

    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"{NAME}-{__version__}-image.tar"
    archive.unlink(missing_ok=True)  # buildah does not replace one
    engine.save(reference, archive)
    document = bill_of_materials(archive, NAME, __version__, epoch)
    sbom = archive.with_suffix(".cdx.json")
    sbom.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in (archive, sbom))
    (output / "SHA256SUMS").write_text(sums)
    sys.stdout.write(
        f"{reference}: {archive.stat().st_size / 1e6:.0f} MB,"
        f" {len(document['components'])} components\n{archive}\n{sbom}\n"
    )
    return archive


def commit_of(folder: Path) -> tuple[str, int]:
    """Return the commit and its time, or SOURCE_DATE_EPOCH; outside of a repository 1970.

    The commit has the suffix `-dirty` if the sources of the image differ from it.

    Raises:
        EngineError: Git refuses to read the repository.
    """
    revision, seconds = "unknown", "0"
    if (folder / ".git").exists():
        revision, seconds = _git(folder, "log", "-1", "--format=%H %ct").split()
        if _git(folder, "status", "--porcelain", "--", *SOURCES):
            revision += "-dirty"
    return revision, int(os.environ.get("SOURCE_DATE_EPOCH", seconds))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise EngineError("the commit is part of the image; install git") from None
    if done.returncode:
        raise EngineError(f"the commit is part of the image, but Git says: {done.stderr.strip()}")
    return done.stdout


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""The list of what an image contains, as CycloneDX: Debian's packages and Python's.

It is read from the image's archive, so it lists what is installed, not what was requested.
"""  # noqa: INP001 - imported by a script

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION: Final = "1.6"
#: The environment of the programs that list packages; see requirements/image.in.
TOOLS: Final = Path(sys.prefix) / "image" / "bin"
#: The files that name what is installed.
_WANTED: Final = (
    "etc/os-release",
    "usr/lib/os-release",
    "var/lib/dpkg/status",
    "opt/openfero-gitops/lib/*.dist-info/*",
    "usr/local/lib/*.dist-info/*",
)
#: In a layer, such a name removes what lower layers have under the rest of it, or beside it.
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


def bill_of_materials(archive: Path, name: str, version: str, epoch: int) -> dict[str, Any]:
    """Return the CycloneDX document of an image.

    Args:
        archive: of the image, as `docker save` writes it.
        name: of the image.
        version: of the image.
        epoch: seconds since 1970, the document's time.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        configuration = _unpack(archive, root)
        parts = [_debian(root, configuration["architecture"]), _python(root)]
    components = [component for part in parts for component in part["components"]]
    dependencies = [edge for part in parts for edge in part["dependencies"]]
    components += _interpreter(configuration)
    image = {"type": "container", "bom-ref": "image", "name": name, "version": version}
    needed = sorted(component["bom-ref"] for component in components)
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": _VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(needed))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "tools": {"components": [tool for part in parts for tool in _tools(part)]},
            "component": image,
        },
        "components": sorted(components, key=lambda component: str(component["bom-ref"])),
        "dependencies": [
            {"ref": "image", "dependsOn": needed},
            *sorted(dependencies, key=lambda edge: str(edge["ref"])),
        ],
    }


def _unpack(archive: Path, root: Path) -> Mapping[str, Any]:
    """Unpack what the list is made of, as the layers leave it; return the configuration."""
    with tarfile.open(archive) as image:
        [manifest] = json.load(_member(image, "manifest.json"))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=_member(image, name)) as layer:
                for entry in layer:
                    _apply(layer, entry, root)
        configuration: Mapping[str, Any] = json.load(_member(image, manifest["Config"]))
    return configuration


def _member(archive: tarfile.TarFile, name: str) -> Any:
    if (file := archive.extractfile(name)) is None:
        raise ValueError(f"{name} is not a file of the archive")
    return file


def _apply(layer: tarfile.TarFile, entry: tarfile.TarInfo, root: Path) -> None:
    path = PurePosixPath(entry.name)
    if path.name.startswith(_WHITEOUT):
        hidden = (
            path.parent if path.name == _OPAQUE else path.with_name(path.name[len(_WHITEOUT) :])
        )
        if (root / hidden).is_dir():
            shutil.rmtree(root / hidden)
        else:
            (root / hidden).unlink(missing_ok=True)
    elif entry.isfile() and any(fnmatch(str(path), pattern) for pattern in _WANTED):
        layer.extract(entry, root, filter="data")


def _debian(root: Path, architecture: str) -> dict[str, Any]:
    """List Debian's packages, and the sources that they were built from."""
    command = ["debsbom", "generate", "--sbom-type=cdx", f"--root={root}", "--out=-"]
    options = [f"--cdx-schema-version={_VERSION}", f"--distro-arch={architecture}"]
    return _document(*command, *options, "--no-recommends-deps")


def _python(root: Path) -> dict[str, Any]:
    """List Python's packages; for this, an interpreter is made that sees those of the image."""
    folders = {str(path.parent) for path in root.rglob("*.dist-info")}
    interpreter = root / "python"
    interpreter.write_text(
        f'#!/bin/sh\nPYTHONPATH={":".join(sorted(folders))} exec {TOOLS / "python"} "$@"\n'
    )
    interpreter.chmod(0o755)
    command = ["cyclonedx-py", "environment", "-S", f"--spec-version={_VERSION}"]
    return _document(*command, "--output-reproducible", "--no-validate", str(interpreter))


def _interpreter(configuration: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the Python of an official image, which is built from source there."""
    for variable in configuration["config"].get("Env", []):
        name, _, version = variable.partition("=")
        if name == "PYTHON_VERSION":
            url = f"pkg:generic/python@{version}"
            cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
            component = {"type": "platform", "bom-ref": url, "name": "python", "version": version}
            return [component | {"purl": url, "cpe": cpe}]
    return []


def _tools(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: tool[key] for key in ("type", "name", "version")}
        for tool in document["metadata"]["tools"]["components"]
    ]


def _document(*command: str) -> dict[str, Any]:
    done = subprocess.run([TOOLS / command[0], *command[1:]], capture_output=True, check=False)
    if done.returncode:
        sys.stderr.buffer.write(done.stderr)
        done.check_returncode()
    document: dict[str, Any] = json.loads(done.stdout)
    return document

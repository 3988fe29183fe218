from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

from scripts.image_sbom import bill_of_materials
from tests.support.image import validity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGES = "opt/openfero-gitops/lib/python3.13/site-packages"
STATUS = """\
Package: tini
Status: install ok installed
Version: 0.19.0-1
Architecture: amd64
Maintainer: Somebody <somebody@example.org>
Description: init for containers
"""


def metadata(name: str, version: str) -> str:
    """Return the METADATA of a Python package."""
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """Return a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def image(path: Path, layers: list[Mapping[str, str]], environment: list[str]) -> Path:
    """Write the archive of an image, as `docker save` does."""
    files: dict[str, str | bytes] = {
        f"{number}.tar": archive(layer) for number, layer in enumerate(layers)
    }
    names = list(files)
    files["config.json"] = json.dumps({"architecture": "amd64", "config": {"Env": environment}})
    files["manifest.json"] = json.dumps([{"Config": "config.json", "Layers": names}])
    path.write_bytes(archive(files))
    return path


def test_the_sbom_lists_what_the_last_layer_leaves_and_is_the_same_each_time(
    tmp_path: Path,
) -> None:
    """Packages of Debian and Python are listed, and Python, but nothing that a layer removed."""
    layers: list[Mapping[str, str]] = [
        {
            "etc/os-release": "ID=debian\n",
            "var/lib/dpkg/status": STATUS,
            "usr/local/lib/python3.13/site-packages/pip-26.0.dist-info/METADATA": metadata(
                "pip", "26.0"
            ),
            f"{PACKAGES}/old-1.dist-info/METADATA": metadata("old", "1"),
        },
        {
            "usr/local/lib/python3.13/site-packages/.wh.pip-26.0.dist-info": "",
            f"{PACKAGES}/.wh..wh..opq": "",
            f"{PACKAGES}/aiohttp-3.14.5.dist-info/METADATA": metadata("aiohttp", "3.14.5"),
        },
    ]
    file = image(tmp_path / "image.tar", layers, ["PYTHON_VERSION=3.13.16"])

    document, again = (
        bill_of_materials(file, "openfero-gitops", "0.1.0", epoch=1_796_000_000) for _ in range(2)
    )

    purls = {component["purl"] for component in document["components"]}
    assert {
        "pkg:deb/debian/tini@0.19.0-1?arch=amd64",
        "pkg:generic/python@3.13.16",
        "pkg:pypi/aiohttp@3.14.5",
    } <= purls
    assert [purl for purl in purls if "pip" in purl or "old" in purl] == []
    assert json.dumps(document) == json.dumps(again)
    assert document["metadata"]["timestamp"] == "2026-11-30T00:53:20+00:00"
    written = tmp_path / "image.cdx.json"
    written.write_text(json.dumps(document))
    assert validity(written) == "valid"

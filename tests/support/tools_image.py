"""An image with busybox and kubectl, which is written without an engine."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_USER = "65532:65532"
_LIBRARY = re.compile(r"(/\S+) \(0x")


def static_busybox() -> Path | None:
    """Return a busybox that needs no libraries, as an image without any must have."""
    found = shutil.which("busybox")
    # The beginning of a program names its interpreter, which loads libraries.
    return Path(found) if found and b"/ld-" not in Path(found).read_bytes()[:4096] else None


def write_tools(archive: Path, busybox: Path, kubectl: Path, names: Sequence[str]) -> None:
    """Write an archive, as `docker save` does, of an image with busybox and kubectl.

    The image has all of the names. Without a command it sleeps, which is what a Pod's sandbox does.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, program in (("busybox", busybox), ("kubectl", kubectl)):
            _add(tar, f"bin/{name}", program.read_bytes(), 0o755)
        for applet in subprocess.check_output([busybox, "--list"], text=True).split():
            if applet != "busybox":
                entry = tarfile.TarInfo(str(PurePosixPath("bin", applet)))
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "busybox", 0o777
                tar.addfile(entry)
    _write(archive, layer.getvalue(), ["/bin/sleep", "2147483647"], names, busybox)


def write_program(archive: Path, program: Path, name: str, files: Sequence[Path] = ()) -> None:
    """Write an archive of an image with a program, the libraries that it loads, and other files.

    It starts the program, whose arguments are those of the container.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for library in _LIBRARY.findall(said):
            _add(tar, library.removeprefix("/"), Path(library).read_bytes(), 0o755)
        _add(tar, f"bin/{program.name}", program.read_bytes(), 0o755)
        for file in files:
            _add(tar, str(file).removeprefix("/"), file.read_bytes())
    _write(archive, layer.getvalue(), [f"/bin/{program.name}"], [name], program)


def _write(
    archive: Path, content: bytes, entrypoint: list[str], names: Sequence[str], program: Path
) -> None:
    """Write an image of one layer; a program in it tells its architecture."""
    digest = hashlib.sha256(content).hexdigest()
    config = {
        "architecture": "amd64" if _is_amd64(program) else "arm64",
        "os": "linux",
        "config": {
            "User": _USER,
            "Env": ["PATH=/bin"],
            "Entrypoint": entrypoint,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [*names], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, mode="w") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", content)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _is_amd64(program: Path) -> bool:
    """Whether a program is for x86-64 (its ELF header has the machine at byte 18)."""
    with program.open("rb") as file:
        return file.read(20)[18] == 62

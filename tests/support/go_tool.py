"""Commands that are built from their published Go modules, once per version.

They lie outside the checkout, as the test cluster does, so that a fresh clone finds what an older
one built. Where a command is built already, Go is not needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.optional import missing, require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_BUILD_SECONDS = 5400


@dataclass(frozen=True)
class GoTool:
    """A command of a Go module.

    Args:
        name: of the command, and of its folder in the cache.
        package: path of the command's package, without that of the module.
        module: path of the module.
        version: of the module.
        duration: how long the build takes, for the line that announces it.
        data: files of the module that the tests need beside the command, as glob patterns.
        replacements: a text in the package's `main.go`, and what is compiled instead.
    """

    name: str
    module: str
    package: str
    version: str
    duration: str = ""
    data: Sequence[str] = ()
    replacements: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the command lies, with its data."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.sha256(json.dumps([*self.data, self.replacements]).encode()).hexdigest()
        key = f"{self.version}-{digest[:12]}" if self.data or self.replacements else self.version
        return cache / "openfero-gitops" / self.name / key

    @property
    def executable(self) -> Path:
        """The path of the command; it is there once it is built."""
        return self.folder / self.name

    def build(self) -> Path:
        """Return the path of the command, built at its first use; without Go see `missing`."""
        if not self.executable.exists():
            how = f"install Go 1.26 or later (https://go.dev/dl), it builds {self.name}"
            go = require("Go", how, "go")
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self.executable.exists():
                    text = f"building {self.name} {self.version}{self.duration} ..."
                    print(text, file=sys.stderr)
                    self._build(go)
        return self.executable

    def _build(self, go: Path) -> None:
        """Build in a separate folder, and move the complete executable to its place."""
        options = ["-trimpath", "-ldflags=-s -w"]
        partial = self.folder / ".partial"
        if self.replacements:
            with tempfile.TemporaryDirectory() as folder:
                copy = self._changed_copy(go, Path(folder) / "module")
                target = f"-o={partial / self.name}"
                self._run(go, "build", *options, target, f"./{self.package}", cwd=copy)
        else:
            package = f"{self.module}/{self.package}@{self.version}"
            self._run(go, "install", *options, package, GOBIN=str(partial))
        for pattern in self.data:
            for file in self.source(go).glob(pattern):
                (self.folder / file.name).write_bytes(file.read_bytes())
        (partial / self.name).rename(self.executable)

    def _changed_copy(self, go: Path, folder: Path) -> Path:
        """Copy the module, which lies in a read-only folder, and change its `main.go`."""
        shutil.copytree(self.source(go), folder, copy_function=shutil.copyfile)
        for path in (folder, *folder.glob("**/")):
            path.chmod(0o755)
        main = folder / self.package / "main.go"
        text = main.read_text()
        for before, after in self.replacements.items():
            assert text.count(before) == 1, f"{main} of {self.version} does not contain {before}"
            text = text.replace(before, after)
        main.write_text(text)
        return folder

    def source(self, go: Path) -> Path:
        """Download the module, and return where Go keeps it."""
        described = self._run(go, "mod", "download", "-json", f"{self.module}@{self.version}")
        return Path(json.loads(described)["Dir"])

    def _run(self, go: Path, *arguments: str, cwd: Path = Path("/"), **environment: str) -> str:
        done = subprocess.run(
            [go, *arguments],
            cwd=cwd,
            env=os.environ | {"CGO_ENABLED": "0"} | environment,
            capture_output=True,
            text=True,
            timeout=_MAX_BUILD_SECONDS,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            missing(f"{self.name} {self.version}", f"let Go build it ({last})")
        return done.stdout

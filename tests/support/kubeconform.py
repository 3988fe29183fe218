"""kubeconform: a fast validator of manifests against their JSON Schema, written in Go.

It checks the schema only. It reads no other file, and knows no rule that a schema cannot express.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openfero_gitops.catalog.validation.schema import DEFAULT, bundled
from tests.support.go_tool import GoTool

if TYPE_CHECKING:
    from pathlib import Path

KUBECONFORM = GoTool(
    "kubeconform", "github.com/yannh/kubeconform", "cmd/kubeconform", "v0.8.0", ": about a minute"
)


@dataclass(frozen=True)
class Kubeconform:
    """Runs kubeconform offline, with the Job schema of this package; `folder` is for schemas."""

    executable: Path
    folder: Path

    def run(self, source: Path) -> subprocess.CompletedProcess[str]:
        """Validate the Jobs in a folder, with as many threads as by default."""
        argv = [
            str(self.executable),
            "-strict",
            "-summary",
            "-skip=ServiceAccount",
            f"-schema-location={self.folder}/{{{{ .ResourceKind }}}}.json",
            str(source),
        ]
        return subprocess.run(argv, capture_output=True, text=True, check=False)


def require_kubeconform(folder: Path) -> Kubeconform:
    """Return the command, built at its first use; without Go see `missing`."""
    (folder / "job.json").write_text(json.dumps(bundled(DEFAULT)))
    return Kubeconform(KUBECONFORM.build(), folder)

#!/usr/bin/env python3
"""Write the Job schema of the Kubernetes that the tests run against.

    python tests/cluster/make_schema.py

Starts an API server, asks it for its own OpenAPI document and boils that down to
`openfero_gitops/pipeline/schema/job-MAJOR.MINOR.json`. To be run when `go.mod` names a new
version; the file is committed. The package's own requirements must be installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from openfero_gitops.pipeline.schema import bundle  # noqa: E402 - needs the path above
from tests.cluster.controlplane import COMPONENTS, ControlPlane  # noqa: E402 - the same

FOLDER = ROOT / "openfero_gitops" / "pipeline" / "schema"


def main() -> int:
    """Write one file and say which."""
    with tempfile.TemporaryDirectory() as directory:
        plane = ControlPlane(Path(directory) / "plane", components=COMPONENTS[:2], say=print)
        plane.start()
        try:
            _, version = plane.request("GET", "/version")
            status, openapi = plane.request("GET", "/openapi/v3/apis/batch/v1", patience=30)
        finally:
            plane.stop()
    if status != 200:
        sys.stderr.write(f"the API server answered {status}\n")
        return 1
    path = FOLDER / f"job-{version['major']}.{version['minor']}.json"
    text = json.dumps(bundle(openapi), sort_keys=True, separators=(",", ":"))
    path.write_text(text + "\n", "utf-8")
    sys.stdout.write(f"wrote {path.relative_to(ROOT)}, {len(text)} characters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

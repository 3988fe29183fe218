#!/usr/bin/env python3
"""Write the Job schemas of the Kubernetes versions that `--kubernetes-version` takes.

    python tests/cluster/make_schema.py

Kubernetes publishes with each version the OpenAPI documents that its API server serves, but
leaves out of them which words a field takes: those stand in the Go source that the API server
serves them from. Both are in the Go module `k8s.io/kubernetes`, which `go mod download` fetches
and verifies. (That the outcome is what a real API server says is tested with the one of the
version that is built for the tests.)

`openfero_gitops/catalog/validation/schema/jobs.json` holds the oldest version whole, and of each
later one what it changed. `gates.json` beside it has for each feature gate that the API server asks
when it reads a Job the first version that enables it by default, null if none does. To be run when
a version is added to `RELEASES`; the files are committed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from openfero_gitops.catalog.validation.schema import bundle, changes  # noqa: E402 - needs the path above

FOLDER: Final = ROOT / "openfero_gitops/catalog/validation/schema"
TARGET: Final = FOLDER / "jobs.json"
GATES: Final = FOLDER / "gates.json"
#: The last release of each version that there was when this was written.
RELEASES: Final = (
    "1.30.14",
    "1.31.14",
    "1.32.13",
    "1.33.13",
    "1.34.4",
    "1.35.4",
    "1.36.3",
    "1.37.2",
)
OPENAPI: Final = Path("api", "openapi-spec", "v3", "apis__batch__v1_openapi.json")
SOURCE: Final = Path("pkg", "generated", "openapi", "zz_generated.openapi.go")
#: What reads, defaults and validates a Job, and so asks for feature gates.
ASKS: Final = (
    "pkg/api/job/*.go",
    "pkg/api/pod/*.go",
    "pkg/api/persistentvolumeclaim/*.go",
    "pkg/apis/batch/validation/*.go",
    "pkg/apis/core/validation/*.go",
    "pkg/registry/batch/job/*.go",
)

_FUNCTION: Final = re.compile(r"func schema_k8sio_(\w+)\(")
_PROPERTY: Final = re.compile(r'\t{5}"([^"]+)": \{')
_WORDS: Final = re.compile(r"(\t+)Enum: +\[\]interface\{\}\{(.*)\},")
_ASKED: Final = re.compile(r"\.Enabled\(features\.(\w+)\)")
# `Name: {Default: true, ...}` up to 1.31, later a list with the version of each change.
_GATE: Final = re.compile(
    r"^\t(\w+): +\{(?:Default: (true|false)|\n((?:\t\t\{.*\n)+)\t\})", re.MULTILINE
)
_CHANGE: Final = re.compile(r'MustParse\("1\.([0-9]+)"\), Default: (true|false)')
_OF_THE_FIELD: Final = 7  # tabs; the words of a list's items stand deeper


def main() -> int:
    """Write the file and say how large it is."""
    versions = {}
    gates: dict[str, str | None] = {}
    for release in RELEASES:
        folder = download(release)
        openapi = json.loads((folder / OPENAPI).read_text("utf-8"))
        add_words(openapi["components"]["schemas"], (folder / SOURCE).read_text("utf-8"))
        version = release.rpartition(".")[0]
        versions[version] = bundle(openapi)["$defs"]
        enabled = enabled_gates(folder, int(version.partition(".")[2]))
        for gate in asked_gates(folder):
            if gates.get(gate) is None:
                gates[gate] = version if gate in enabled else None
        sys.stdout.write(f"read {release}\n")
    text = written(changes(versions))
    TARGET.write_text(text, "utf-8")
    GATES.write_text(json.dumps(gates, indent=2, sort_keys=True) + "\n", "utf-8")
    sys.stdout.write(
        f"wrote {TARGET.relative_to(ROOT)}, {len(text)} characters, and {GATES.name}\n"
    )
    return 0


def download(release: str) -> Path:
    """Where a release's source lies, read-only."""
    command = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{release}"]
    with tempfile.TemporaryDirectory() as outside_of_any_module:
        ran = subprocess.run(
            command, cwd=outside_of_any_module, capture_output=True, check=True, text=True
        )
    return Path(json.loads(ran.stdout)["Dir"])


def add_words(schemas: dict[str, Any], source: str) -> None:
    """Put the words that a field takes where the API server has them."""
    schemas = {
        name.removeprefix("io.k8s.").replace(".", "_"): schema for name, schema in schemas.items()
    }
    schema: dict[str, Any] = {}
    field = ""
    for line in source.splitlines():
        if match := _FUNCTION.match(line):
            schema, field = schemas.get(match[1], {}), ""
        elif match := _PROPERTY.match(line):
            field = match[1]
        elif (match := _WORDS.match(line)) and field in schema.get("properties", {}):
            place = schema["properties"][field]
            place = place if len(match[1]) == _OF_THE_FIELD else place["items"]
            place["enum"] = json.loads(f"[{match[2]}]")


def asked_gates(folder: Path) -> set[str]:
    """The feature gates that matter to a Job."""
    files = (path for pattern in ASKS for path in folder.glob(pattern))
    return {gate for path in files for gate in _ASKED.findall(path.read_text("utf-8"))}


def enabled_gates(folder: Path, minor: int) -> set[str]:
    """The feature gates that a version 1.`minor` enables by default."""
    enabled = set()
    for path in (folder / "pkg" / "features").glob("*kube_features.go"):
        for gate, default, changes_of_gate in _GATE.findall(path.read_text("utf-8")):
            states = [
                state for since, state in _CHANGE.findall(changes_of_gate) if int(since) <= minor
            ] or [default]
            if states[-1] == "true":
                enabled.add(gate)
    return enabled


def written(document: dict[str, dict[str, Any]]) -> str:
    """JSON with a definition on a line, so that a new version is a change that can be read."""
    versions = []
    for version, definitions in document.items():
        lines = [
            f"{json.dumps(name)}:{json.dumps(definition, sort_keys=True, separators=(',', ':'))}"
            for name, definition in sorted(definitions.items())
        ]
        versions.append(f"{json.dumps(version)}:{{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(versions) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())

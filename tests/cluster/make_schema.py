#!/usr/bin/env python3
"""Write the Job schemas of the Kubernetes versions that `--kubernetes-version` takes.

    python tests/cluster/make_schema.py

Kubernetes publishes with each version the OpenAPI documents that its API server serves, but
leaves out of them which words a field takes: those stand in the Go source that the API server
serves them from. Both are in the Go module `k8s.io/kubernetes`, which `go mod download` fetches
and verifies. (That the outcome is what a real API server says is tested with the one of the
version that is built for the tests.)

`openfero_gitops/catalog/validation/schema/jobs.json` holds the oldest version whole, and of each
later one what it changed. To be run when a version is added to `RELEASES`; the file is committed.
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

TARGET: Final = ROOT / "openfero_gitops/catalog/validation/schema/jobs.json"
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

_FUNCTION: Final = re.compile(r"func schema_k8sio_(\w+)\(")
_PROPERTY: Final = re.compile(r'\t{5}"([^"]+)": \{')
_WORDS: Final = re.compile(r"(\t+)Enum: +\[\]interface\{\}\{(.*)\},")
_OF_THE_FIELD: Final = 7  # tabs; the words of a list's items stand deeper


def main() -> int:
    """Write the file and say how large it is."""
    versions = {}
    for release in RELEASES:
        folder = download(release)
        openapi = json.loads((folder / OPENAPI).read_text("utf-8"))
        add_words(openapi["components"]["schemas"], (folder / SOURCE).read_text("utf-8"))
        versions[release.rpartition(".")[0]] = bundle(openapi)["$defs"]
        sys.stdout.write(f"read {release}\n")
    text = written(changes(versions))
    TARGET.write_text(text, "utf-8")
    sys.stdout.write(f"wrote {TARGET.relative_to(ROOT)}, {len(text)} characters\n")
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

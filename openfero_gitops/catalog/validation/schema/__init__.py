"""The schema of a Job in each version of Kubernetes.

The OpenAPI document of an API server is reduced to one JSON Schema (draft 2020-12) with the
definitions of a Job, without descriptions. Objects with known members allow no others, so one pass
tells whether a Job has any problem; integers have the bounds of their type in Go.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from openfero_gitops.catalog.validation.schema.gates import Release, release_of
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_JOB: Final = "io.k8s.api.batch.v1.Job"
_REFERENCE: Final = "#/components/schemas/"
# Written by the server and not validated.
_OPAQUE: Final = frozenset({"JobStatus", "ManagedFieldsEntry", "FieldsV1"})
_MAX_PATH_PARTS: Final = 10
_RANGES: Final = {
    "int32": {"minimum": -(2**31), "maximum": 2**31 - 1},
    "int64": {"minimum": -(2**63), "maximum": 2**63 - 1},
}
_KEPT_KEYWORDS: Final = frozenset({"type", "required", "enum"})

#: The path of a field: names of members, `*` for any member of a map, `[]` for items of a list.
Path = tuple[str, ...]


def bundle(openapi: Mapping[str, Any]) -> dict[str, Any]:
    """Extract the schema of a Job from an API server's `/openapi/v3/apis/batch/v1`.

    Raises:
        ValueError: the document has none.
    """
    schemas = openapi.get("components", {}).get("schemas", {})
    if _JOB not in schemas:
        raise ValueError(f"the document has no {_JOB}: is it /openapi/v3/apis/batch/v1?")
    definitions: dict[str, Any] = {}
    pending = [_JOB]
    while pending:
        name = pending.pop()
        short = _short(name)
        if short in definitions:
            continue
        definitions[short] = {} if short in _OPAQUE else _simplify(schemas[name], pending)
    # The server requires it, because the spec has a required template.
    definitions[_short(_JOB)]["required"] = ["spec"]
    return _document(dict(sorted(definitions.items())))


def _document(definitions: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/$defs/{_short(_JOB)}",
        "$defs": definitions,
    }


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _simplify(schema: Mapping[str, Any], pending: list[str]) -> dict[str, Any]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        pending.append(name)
        return {"$ref": f"#/$defs/{_short(name)}"}
    if len(schema.get("allOf", ())) == 1:  # OpenAPI wraps a reference to add a description
        return _simplify(schema["allOf"][0], pending)
    result = {key: value for key, value in schema.items() if key in _KEPT_KEYWORDS}
    result |= _RANGES.get(schema.get("format", ""), {})
    if "oneOf" in schema:
        # A quantity is a string or a number, which exclude each other.
        result["type"] = [choice["type"] for choice in schema["oneOf"]]
    if "items" in schema:
        result["items"] = _simplify(schema["items"], pending)
    if "properties" in schema:
        result["properties"] = {
            name: _simplify(member, pending)
            for name, member in sorted(schema["properties"].items())
        }
        result["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _simplify(schema["additionalProperties"], pending)
    return result


class Schema:
    """The compiled schema of one kind of object."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Compile a document made by `bundle`."""
        self.document = dict(document)
        self._definitions = document["$defs"]
        self._validator = jsonschema_rs.validator_for(self.document)
        self._names: dict[int, str] = {
            id(schema): name for name, schema in self._definitions.items()
        }

    def is_valid(self, job: Mapping[str, Any]) -> bool:
        """Whether every field is known and has a valid type; takes microseconds."""
        return self._validator.is_valid(job)

    def is_valid_metadata(self, metadata: Any) -> bool:
        """Whether the metadata alone have only known fields of a valid type."""
        document = {"$ref": "#/$defs/ObjectMeta", "$defs": self._definitions}
        return bool(jsonschema_rs.is_valid(document, metadata))

    def at(self, path: Sequence[str | int]) -> dict[str, Any]:
        """The schema of a field with references resolved; empty if any value is valid."""
        schema = self._resolve(self.document)
        for part in path:
            schema = self.member(schema, part)
        return schema

    def member(self, schema: Mapping[str, Any], part: str | int) -> dict[str, Any]:
        """The schema of a member or item with references resolved; empty if there is none."""
        if isinstance(part, int) or part == "[]":
            return self._resolve(schema.get("items", {}))
        member = schema.get("properties", {}).get(part)
        if member is None:
            extra = schema.get("additionalProperties", {})
            member = extra if isinstance(extra, dict) else {}
        return self._resolve(member)

    def name_of(self, schema: Mapping[str, Any]) -> str:
        """The name of a definition, for example `PodSpec`; empty if the schema is not one."""
        return self._names.get(id(schema), "")

    def _resolve(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return dict(schema) if not isinstance(schema, dict) else schema

    @functools.cached_property
    def fields(self) -> Mapping[str, tuple[Path, ...]]:
        """The paths at which each field name occurs in a Job, shortest first."""
        fields: dict[str, list[Path]] = {}
        for path in self._paths():
            fields.setdefault(path[-1], []).append(path)
        return {name: tuple(sorted(paths, key=len)) for name, paths in fields.items()}

    def _paths(self) -> Iterator[Path]:
        # Definitions can be recursive, so the depth is limited.
        pending: list[tuple[Path, dict[str, Any]]] = [((), self.at(()))]
        while pending:
            path, schema = pending.pop()
            for name, raw in schema.get("properties", {}).items():
                inner = self._resolve(raw)
                yield (*path, name)
                below = (*path, name)
                if "items" in inner:
                    below, inner = (*below, "[]"), self._resolve(inner["items"])
                if len(below) <= _MAX_PATH_PARTS:
                    pending.append((below, inner))


@dataclass(frozen=True)
class Schemas:
    """The schemas of the kinds of object that can define an operario, and of which version."""

    release: Release
    job: Schema
    config_map: Schema
    operarius: Schema


def schemas(bundled: Mapping[str, Any], version: str) -> Schemas:
    """Compile a document made by `bundle`, and the other two kinds that contain a Job.

    A version that cannot be parsed counts as the default.
    """
    definitions = bundled["$defs"]
    envelope = {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"$ref": "#/$defs/ObjectMeta"},
    }
    texts = {"type": "object", "additionalProperties": _TEXT}
    config_map = _object(
        {**envelope, "data": texts, "binaryData": texts, "immutable": {"type": "boolean"}}
    )
    selector = _object(
        {"alertname": _TEXT, "status": _TEXT, "labels": texts}, "alertname", "status"
    )
    template = _object(
        {"metadata": {"$ref": "#/$defs/ObjectMeta"}, "spec": {"$ref": "#/$defs/JobSpec"}}, "spec"
    )
    int32 = {"type": "integer", **_RANGES["int32"]}
    boolean = {"type": "boolean"}
    operarius = _object(
        {
            "alertSelector": selector,
            "jobTemplate": template,
            "priority": int32,
            "enabled": boolean,
            "deduplication": _object({"enabled": boolean, "ttl": int32}),
        },
        "alertSelector",
        "jobTemplate",
    )
    return Schemas(
        release=release_of(version) or release_of(DEFAULT) or (0, 0),
        job=Schema(bundled),
        config_map=Schema({**config_map, "$defs": definitions}),
        operarius=Schema(
            {**_object({**envelope, "spec": operarius, "status": {}}, "spec"), "$defs": definitions}
        ),
    )


_TEXT: Final = {"type": "string"}


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


# The versions that come with this package.

#: The version used by default; the tests run against it.
DEFAULT: Final = "1.36"
_FILE: Final = "jobs.json"
_VERSION: Final = re.compile(r"v?(?P<minor>1\.[0-9]+)(?:[.+-].*)?")


def changes(versions: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Reduce definitions by version, oldest first, to what each version changed; None: removed."""
    before: Mapping[str, Any] = {}
    changed = {}
    for version, definitions in versions.items():
        changed[version] = {
            name: definitions.get(name)
            for name in (*before, *definitions)
            if definitions.get(name) != before.get(name)
        }
        before = definitions
    return changed


def bundled(version: str) -> dict[str, Any]:
    """Load the schema of a Kubernetes version.

    Args:
        version: `1.33`, or as clusters report it: `v1.33.4-eks-1`.

    Raises:
        UsageError: the version does not come with this package; the message lists those that do.
    """
    changes_by_version = _changes()
    match = _VERSION.fullmatch(version.strip())
    if match is None or match["minor"] not in changes_by_version:
        raise UsageError(
            f"no Job schema for Kubernetes {quoted(version)}: use one of"
            f" {', '.join(changes_by_version)}"
        )
    definitions: dict[str, Any] = {}
    for minor, changed in changes_by_version.items():
        definitions |= changed
        if minor == match["minor"]:
            break
    return _document(
        {name: schema for name, schema in sorted(definitions.items()) if schema is not None}
    )


def versions() -> tuple[str, ...]:
    """The versions that come with this package, oldest first."""
    return tuple(_changes())


def versions_with(definition: str, field: str) -> tuple[str, ...]:
    """The versions in which a definition, such as `PodSpec`, has a field; oldest first."""
    matching = []
    schema: Mapping[str, Any] = {}
    for version, changed in _changes().items():
        schema = changed.get(definition, schema) or {}
        if field in schema.get("properties", {}):
            matching.append(version)
    return tuple(matching)


@functools.cache
def _changes() -> dict[str, dict[str, Any]]:
    text = resources.files(__name__).joinpath(_FILE).read_text("utf-8")
    return dict(json.loads(text))


@functools.cache
def schemas_of(version: str) -> Schemas:
    """Compile the schemas of a Kubernetes version.

    Raises:
        UsageError: the version does not come with this package.
    """
    return schemas(bundled(version), version)

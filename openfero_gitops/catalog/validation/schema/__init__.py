"""The shape of a Job, as one Kubernetes version publishes it.

An API server's own OpenAPI document is boiled down to one JSON Schema (draft 2020-12) that holds
what a Job needs and nothing to read. Objects whose members are known allow no others, so that one
pass says whether there is anything to look at; integers are bounded as Go's are.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_JOB: Final = "io.k8s.api.batch.v1.Job"
_REFERENCE: Final = "#/components/schemas/"
# What the server writes and nobody reads here.
_OPAQUE: Final = frozenset({"JobStatus", "ManagedFieldsEntry", "FieldsV1"})
_RANGES: Final = {
    "int32": {"minimum": -(2**31), "maximum": 2**31 - 1},
    "int64": {"minimum": -(2**63), "maximum": 2**63 - 1},
}
_KEPT: Final = frozenset({"type", "required", "enum"})

#: How a field is reached: a member's name, `*` for any member of a map, `[]` for a list's items.
Path = tuple[str, ...]


def bundle(openapi: Mapping[str, Any]) -> dict[str, Any]:
    """The Job schema in an API server's `/openapi/v3/apis/batch/v1`.

    Raises:
        ValueError: the document holds none.
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
    # (Without it the server misses the template in it.)
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
    if len(schema.get("allOf", ())) == 1:  # how OpenAPI puts a description beside a reference
        return _simplify(schema["allOf"][0], pending)
    result = {key: value for key, value in schema.items() if key in _KEPT}
    result |= _RANGES.get(schema.get("format", ""), {})
    if "oneOf" in schema:
        # (A quantity is a text or a number; both fit no value at once.)
        result["type"] = [one["type"] for one in schema["oneOf"]]
    if "items" in schema:
        result["items"] = _simplify(schema["items"], pending)
    if "properties" in schema:
        result["properties"] = {
            name: _simplify(one, pending) for name, one in sorted(schema["properties"].items())
        }
        result["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _simplify(schema["additionalProperties"], pending)
    return result


class Schema:
    """One kind of object, compiled."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Take what `bundle` made."""
        self.document = dict(document)
        self._definitions = document["$defs"]
        self._validator = jsonschema_rs.validator_for(self.document)

    def is_valid(self, job: Mapping[str, Any]) -> bool:
        """Whether every field is known and of its type; decided in microseconds."""
        return self._validator.is_valid(job)

    def at(self, path: Sequence[str | int]) -> dict[str, Any]:
        """The schema of a field, references followed; empty where anything goes."""
        schema = self._resolve(self.document)
        for part in path:
            schema = self.member(schema, part)
        return schema

    def member(self, schema: Mapping[str, Any], part: str | int) -> dict[str, Any]:
        """The schema of a member or an item, references followed; empty where none is known."""
        if isinstance(part, int) or part == "[]":
            return self._resolve(schema.get("items", {}))
        found = schema.get("properties", {}).get(part)
        if found is None:
            extra = schema.get("additionalProperties", {})
            found = extra if isinstance(extra, dict) else {}
        return self._resolve(found)

    def name_of(self, schema: Mapping[str, Any]) -> str:
        """What Kubernetes calls the kind of object that a schema is of; empty where it has none."""
        return next((name for name, one in self._definitions.items() if one is schema), "")

    def _resolve(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return dict(schema) if not isinstance(schema, dict) else schema

    @functools.cached_property
    def fields(self) -> Mapping[str, tuple[Path, ...]]:
        """Where in a Job each field's name occurs, outermost first."""
        found: dict[str, list[Path]] = {}
        for path in self._paths():
            found.setdefault(path[-1], []).append(path)
        return {name: tuple(sorted(paths, key=len)) for name, paths in found.items()}

    def _paths(self) -> Iterator[Path]:
        # A volume may hold a claim template, which holds metadata, and so on: deep enough is deep
        # enough, and no definition is entered inside of itself.
        pending: list[tuple[Path, dict[str, Any]]] = [((), self.at(()))]
        while pending:
            path, schema = pending.pop()
            for name, raw in schema.get("properties", {}).items():
                inner = self._resolve(raw)
                yield (*path, name)
                below = (*path, name)
                if "items" in inner:
                    below, inner = (*below, "[]"), self._resolve(inner["items"])
                if len(below) <= 10:  # noqa: PLR2004
                    pending.append((below, inner))


@dataclass(frozen=True)
class Schemas:
    """The kinds of object that an operario is written as."""

    job: Schema
    config_map: Schema
    operarius: Schema


def schemas(bundled: Mapping[str, Any]) -> Schemas:
    """Compile what `bundle` made, and put the two other forms around it."""
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

#: The one that the tests run against, and that is meant where nobody names another.
DEFAULT: Final = "1.36"
_FILE: Final = "jobs.json"
_VERSION: Final = re.compile(r"v?(?P<minor>1\.[0-9]+)(?:[.+-].*)?")


def changes(versions: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Definitions by version, oldest first, to what each changed; null is what it dropped."""
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
    """What `bundle` made of a Kubernetes version that comes with this package.

    Args:
        version: `1.33`, or as a cluster calls itself: `v1.33.4-eks-1`.

    Raises:
        UsageError: it does not; the text names those that do.
    """
    known = _changes()
    found = _VERSION.fullmatch(version.strip())
    if found is None or found["minor"] not in known:
        raise UsageError(
            f"there is no Job schema of Kubernetes {version!r} here: name one of {', '.join(known)}"
        )
    definitions: dict[str, Any] = {}
    for each, changed in known.items():
        definitions |= changed
        if each == found["minor"]:
            break
    kept = {name: one for name, one in sorted(definitions.items()) if one is not None}
    return _document(kept)


def versions() -> tuple[str, ...]:
    """Every version that comes with this package, oldest first."""
    return tuple(_changes())


def versions_with(definition: str, field: str) -> tuple[str, ...]:
    """Those of these versions in which a kind of object, `PodSpec`, has a field; oldest first."""
    found = []
    schema: Mapping[str, Any] = {}
    for version, changed in _changes().items():
        schema = changed.get(definition, schema) or {}
        if field in schema.get("properties", {}):
            found.append(version)
    return tuple(found)


@functools.cache
def _changes() -> dict[str, dict[str, Any]]:
    text = resources.files(__name__).joinpath(_FILE).read_text("utf-8")
    return dict(json.loads(text))


@functools.cache
def schemas_of(version: str) -> Schemas:
    """The schemas of a Kubernetes version that comes with this package.

    Raises:
        UsageError: it does not; see `bundled`.
    """
    return schemas(bundled(version))

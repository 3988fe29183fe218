"""Invalid Jobs, generated from a seed, and the errors that the controller finds in them.

A sound Job (tests/fixtures/sound_jobs.yaml) is changed in one place or two: a member dropped,
emptied, doubled or replaced, or a field added that the schema allows there. So most of what is
made is nearly right, which is where a check and the API server could differ.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.domain.catalog import Revision, Snapshot, SourceFile
from openfero_gitops.domain.errors import CatalogRefusal
from openfero_gitops.jobs.render import render
from tests.support.build import alert, delivery
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.catalog.validation.schema import Schema

VERSION: Final = "1.36"
SOUND: Final = FIXTURES / "sound_jobs.yaml"

_TEXTS: Final = [
    *("", "a", "A", "a.b", "a_b", "a b", "a/b", "/a", "../a", "a/..", "-a", "a" * 64, "a" * 254),
    *("example.com/a", "example.com/", "EXAMPLE.com/a", "a.example", "1", "0", "-1", "80", "1.5"),
    *("500m", "1Gi", "1e3", "x", "10.0.0.1", "999.0.0.1", "2001:db8::1", "::1", "01.2.3.4"),
    *("Never", "Always", "OnFailure", "True", "None", "Default", "Localhost", "TCP", "tcp"),
    *("cpu", "memory", "limits.cpu", "metadata.name", "metadata.labels", "metadata.labels['a']"),
    *("http", "File", "*.example.com", "a=b", "é", "$(NODE)", "0-3", "3-1", "0,1", "a\nb", "a:b"),
    *("linux", "windows", "clean", "settings", "scratch", "kubernetes.io/a", "s0", "iqn.2001-04.x"),
]
_NUMBERS: Final = [-1, 0, 1, 2, 5, 10, 100, 255, 511, 512, 600, 1000, 65_535, 65_536]
_HUGE: Final = [100_000, 100_001, 2**31 - 1, 2**31, 2**32, 2**63 - 1]
#: Where an author's file has no say, or the API server's answer says nothing about it.
_NOT_TOUCHED: Final = frozenset({"status", "managedFields", "ownerReferences", "finalizers"})


@functools.cache
def sound_jobs() -> Mapping[str, Mapping[str, Any]]:
    """Return the valid Jobs by name."""
    specs: dict[str, Any] = yaml.safe_load(SOUND.read_text())
    return {
        name: {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": "openfero-diskfull-firing",
                "labels": {"app": "healing"},
                "annotations": {"example.com/note": "n", "openfero.io/cooldown": "1h"},
            },
            "spec": spec,
        }
        for name, spec in specs.items()
    }


@dataclass(frozen=True)
class Mutant:
    """A changed Job; `changes` describe the changes and the original Job."""

    job: dict[str, Any]
    changes: str


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """Yield changed Jobs; the same seed yields the same Jobs."""
    schema = schemas_of(VERSION).job
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")  # noqa: S311 (the same cases in every run)
        name = draw.choice(sorted(sound_jobs()))
        job = copy.deepcopy(dict(sound_jobs()[name]))
        changes = [_change(job, schema, draw) for _ in range(draw.choice([1, 1, 1, 2]))]
        yield Mutant(job, f"{seed}/{number}: {name}, {'; '.join(changes)}")


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every member of a value."""
    if isinstance(value, dict):
        inner: list[tuple[str | int, Any]] = list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, list) else []
    for key, member in inner:
        if key not in _NOT_TOUCHED:
            yield (*path, key)
            yield from _places(member, (*path, key))


def _change(job: dict[str, Any], schema: Schema, draw: random.Random) -> str:
    """Change a member of a Job other than apiVersion and kind; return a description."""
    places = [path for path in _places(job) if path[0] in ("metadata", "spec")]
    if not places:
        return "nothing left to change"
    path = draw.choice(places)
    *way, last = path
    parent: Any = functools.reduce(lambda value, part: value[part], way, job)
    value = parent[last]
    field_schema = schema.at(tuple("[]" if isinstance(part, int) else part for part in path))
    shown = "/".join(map(str, path))
    kind = draw.choice(["replace", "replace", "drop", "empty", "double", "add", "add", "odd"])
    if kind == "add" and isinstance(value, dict) and field_schema.get("properties"):
        names = sorted(field_schema["properties"].keys() - value.keys() - _NOT_TOUCHED)
        if names:
            name = draw.choice(names)
            value[name] = _made(schema, schema.member(field_schema, name), name, draw)
            return f"added {shown}/{name} = {json.dumps(value[name])}"
    if kind == "double" and isinstance(value, list) and value:
        value.append(copy.deepcopy(draw.choice(value)))
        return f"doubled an item of {shown}"
    if kind == "drop":
        del parent[last]
        return f"dropped {shown}"
    if kind == "empty":
        parent[last] = type(value)()
    elif kind == "odd":
        parent[last] = draw.choice([None, 5, "text", True, [], {}, ["a"], {"a": "b"}, 1.5])
    elif isinstance(value, dict | list) and draw.random() < 0.5:
        parent[last] = _made(schema, field_schema, str(last), draw)
    else:
        parent[last] = _scalar(field_schema, value, draw)
    return f"{shown} = {json.dumps(parent[last])}"


def _scalar(field_schema: Mapping[str, Any], value: Any, draw: random.Random) -> Any:
    kinds = field_schema.get("type", "string" if isinstance(value, str) else "")
    if isinstance(value, bool) or kinds == "boolean":
        return not value
    if kinds == "integer":
        return draw.choice(_NUMBERS + _HUGE)
    if kinds == "string" and "enum" in field_schema and draw.random() < 0.7:
        return draw.choice(field_schema["enum"])
    if isinstance(kinds, list) and draw.random() < 0.3:
        return draw.choice(_NUMBERS)
    return draw.choice(_TEXTS)


def _made(
    schema: Schema, field_schema: Mapping[str, Any], name: str, draw: random.Random, depth: int = 0
) -> Any:
    """Return a value of a field's type; objects have the required fields and a few others."""
    kind = field_schema.get("type")
    if "properties" in field_schema:
        properties = field_schema["properties"]
        names = [field for field in properties if field not in _NOT_TOUCHED]
        chosen = set(field_schema.get("required", ()))
        if names and depth < 4:
            chosen |= set(draw.sample(names, min(len(names), draw.choice([1, 1, 2]))))
        return {
            field: _made(schema, schema.member(field_schema, field), field, draw, depth + 1)
            for field in sorted(chosen)
        }
    if kind == "array":
        item = schema.member(field_schema, "[]")
        return [
            _made(schema, item, name, draw, depth + 1) for _ in range(draw.choice([0, 1, 1, 2]))
        ]
    if kind == "object":
        inner = schema.member(field_schema, "*")
        return {
            draw.choice(_TEXTS): _made(schema, inner, name, draw, depth + 1)
            for _ in range(draw.choice([0, 1, 2]))
        }
    return _scalar(field_schema, draw.random() < 0.5 if kind == "boolean" else "", draw)


# Our verdict.


@dataclass(frozen=True)
class Verdict:
    """The controller's errors in a Job, as `rule pointer: message`, with `*` for every index.

    `manifest` is the Job that would be created, None where there are errors. `ignored` are the
    pointers of the fields of which a warning says that the API server drops them.
    """

    errors: tuple[str, ...]
    manifest: dict[str, Any] | None
    ignored: tuple[str, ...] = ()


def judge(job: Mapping[str, Any], namespace: str, version: str = VERSION) -> Verdict:
    """Return the controller's verdict on a Job in a repository, for Jobs of this namespace."""
    text = json.dumps(job).encode()
    files = (SourceFile("disks/full.json", "", text, "commit"),)
    revision = Revision("repository", "main", "commit")
    scope = Scope(namespace, (namespace,), version)
    try:
        catalog = build_catalog(Snapshot(revision, "", files), scope)
    except CatalogRefusal as refusal:  # there is no openfero.yaml
        raise AssertionError("a revision without an envelope was refused") from refusal
    errors = tuple(
        f"{problem.rule} {re.sub(r'/[0-9]+(?=/|$)', '/*', problem.pointer)}: {problem.message}"
        for problem in catalog.problems
        if problem.is_error
    )
    ignored = tuple(
        problem.pointer
        for problem in catalog.problems
        if problem.rule in ("unknown-field", "feature-gate")
    )
    if not catalog.operarios:
        return Verdict(errors, None, ignored)
    operario = catalog.operarios[0]
    made = render(
        alert(labels={"alertname": "DiskFull", "pod": "web-1"}),
        operario,
        catalog.envelope,
        revision,
        delivery(),
        jobs_namespace=namespace,
    )
    return Verdict(errors, made.manifest, ignored)

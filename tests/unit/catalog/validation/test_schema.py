from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.catalog.forms import read_document
from openfero_gitops.catalog.validation.schema import (
    DEFAULT,
    bundle,
    bundled,
    changes,
    schemas_of,
    versions,
    versions_with,
)
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.sources.folder import FolderSource
from tests.cluster.make_schema import RELEASES, add_words
from tests.support.paths import ROOT
from tests.support.rules import BAD, GOOD, SCOPE, path_of, problems_of

VERSIONS = versions()
EXAMPLE = ROOT / "operarios-example"
GO_MOD = (ROOT / "tests" / "cluster" / "go.mod").read_text()
FieldPath = tuple[str | int, ...]
POD: FieldPath = ("spec", "template", "spec")
CONTAINER: FieldPath = (*POD, "containers", 0)
MEMORY = {"limits": {"memory": "64Mi"}}
#: A field, the versions that have it (`1.30-`: and all later ones), and a valid value.
CORPUS: list[tuple[FieldPath, str, Any]] = [
    (("spec", "successPolicy"), "1.30-", {"rules": [{"succeededCount": 1}]}),
    ((*POD, "volumes", 0, "image"), "1.31-", {"reference": "registry.example/data:1"}),
    ((*POD, "securityContext", "supplementalGroupsPolicy"), "1.31-", "Strict"),
    ((*POD, "securityContext", "seLinuxChangePolicy"), "1.32-", "Recursive"),
    ((*POD, "resources"), "1.32-", MEMORY),
    ((*CONTAINER, "lifecycle", "stopSignal"), "1.33-", "SIGTERM"),
    ((*POD, "hostnameOverride"), "1.34-", "healer"),
    (
        (*CONTAINER, "env", 0, "valueFrom", "fileKeyRef"),
        "1.34-",
        {"volumeName": "data", "path": "env", "key": "A"},
    ),
    ((*POD, "workloadRef"), "1.35", {"name": "heal", "podGroup": "heal"}),
    ((*POD, "schedulingGroup"), "1.36-", {"podGroupName": "heal"}),
    ((*POD, "volumes", 0, "emptyDir", "mode"), "1.37-", 0o700),
]


def job(path: FieldPath, value: object) -> dict[str, Any]:
    """Make a Job with one more field."""
    made: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "openfero-diskfull-firing"},
        "spec": {
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "clean",
                            "image": "registry.example/tools:1.4.2",
                            "resources": MEMORY,
                        }
                    ],
                }
            }
        },
    }
    target: Any = made
    if "volumes" in path:
        made["spec"]["template"]["spec"]["volumes"] = [{"name": "data"}]
    if "env" in path:
        made["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A"}]
    if "successPolicy" in path:
        made["spec"] |= {"completionMode": "Indexed", "completions": 1}
    for part in path[:-1]:
        target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
    target[path[-1]] = copy.deepcopy(value)
    return made


def has(version: str, range_: str) -> bool:
    """Whether a version is in the range of a field."""
    first = range_.removesuffix("-")
    at = VERSIONS.index(version) - VERSIONS.index(first)
    return at >= 0 if range_.endswith("-") else at == 0


def test_the_versions_are_complete() -> None:
    """Every version since 1.30 is included, and the default is the version of the tests."""
    assert VERSIONS[0] == "1.30"
    numbers = [int(version.removeprefix("1.")) for version in VERSIONS]
    assert numbers == list(range(30, 30 + len(numbers)))
    assert [release.rpartition(".")[0] for release in RELEASES] == list(VERSIONS)
    required = re.search(r"k8s\.io/kubernetes v([0-9.]+)", GO_MOD)
    assert required is not None
    assert required[1] in RELEASES
    assert required[1].startswith(f"{DEFAULT}.")


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_self_contained(version: str) -> None:
    """The schema of a version contains every definition that it refers to."""
    document = bundled(version)
    referred = set(re.findall(r"#/\$defs/(\w+)", str(document)))
    assert referred <= document["$defs"].keys()
    assert "PodSpec" in referred


def test_a_schema_is_valid() -> None:
    """The schemas of all versions are written alike; checking one takes a second."""
    Draft202012Validator.check_schema(bundled(VERSIONS[-1]))


#: Rules whose fixtures are for the default version.
OF_ONE_VERSION = {"feature-gate", "never-ends", "version-value"}


@pytest.mark.parametrize("version", VERSIONS)
def test_fixtures_have_the_same_problems_in_every_version(version: str) -> None:
    """In every version the good fixtures have no problem, and the bad ones have theirs.

    Fields that a version ignores by default have one more.
    """
    for fixture in sorted([*BAD.iterdir(), *GOOD.iterdir()]):
        rule = fixture.stem
        if rule in OF_ONE_VERSION:
            continue
        path = path_of(rule, fixed=fixture.parent == GOOD)
        problems = problems_of(
            fixture.read_bytes(), path, replace(SCOPE, kubernetes_version=version)
        )
        expected = [rule] if fixture.parent == BAD else []
        rules = [problem.rule for problem in problems if problem.rule != "feature-gate"]
        assert rules == expected, fixture


async def test_the_starter_repository_runs_on_every_version() -> None:
    """The example uses only fields of the oldest version."""
    snapshot = await FolderSource(EXAMPLE).fetch()
    for version in VERSIONS:
        catalog = build_catalog(snapshot, Scope(kubernetes_version=version))
        assert catalog.problems == ()
        assert catalog.operarios


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("path", "range_", "value"), CORPUS, ids=lambda value: str(value)[-40:])
def test_a_field_is_known_in_its_versions(
    version: str, path: FieldPath, range_: str, value: object
) -> None:
    """In a version without the field there is a warning that names the versions with it."""
    reading = read_document(job(path, value), schemas_of(version))
    unknown = [finding for finding in reading.findings if finding.rule.id == "unknown-field"]
    if has(version, range_):
        assert {finding.rule.id for finding in reading.findings} <= {"feature-gate"}
        assert reading.draft is not None
        return
    (finding,) = unknown
    assert finding.pointer == path
    assert not finding.is_error
    assert range_.removesuffix("-") in finding.suggestion


def test_a_removed_field_has_its_last_version() -> None:
    """For a field of older versions only, the suggestion names the last one."""
    claims: FieldPath = (*POD, "resourceClaims")
    claim = [{"name": "gpu", "source": {"resourceClaimName": "gpu"}}]
    (ignored,) = read_document(job(claims, claim), schemas_of("1.30")).findings
    assert ignored.rule.id == "feature-gate"
    finding, left, ignored = read_document(job(claims, claim), schemas_of("1.31")).findings
    assert finding.suggestion == "Kubernetes removed it after 1.30"
    assert left.rule.id == "claim"  # because the claim has no source any more
    assert ignored.rule.id == "feature-gate"
    assert versions_with("PodResourceClaim", "source") == ("1.30",)


def test_what_is_required_differs() -> None:
    """A field is required only in the versions that require it."""
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    made = job(("spec", "podFailurePolicy"), {"rules": [rule]})
    older = read_document(made, schemas_of("1.34")).findings
    assert [finding.rule.id for finding in older] == ["required-field"]
    assert read_document(made, schemas_of("1.35")).findings == ()


@pytest.mark.parametrize("name", ["1.33", "v1.33", "1.33.4", "v1.33.4-eks-1", " 1.33+ "])
def test_a_version_can_be_copied_from_a_cluster(name: str) -> None:
    """The version can be written as `kubectl version` prints it."""
    assert bundled(name) == bundled("1.33")


@pytest.mark.parametrize("name", ["", "1", "33", "1.29", "1.3", "1.333", "2.33", "latest", "1.33x"])
def test_an_unknown_version_is_an_error(name: str) -> None:
    """The error for an unknown version lists the known ones."""
    with pytest.raises(UsageError, match=re.escape(", ".join(VERSIONS))):
        bundled(name)


def test_bundling_requires_the_document_of_an_api_server() -> None:
    """A document without a Job is an error, not an empty schema."""
    with pytest.raises(ValueError, match="/openapi/v3/apis/batch/v1"):
        bundle({"components": {"schemas": {}}})


def test_changes_are_computed_by_version() -> None:
    """Each version has only its changed definitions, None for removed ones."""
    given = {"1.0": {"A": {"x": 1}, "B": {}}, "1.1": {"A": {"x": 1}}, "1.2": {"A": {}, "B": {}}}
    changed = changes(given)
    assert changed == {
        "1.0": {"A": {"x": 1}, "B": {}},
        "1.1": {"B": None},
        "1.2": {"A": {}, "B": {}},
    }


def test_enumerations_are_read_from_the_source() -> None:
    """The allowed values of fields and list items are added to the published document."""
    text = {"type": "string"}
    properties = {"mode": dict(text), "modes": {"type": "array", "items": dict(text)}}
    schemas = {"io.k8s.api.core.v1.Thing": {"properties": properties}}
    lines = [
        "func schema_k8sio_api_core_v1_Thing(ref common.ReferenceCallback) {",
        '\t\t\t\t\t"mode": {',
        '\t\t\t\t\t\t\tEnum:   []interface{}{"A", "B"},',
        '\t\t\t\t\t"modes": {',
        '\t\t\t\t\t\t\t\t\t\tEnum: []interface{}{"C"},',
        "func schema_k8sio_api_core_v1_Other(ref common.ReferenceCallback) {",
        '\t\t\t\t\t"mode": {',
        '\t\t\t\t\t\t\tEnum:   []interface{}{"D"},',
    ]
    add_words(schemas, "\n".join(lines))
    assert properties["mode"]["enum"] == ["A", "B"]
    assert properties["modes"]["items"]["enum"] == ["C"]


def test_a_document_is_reduced() -> None:
    """Only the type, range and allowed values of each field are kept of an OpenAPI document."""
    job = "io.k8s.api.batch.v1.Job"
    spec = "io.k8s.api.batch.v1.JobSpec"
    quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    status = "io.k8s.api.batch.v1.JobStatus"

    def reference(name: str) -> dict[str, str]:
        return {"$ref": f"#/components/schemas/{name}"}

    schemas = {
        job: {
            "description": "A Job.",
            "type": "object",
            "properties": {
                "spec": {"allOf": [reference(spec)], "description": "What it does.", "default": {}},
                "status": reference(status),
            },
            "x-kubernetes-group-version-kind": [{"kind": "Job"}],
        },
        spec: {
            "type": "object",
            "required": ["parallelism"],
            "properties": {
                "parallelism": {"type": "integer", "format": "int32"},
                "deadline": {"type": "integer", "format": "int64"},
                "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
                "limits": {"type": "object", "additionalProperties": reference(quantity)},
                "words": {"type": "array", "items": {"type": "string", "default": ""}},
            },
        },
        quantity: {"oneOf": [{"type": "string"}, {"type": "number"}]},
        status: {"type": "object", "properties": {"active": reference("nobody.reads.This")}},
        "io.k8s.api.batch.v1.CronJob": {"type": "object"},
    }

    document = bundle({"components": {"schemas": schemas}})

    assert document == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/Job",
        "$defs": {
            "Job": {
                "type": "object",
                "required": ["spec"],
                "additionalProperties": False,
                "properties": {
                    "spec": {"$ref": "#/$defs/JobSpec"},
                    "status": {"$ref": "#/$defs/JobStatus"},
                },
            },
            "JobSpec": {
                "type": "object",
                "required": ["parallelism"],
                "additionalProperties": False,
                "properties": {
                    "parallelism": {
                        "type": "integer",
                        "minimum": -2147483648,
                        "maximum": 2147483647,
                    },
                    "deadline": {
                        "type": "integer",
                        "minimum": -9223372036854775808,
                        "maximum": 9223372036854775807,
                    },
                    "mode": {"type": "string", "enum": ["A", "B"]},
                    "limits": {
                        "type": "object",
                        "additionalProperties": {"$ref": "#/$defs/Quantity"},
                    },
                    "words": {"type": "array", "items": {"type": "string"}},
                },
            },
            "JobStatus": {},
            "Quantity": {"type": ["string", "number"]},
        },
    }
    assert list(document["$defs"]) == sorted(document["$defs"])

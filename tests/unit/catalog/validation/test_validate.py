from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.forms import read_document
from openfero_gitops.catalog.validation.schema import bundle, schemas_of
from openfero_gitops.catalog.validation.validate import check_body, clean
from openfero_gitops.domain.errors import UsageError
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SCHEMAS = schemas_of("1.36")
JOB: dict[str, Any] = {
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
                        "resources": {"limits": {"memory": "64Mi"}},
                    }
                ],
            }
        }
    },
}
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)


def changed(*changes: tuple[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """Copy the Job with some of its members set."""
    job = copy.deepcopy(JOB)
    for (*way, last), value in changes:
        target: Any = job
        for part in way:
            target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
        target[last] = value
    return job


def found(*changes: tuple[tuple[str | int, ...], Any]) -> set[tuple[str, str]]:
    """The rules that a changed Job breaks, each with the last part of its pointer."""
    reading = read_document(changed(*changes), SCHEMAS)
    return {(finding.rule.id, str(finding.pointer[-1])) for finding in reading.findings}


@pytest.mark.parametrize(
    ("way", "value", "suggestion"),
    [
        (("spec", "template", "labels"), {}, "did you mean template.metadata.labels?"),
        (("spec", "template", "annotations"), {}, "did you mean template.metadata.annotations?"),
        ((*POD, "imagePullPolicy"), "Always", "did you mean spec.containers[].imagePullPolicy?"),
        ((*POD, "backoffLimit"), 1, "did you mean spec.backoffLimit?"),
        ((*CONTAINER, "serviceAccountName"), "x", "did you mean spec.serviceAccountName?"),
        ((*CONTAINER, "limits"), {}, "did you mean containers[].resources.limits?"),
        ((*CONTAINER, "Image"), "x", "did you mean image?"),
        ((*CONTAINER, "imagePullpolicy"), "Always", "did you mean imagePullPolicy?"),
        ((*CONTAINER, "comand"), ["x"], "did you mean command?"),
        (("spec", "ttlSecondsAfterFinish"), 1, "did you mean ttlSecondsAfterFinished?"),
        (("wholly-unknown",), 1, "delete it"),
    ],
)
def test_an_unknown_field_is_dropped_with_a_suggestion(
    way: tuple[str | int, ...], value: object, suggestion: str
) -> None:
    """What the API server would drop is dropped, and where it belongs is told."""
    cleaned, (finding,) = clean(changed((way, value)), SCHEMAS.job)
    assert cleaned == JOB
    assert (finding.rule.id, finding.pointer) == ("unknown-field", way)
    assert not finding.is_error
    assert finding.suggestion == suggestion


LABELS = ("metadata", "labels")
RETRIES = ("spec", "backoffLimit")
ARGS = (*CONTAINER, "args")
COMMAND = (*CONTAINER, "command")
PULL = (*CONTAINER, "imagePullPolicy")
DEADLINE = (*POD, "activeDeadlineSeconds")


@pytest.mark.parametrize(
    ("way", "value", "rule", "words", "suggestion"),
    [
        (RETRIES, "3", "wrong-type", 'an integer, not the string "3"', "write 3 without quotes"),
        (("spec", "suspend"), "true", "wrong-type", "true or false", "write true without quotes"),
        (
            LABELS,
            {"a": True},
            "wrong-type",
            "a must be a string, not true",
            "put it in quotes: without quotes y, yes",
        ),
        (COMMAND, "run", "wrong-type", 'a list, not the string "run"', '["run"]'),
        ((*POD, "containers"), {"a": 1}, "wrong-type", "a list, not a mapping", "item with -"),
        (ARGS, ["a", 1.5], "wrong-type", "args[1] must be a string", "put it in quotes"),
        (ARGS, [None], "wrong-type", "args[0] must be a string, not null", ""),
        (("spec",), [], "wrong-type", "spec must be a mapping, not a list", ""),
        (DEADLINE, 2**70, "out-of-range", "64 bits", ""),
        (RETRIES, 2**31, "out-of-range", "32 bits", ""),
        ((*POD, "dnsPolicy"), "x", "not-one-of", "must be one of ClusterFirst", "write one of"),
        (PULL, "IfNotPresnt", "not-one-of", "", "did you mean IfNotPresent?"),
        (
            (*POD, "restartPolicy"),
            "Allways",
            "not-one-of",
            "must be one of Never",
            "one of Never, OnF",
        ),
        ((*POD, "restartPolicy"), "never", "not-one-of", "", "did you mean Never?"),
        ((*CONTAINER, "env"), [{"value": "x"}], "required-field", "env[0] has no name", "add name"),
    ],
)
def test_a_wrong_type_is_told_in_words(
    way: tuple[str | int, ...], value: object, rule: str, words: str, suggestion: str
) -> None:
    """A value of the wrong type is told in terms of the file, with how to write it."""
    _, (finding,) = clean(changed((way, value)), SCHEMAS.job)
    assert finding.rule.id == rule
    assert finding.pointer[: len(way)] == way
    assert words in finding.message
    assert suggestion in finding.suggestion


@pytest.mark.parametrize(
    ("option", "value", "suggestion"),
    [
        ("cooldown", 30, 'for example openfero.io/cooldown: "30m"'),
        ("cooldown", 0, 'write openfero.io/cooldown: "0"'),
        ("approval", True, 'for example openfero.io/approval: "required"'),
        ("enabled", True, 'write openfero.io/enabled: "true"'),
        ("priority", 5, 'write openfero.io/priority: "5"'),
        ("priority", 1.5, 'for example openfero.io/priority: "10"'),
        ("target", ["pod"], 'for example openfero.io/target: "namespace,pod"'),
        ("status", True, "for example openfero.io/status: firing"),
        ("alertname", 5, "put it in quotes"),
    ],
)
def test_an_option_of_a_wrong_type_is_shown_as_one_that_is_taken(
    option: str, value: object, suggestion: str
) -> None:
    """Quotes are suggested where they make the option right, and its own example elsewhere."""
    notes = (("metadata", "annotations"), {f"openfero.io/{option}": value})
    (finding,) = read_document(changed(notes), SCHEMAS).findings
    assert finding.rule.id == "wrong-type"
    assert finding.suggestion == suggestion


@pytest.mark.parametrize("way", [("livenessProbe",), ("lifecycle", "preStop")])
def test_each_handler_that_is_suggested_is_one_that_is_taken(way: tuple[str, ...]) -> None:
    """Of what a probe or a hook may do nothing is named that the schema does not know there."""
    job = changed(((*CONTAINER, *way), {}))
    (finding,) = read_document(job, SCHEMAS).findings
    known = SCHEMAS.job.at((*POD, "containers", "[]", *way))["properties"]
    assert set(finding.suggestion.removeprefix("write one of ").split(", ")) <= known.keys()


def test_null_and_empty_words_count_as_absent() -> None:
    """null, and an empty word where one of a list is wanted, read as if they were not there."""
    job = changed(
        (("metadata", "labels"), {"a": None}),
        (("spec", "backoffLimit"), None),
        ((*CONTAINER, "env"), None),
        ((*CONTAINER, "imagePullPolicy"), ""),
    )
    cleaned, findings = clean(job, SCHEMAS.job)
    assert findings == []
    assert cleaned == changed((("metadata", "labels"), {"a": ""}))


def test_everything_is_told_at_once() -> None:
    """Findings of every kind come together, and what follows from another is not told again."""
    assert found(
        (("spec", "backoffLimit"), "x"),
        ((*POD, "restartPolicy"), "Always"),
        ((*CONTAINER, "name"), 5),
        ((*CONTAINER, "image"), ["a"]),
        ((*CONTAINER, "resources"), {"limits": {"cpu": "many", "memory": "1Mi"}}),
        ((*CONTAINER, "comand"), "x"),
    ) == {
        ("wrong-type", "backoffLimit"),
        ("wrong-type", "name"),
        ("wrong-type", "image"),
        ("restart-policy", "restartPolicy"),
        ("quantity", "cpu"),
        ("unknown-field", "comand"),
    }


OTHER = {**JOB["spec"]["template"]["spec"]["containers"][0], "image": "registry.example/other:1"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {
                "env": [
                    {"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "x"}}},
                    {"name": "B", "value": 5},
                    {"name": "B", "value": 5},
                    {"value": "x"},
                    {"value": "x"},
                ]
            },
            {
                ("required-field", "key"),
                ("env-entry", "value"),
                ("duplicate-in-pod", "name"),
                ("wrong-type", "value"),
                ("duplicate-env", "name"),
                ("required-field", "name"),
            },
        ),
        (
            {"livenessProbe": {"exec": {"command": ["check"]}, "httpGet": {"path": "/"}}},
            {("required-field", "port"), ("probe", "httpGet"), ("duplicate-in-pod", "name")},
        ),
        (
            {"livenessProbe": {"httpGet": 5}, "volumeMounts": 5},
            {
                ("wrong-type", "httpGet"),
                ("wrong-type", "volumeMounts"),
                ("duplicate-in-pod", "name"),
            },
        ),
        (
            {"command": ["sh", "-c", "echo {{ .Labels.pod }}", 5, None, True]},
            {
                ("wrong-type", "3"),
                ("wrong-type", "4"),
                ("wrong-type", "5"),
                ("label-in-shell", "2"),
                ("duplicate-in-pod", "name"),
            },
        ),
    ],
)
def test_an_error_hides_only_what_follows_from_it(
    fields: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    """A wrong or missing value inside of something leaves what else is wrong there to be told."""
    changes = [((*CONTAINER, field), value) for field, value in fields.items()]
    assert found(((*POD, "initContainers"), [OTHER]), *changes) == expected


def test_what_is_missing_is_told_once() -> None:
    """Of a required field that is missing no rule says anything but that it is."""
    specs = yaml.safe_load((FIXTURES / "sound_jobs.yaml").read_text())
    for spec in specs.values():
        job = {**JOB, "spec": spec}
        sound = told(job)
        for *way, last in required(job, SCHEMAS.job.at(())):
            lacking = copy.deepcopy(job)
            inner: Any = lacking
            for part in way:
                inner = inner[part]
            del inner[last]
            above = {
                (rule, pointer)
                for rule, pointer in told(lacking) - sound
                if (*way, last)[: len(pointer)] == pointer
            }
            assert above == {("required-field", (*way, last))}


def told(job: dict[str, Any]) -> set[tuple[str, tuple[str | int, ...]]]:
    """The rules that a Job breaks, and where."""
    findings = read_document(job, SCHEMAS).findings
    return {(finding.rule.id, finding.pointer) for finding in findings}


def required(value: Any, schema: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Where in a value the fields stand that its schema requires."""
    members: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
    for part, inner in members:
        if part in schema.get("required", ()):
            yield (part,)
        for way in required(inner, SCHEMAS.job.member(schema, part)):
            yield (part, *way)


PLACES: dict[str, tuple[str | int, ...]] = {
    "metadata": ("metadata",),
    "spec": ("spec",),
    "pod": POD,
    "container": CONTAINER,
}
CASES: list[dict[str, Any]] = yaml.safe_load((FIXTURES / "refused_jobs.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_finds_what_the_api_server_refuses(case: dict[str, Any]) -> None:
    """What a schema cannot say is found, and what the API server takes is not called wrong."""
    changes = [
        ((*way, field), value)
        for place, way in PLACES.items()
        for field, value in case.get(place, {}).items()
    ]
    expected = {(rule, str(field)) for rule, fields in case["finds"].items() for field in fields}
    assert found(*changes) == expected
    for finding in read_document(changed(*changes), SCHEMAS).findings:
        assert finding.suggestion or ": " in finding.message, finding


def test_finds_what_is_too_long_or_missing_altogether() -> None:
    """Names and annotations have a length, policies a number of rules, and a Job has a template."""
    assert found(((*CONTAINER, "name"), "a" * 64)) == {("invalid-name", "name")}
    assert found((("metadata", "labels"), {"a": "x" * 64})) == {("invalid-label", "a")}
    notes = {"a": "x" * (256 * 1024)}
    assert found((("metadata", "annotations"), notes)) == {("invalid-label", "annotations")}
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}
    policy = (("spec", "podFailurePolicy"), {"rules": [rule] * 21})
    assert found(policy) == {("pod-failure-policy", "rules")}
    searches = ["a" * 63 + ".example"] * 32
    assert found(((*POD, "dnsConfig"), {"searches": searches})) == {("dns", "searches")}
    restart = {"action": "Restart", "exitCodes": {"operator": "In", "values": [*range(256)]}}
    changes = [((*CONTAINER, "restartPolicy"), "Never")]
    rules = [*changes, ((*CONTAINER, "restartPolicyRules"), [restart])]
    assert found(*rules) == {("restart-policy", "values")}
    assert found((("spec",), {})) == {("required-field", "template")}
    assert found((("spec", "template"), {})) == {
        ("restart-policy", "restartPolicy"),
        ("no-containers", "containers"),
    }


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (["echo", "{{ .Alert.Labels.pod }}"], [], set()),
        (["echo"], ["{{.Labels.pod}}-{{ .GroupKey }}"], set()),
        (["sh", "-c", 'echo "$OPENFERO_POD"'], [], set()),
        (["sh", "-c", "echo $(OPENFERO_POD)"], [], {("label-in-shell", "2")}),
        (["sh", "-c", "echo $$(OPENFERO_POD)"], [], set()),
        (["sh", "-c", "echo $(date)"], [], set()),
        (["/bin/bash", "-euo", "pipefail", "-c"], ["x {{ .Status }}"], {("label-in-shell", "0")}),
        (["env", "sh", "-ec"], ["x {{ .Status }}"], {("label-in-shell", "0")}),
        (["run", "--rc", "{{ .Status }}"], [], set()),
        (["echo", "{{ .Alert.Labels.a-b }}"], [], {("template-syntax", "1")}),
        (["echo", "{{ if .Labels.a }}x{{ end }}"], [], {("template-syntax", "1")}),
        (["echo", "{{- .Labels.a }}"], [], {("template-syntax", "1")}),
        (["echo", "{{ .Labels.a"], [], {("template-syntax", "1")}),
        (["echo", "{{ .Labels.a }} }}"], [], set()),
    ],
)
def test_alert_data_in_commands(
    command: list[str], args: list[str], expected: set[tuple[str, str]]
) -> None:
    """Fields are read in commands, other braces are not, and shells are warned of."""
    assert found(((*CONTAINER, "command"), command), ((*CONTAINER, "args"), args)) == expected


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kubectl delete pod $OPENFERO_POD", "$OPENFERO_POD is not quoted"),
        ("kubectl delete pod ${OPENFERO_POD}", "$OPENFERO_POD is not quoted"),
        ("kubectl delete pod ${OPENFERO_POD%-*}", "$OPENFERO_POD is not quoted"),
        ("kubectl delete pod $$OPENFERO_POD", "$OPENFERO_POD is not quoted"),
        ("kubectl delete pod $POD", "$POD is not quoted"),
        ('a "x"$OPENFERO_POD"y"', "is not quoted"),
        ("a 'it'$OPENFERO_POD", "is not quoted"),
        ('x="$(kubectl get pod $OPENFERO_POD)"', "is not quoted"),
        ('x="`kubectl get pod $OPENFERO_POD`"', "is not quoted"),
        ("if true; then\n  rm $OPENFERO_POD\nfi", "is not quoted"),
        ("for pod in $OPENFERO_POD; do :; done", "is not quoted"),
        ("case x in\n  x) rm $OPENFERO_POD;;\nesac", "is not quoted"),
        ("cat <<EOF\n$OPENFERO_POD\nEOF\nrm $OPENFERO_POD", "is not quoted"),
        ("# it's a comment\nrm $OPENFERO_POD", "is not quoted"),
        ("env POD=$OPENFERO_POD run", "is not quoted"),
        ("a=($OPENFERO_POD)", "is not quoted"),
        ('eval "kubectl delete pod $OPENFERO_POD"', "eval runs its arguments as a script"),
        ('c="rm $OPENFERO_POD"; eval "$c"', "eval runs its arguments as a script"),
        ('x &&\\\n  eval "$OPENFERO_POD"', "eval runs its arguments as a script"),
        ('exec bash -ec "rm -- $OPENFERO_POD"', "inserted into the script of another shell"),
        ('kubectl delete pod -- "$OPENFERO_POD"', ""),
        ('kubectl delete pod -- "${OPENFERO_POD:-"$POD"}"', ""),
        (': "${OPENFERO_POD:?the alert\'s label is missing}"; a -- "$OPENFERO_POD"', ""),
        ("echo '$OPENFERO_POD' \\$OPENFERO_POD", ""),
        ("pod=$OPENFERO_POD; IFS=, x=$POD run", ""),
        ("case $OPENFERO_POD in a) x;; esac", ""),
        ("if [[ $OPENFERO_POD == a ]]; then x; fi", ""),
        ('x="$(case "$POD" in a) b;; esac)"; y "$OPENFERO_POD"', ""),
        ("cat <<-EOF\n$OPENFERO_POD\n\tEOF\n", ""),
        ("# not $OPENFERO_POD", ""),
        ('sh -c \'rm -- "$1"\' sh "$OPENFERO_POD"', ""),
        ('eval "$(ssh-agent)"', ""),
        ("awk '{ print ENVIRON[\"OPENFERO_POD\"] }'", ""),
        ("rm -- $pod ${#OPENFERO_POD}", ""),
    ],
)
def test_alert_data_in_scripts(script: str, words: str) -> None:
    """A script keeps alert data in quotes, away from eval and out of scripts of its own."""
    job = changed(
        ((*CONTAINER, "command"), ["sh", "-c", script]),
        ((*CONTAINER, "env"), [{"name": "POD", "value": "{{ .Labels.pod }}"}]),
    )
    findings = read_document(job, SCHEMAS).findings
    assert [finding.rule.id for finding in findings] == (["label-in-shell"] if words else [])
    assert all(words in finding.message for finding in findings)
    assert all('-- "$' in finding.suggestion for finding in findings)


@pytest.mark.parametrize(
    "part", ["\\a", '"$(', "`a ", "${a ", "<<a\n", "$OPENFERO_A'", "case a in "]
)
def test_a_long_script_is_read_in_no_time(part: str) -> None:
    """A script as long as a file may be is read in time that grows with it, however it nests."""
    job = changed(((*CONTAINER, "command"), ["sh", "-c", "OPENFERO_" + part * 20_000]))
    assert read_document(job, SCHEMAS).draft is not None


@pytest.mark.parametrize(
    "way",
    [
        ("metadata", "annotations", "note"),
        ("spec", "template", "metadata", "annotations", "note"),
        (*CONTAINER, "image"),
        (*CONTAINER, "workingDir"),
        (*POD, "nodeName"),
    ],
)
def test_alert_data_stands_nowhere_else(way: tuple[str | int, ...]) -> None:
    """A reference where none is read is an error, not a text that stays as it is."""
    assert ("template-place", str(way[-1])) in found((way, "a{{ .Labels.x }}:1"))


def test_alert_data_may_stand_in_the_value_of_a_variable() -> None:
    """A variable's value may name a field; its name may not."""
    assert found(((*CONTAINER, "env"), [{"name": "A", "value": "{{ .Labels.a }}"}])) == set()
    assert ("template-place", "name") in found(
        ((*CONTAINER, "env"), [{"name": "{{ .Labels.a }}", "value": "x"}])
    )


def test_a_version_without_a_schema_is_told() -> None:
    """Asking for a version that is not here names those that are."""
    with pytest.raises(UsageError, match=r"no Job schema of Kubernetes '1\.12'.*1\.36"):
        schemas_of("1.12")


def test_bundling_wants_an_api_servers_document() -> None:
    """A document that is not an API server's is refused, not turned into an empty schema."""
    with pytest.raises(ValueError, match="/openapi/v3/apis/batch/v1"):
        bundle({"components": {"schemas": {}}})


def test_bundling_keeps_what_a_job_needs() -> None:
    """Of an API server's document the types, the words and the bounds stay, and nothing to read."""
    job = "io.k8s.api.batch.v1.Job"
    schemas = {
        job: {
            "description": "A Job.",
            "type": "object",
            "properties": {
                "spec": {"allOf": [{"$ref": "#/components/schemas/io.k8s.Spec"}], "default": {}},
                "status": {"$ref": "#/components/schemas/io.k8s.JobStatus"},
            },
            "x-kubernetes-group-version-kind": [],
        },
        "io.k8s.Spec": {
            "type": "object",
            "required": ["mode"],
            "properties": {
                "mode": {"type": "string", "enum": ["a", "b"]},
                "count": {"type": "integer", "format": "int32"},
                "limits": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/components/schemas/io.k8s.Quantity"},
                },
                "again": {"type": "array", "items": {"$ref": "#/components/schemas/io.k8s.Spec"}},
            },
        },
        "io.k8s.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        "io.k8s.JobStatus": {"type": "object", "properties": {"active": {"type": "integer"}}},
        "io.k8s.Unrelated": {"type": "object"},
    }
    spec = {"$ref": "#/$defs/Spec"}
    assert bundle({"components": {"schemas": schemas}}) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/Job",
        "$defs": {
            "Job": {
                "type": "object",
                "required": ["spec"],
                "properties": {"spec": spec, "status": {"$ref": "#/$defs/JobStatus"}},
                "additionalProperties": False,
            },
            "JobStatus": {},
            "Quantity": {"type": ["string", "number"]},
            "Spec": {
                "type": "object",
                "required": ["mode"],
                "properties": {
                    "again": {"type": "array", "items": spec},
                    "count": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
                    "limits": {
                        "type": "object",
                        "additionalProperties": {"$ref": "#/$defs/Quantity"},
                    },
                    "mode": {"type": "string", "enum": ["a", "b"]},
                },
                "additionalProperties": False,
            },
        },
    }


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
POD_PATH = ("spec", "template", "spec")
WAYS = st.sampled_from(
    [
        ("metadata",),
        ("metadata", "labels"),
        ("metadata", "annotations"),
        ("spec",),
        ("spec", "podFailurePolicy"),
        ("spec", "template"),
        ("spec", "template", "metadata"),
        POD,
        (*POD, "containers"),
        CONTAINER,
        *(
            (*CONTAINER, field)
            for field in SCHEMAS.job.at((*POD_PATH, "containers", "[]"))["properties"]
        ),
        *((*POD, field) for field in SCHEMAS.job.at(POD_PATH)["properties"]),
    ]
)


@given(WAYS, ANYTHING)
def test_any_value_anywhere_is_judged(way: tuple[str | int, ...], value: object) -> None:
    """Whatever stands in any field, a Job is judged without an accident."""
    reading = read_document(changed((way, value)), SCHEMAS)
    assert reading.draft is None or not any(finding.is_error for finding in reading.findings)


def test_a_body_without_findings_is_its_own_canonical_json() -> None:
    """A sound Job has no findings, and its canonical JSON does not depend on the order of keys."""
    one = {"labels": {"a": "b", "c": "d"}, "annotations": {}, "spec": JOB["spec"]}
    other = {"spec": JOB["spec"], "annotations": {}, "labels": {"c": "d", "a": "b"}}
    assert check_body(one) == check_body(other)
    assert check_body(one)[1] == []

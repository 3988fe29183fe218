from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.forms import read_document
from openfero_gitops.catalog.validation.schema import schemas_of
from openfero_gitops.catalog.validation.validate import check_body, clean
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
    for (*path, last), value in changes:
        target: Any = job
        for part in path:
            target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
        target[last] = value
    return job


def violations(*changes: tuple[tuple[str | int, ...], Any]) -> set[tuple[str, str]]:
    """The rules that a changed Job violates, each with the last part of its pointer."""
    reading = read_document(changed(*changes), SCHEMAS)
    return {(finding.rule.id, str(finding.pointer[-1])) for finding in reading.findings}


@pytest.mark.parametrize(
    ("path", "value", "suggestion"),
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
    path: tuple[str | int, ...], value: object, suggestion: str
) -> None:
    """A field that the API server would drop is dropped, and its right place is suggested."""
    cleaned, (finding,) = clean(changed((path, value)), SCHEMAS.job)
    assert cleaned == JOB
    assert (finding.rule.id, finding.pointer) == ("unknown-field", path)
    assert not finding.is_error
    assert finding.suggestion == suggestion


LABELS = ("metadata", "labels")
RETRIES = ("spec", "backoffLimit")
ARGS = (*CONTAINER, "args")
COMMAND = (*CONTAINER, "command")
PULL = (*CONTAINER, "imagePullPolicy")
DEADLINE = (*POD, "activeDeadlineSeconds")


@pytest.mark.parametrize(
    ("path", "value", "rule", "words", "suggestion"),
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
def test_a_wrong_type_is_reported_with_the_expected_type(
    path: tuple[str | int, ...], value: object, rule: str, words: str, suggestion: str
) -> None:
    """The message has the expected and the actual type, the suggestion how to write the value."""
    _, (finding,) = clean(changed((path, value)), SCHEMAS.job)
    assert finding.rule.id == rule
    assert finding.pointer[: len(path)] == path
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
def test_an_option_of_a_wrong_type_has_a_valid_suggestion(
    option: str, value: object, suggestion: str
) -> None:
    """Quotes are suggested if they make the option valid, otherwise an example of the option."""
    notes = (("metadata", "annotations"), {f"openfero.io/{option}": value})
    (finding,) = read_document(changed(notes), SCHEMAS).findings
    assert finding.rule.id == "wrong-type"
    assert finding.suggestion == suggestion


@pytest.mark.parametrize("path", [("livenessProbe",), ("lifecycle", "preStop")])
def test_suggested_actions_are_valid(path: tuple[str, ...]) -> None:
    """Every action suggested for a probe or a hook is in its schema."""
    job = changed(((*CONTAINER, *path), {}))
    (finding,) = read_document(job, SCHEMAS).findings
    properties = SCHEMAS.job.at((*POD, "containers", "[]", *path))["properties"]
    assert set(finding.suggestion.removeprefix("write one of ").split(", ")) <= properties.keys()


def test_null_and_empty_enumerations_count_as_missing() -> None:
    """null, and an empty string in place of an enumeration, are read as a missing field."""
    job = changed(
        (("metadata", "labels"), {"a": None}),
        (("spec", "backoffLimit"), None),
        ((*CONTAINER, "env"), None),
        ((*CONTAINER, "imagePullPolicy"), ""),
    )
    cleaned, findings = clean(job, SCHEMAS.job)
    assert findings == []
    assert cleaned == changed((("metadata", "labels"), {"a": ""}))


def test_all_findings_are_reported_at_once() -> None:
    """Findings of all kinds are reported together, without those that follow from another."""
    assert violations(
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
            {"command": ["sh", "-c", "echo {{ .Alert.Labels.pod }}", 5, None, True]},
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
    """Other problems next to a wrong or missing value are still reported."""
    changes = [((*CONTAINER, field), value) for field, value in fields.items()]
    assert violations(((*POD, "initContainers"), [OTHER]), *changes) == expected


def test_a_missing_field_is_reported_once() -> None:
    """For a missing required field only the rule required-field reports a problem."""
    specs = yaml.safe_load((FIXTURES / "sound_jobs.yaml").read_text())
    for spec in specs.values():
        job = {**JOB, "spec": spec}
        sound = violations_at(job)
        for *path, last in required(job, SCHEMAS.job.at(())):
            incomplete = copy.deepcopy(job)
            inner: Any = incomplete
            for part in path:
                inner = inner[part]
            del inner[last]
            above = {
                (rule, pointer)
                for rule, pointer in violations_at(incomplete) - sound
                if (*path, last)[: len(pointer)] == pointer
            }
            assert above == {("required-field", (*path, last))}


def violations_at(job: dict[str, Any]) -> set[tuple[str, tuple[str | int, ...]]]:
    """The rules that a Job violates, each with its pointer."""
    findings = read_document(job, SCHEMAS).findings
    return {(finding.rule.id, finding.pointer) for finding in findings}


def required(value: Any, schema: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """The paths of the required fields in a value."""
    members: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict | list):
        members = value.items() if isinstance(value, dict) else enumerate(value)
    for part, inner in members:
        if part in schema.get("required", ()):
            yield (part,)
        for path in required(inner, SCHEMAS.job.member(schema, part)):
            yield (part, *path)


PLACES: dict[str, tuple[str | int, ...]] = {
    "metadata": ("metadata",),
    "spec": ("spec",),
    "pod": POD,
    "container": CONTAINER,
}
CASES: list[dict[str, Any]] = yaml.safe_load((FIXTURES / "refused_jobs.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case)[:100])
def test_finds_what_the_api_server_rejects(case: dict[str, Any]) -> None:
    """Exactly the problems that the API server finds beyond the schema are reported."""
    changes = [
        ((*path, field), value)
        for place, path in PLACES.items()
        for field, value in case.get(place, {}).items()
    ]
    expected = {(rule, str(field)) for rule, fields in case["finds"].items() for field in fields}
    assert violations(*changes) == expected
    for finding in read_document(changed(*changes), SCHEMAS).findings:
        assert finding.suggestion or ": " in finding.message, finding


def test_finds_what_is_too_long_or_missing() -> None:
    """Lengths and counts are limited, and a Job must have a template."""
    assert violations(((*CONTAINER, "name"), "a" * 64)) == {("invalid-name", "name")}
    assert violations((("metadata", "labels"), {"a": "x" * 64})) == {("invalid-label", "a")}
    notes = {"a": "x" * (256 * 1024)}
    assert violations((("metadata", "annotations"), notes)) == {("invalid-label", "annotations")}
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}
    policy = (("spec", "podFailurePolicy"), {"rules": [rule] * 21})
    assert violations(policy) == {("pod-failure-policy", "rules")}
    searches = ["a" * 63 + ".example"] * 32
    assert violations(((*POD, "dnsConfig"), {"searches": searches})) == {("dns", "searches")}
    restart = {"action": "Restart", "exitCodes": {"operator": "In", "values": [*range(1, 257)]}}
    changes = [((*CONTAINER, "restartPolicy"), "Never")]
    rules = [*changes, ((*CONTAINER, "restartPolicyRules"), [restart])]
    assert violations(*rules) == {("restart-policy", "values")}
    assert violations((("spec",), {})) == {("required-field", "template")}
    assert violations((("spec", "template"), {})) == {
        ("restart-policy", "restartPolicy"),
        ("no-containers", "containers"),
    }


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (["echo", "{{ .Alert.Labels.pod }}"], [], set()),
        (["echo"], ["{{.Alert.Labels.pod}}-{{ .Alert.Annotations.summary }}"], set()),
        (["sh", "-c", 'echo "$OPENFERO_POD"'], [], set()),
        (["sh", "-c", "echo $(OPENFERO_POD)"], [], {("label-in-shell", "2")}),
        (["sh", "-c", "echo $$(OPENFERO_POD)"], [], set()),
        (["sh", "-c", "echo $(date)"], [], set()),
        (
            ["/bin/bash", "-euo", "pipefail", "-c"],
            ["x {{.Alert.Labels.a}}"],
            {("label-in-shell", "0")},
        ),
        (["env", "sh", "-ec"], ["x {{.Alert.Labels.a}}"], {("label-in-shell", "0")}),
        (["run", "--rc", "{{ .Alert.Labels.a }}"], [], set()),
        (["echo", "{{ .Alert.Labels.a-b }}"], [], {("template-syntax", "1")}),
        (["echo", "{{ if .Alert.Labels.a }}x{{ end }}"], [], {("template-syntax", "1")}),
        (["echo", "{{- .Alert.Labels.a }}"], [], {("template-syntax", "1")}),
        (["echo", "{{ .Alert.Labels.a"], [], {("template-syntax", "1")}),
        (["echo", "{{ .Alert.Labels.a }} }}"], [], set()),
    ],
)
def test_alert_data_in_commands(
    command: list[str], args: list[str], expected: set[tuple[str, str]]
) -> None:
    """Fields are valid in commands, mistyped ones are not, and shells cause a warning."""
    assert violations(((*CONTAINER, "command"), command), ((*CONTAINER, "args"), args)) == expected


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
        (":\n# not $OPENFERO_POD", ""),
        ('sh -c \'rm -- "$1"\' sh "$OPENFERO_POD"', ""),
        ('eval "$(ssh-agent)"', ""),
        ("awk '{ print ENVIRON[\"OPENFERO_POD\"] }'", ""),
        ("rm -- $pod ${#OPENFERO_POD}", ""),
    ],
)
def test_alert_data_in_scripts(script: str, words: str) -> None:
    """Unquoted variables, eval and scripts of other shells cause a warning."""
    job = changed(
        ((*CONTAINER, "command"), ["sh", "-c", script]),
        ((*CONTAINER, "env"), [{"name": "POD", "value": "{{ .Alert.Labels.pod }}"}]),
    )
    findings = read_document(job, SCHEMAS).findings
    assert [finding.rule.id for finding in findings] == (["label-in-shell"] if words else [])
    assert all(words in finding.message for finding in findings)
    assert all('-- "$' in finding.suggestion for finding in findings)


@pytest.mark.parametrize(
    "part", ["\\a", '"$(', "`a ", "${a ", "<<a\n", "$OPENFERO_A'", "case a in "]
)
def test_a_long_script_is_parsed_in_linear_time(part: str) -> None:
    """A script of the maximum size is parsed in bounded time, however it is nested."""
    job = changed(((*CONTAINER, "command"), ["sh", "-c", "OPENFERO_" + part * 20_000]))
    assert read_document(job, SCHEMAS).draft is not None


@pytest.mark.parametrize(
    "path",
    [
        ("metadata", "annotations", "note"),
        ("spec", "template", "metadata", "annotations", "note"),
        (*CONTAINER, "image"),
        (*CONTAINER, "workingDir"),
        (*POD, "nodeName"),
    ],
)
def test_alert_data_is_an_error_elsewhere(path: tuple[str | int, ...]) -> None:
    """A placeholder in any other field is an error, not literal text."""
    assert ("template-place", str(path[-1])) in violations((path, "a{{ .Alert.Labels.x }}:1"))


def test_alert_data_is_allowed_in_the_value_of_a_variable() -> None:
    """The value of a variable can be a placeholder; its name cannot."""
    variable = {"name": "A", "value": "{{ .Alert.Labels.a }}"}
    assert violations(((*CONTAINER, "env"), [variable])) == set()
    assert ("template-place", "name") in violations(
        ((*CONTAINER, "env"), [{"name": "{{ .Alert.Labels.a }}", "value": "x"}])
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
POD_PATH = ("spec", "template", "spec")
PATHS = st.sampled_from(
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


@given(PATHS, ANYTHING)
def test_any_value_in_any_field_is_checked(path: tuple[str | int, ...], value: object) -> None:
    """No value in any field raises an exception."""
    reading = read_document(changed((path, value)), SCHEMAS)
    assert reading.draft is None or not any(finding.is_error for finding in reading.findings)


def test_a_body_without_findings_is_its_own_canonical_json() -> None:
    """A valid Job has no findings, and its canonical JSON does not depend on the order of keys."""
    body = {"labels": {"a": "b", "c": "d"}, "annotations": {}, "spec": JOB["spec"]}
    reordered = {"spec": JOB["spec"], "annotations": {}, "labels": {"c": "d", "a": "b"}}
    assert check_body(body, (1, 36)) == check_body(reordered, (1, 36))
    assert check_body(body, (1, 36))[1] == []

"""What a finding suggests is applied to its file, and the finding is gone."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from openfero_gitops.catalog.yaml.document import load
from tests.support.rules import BAD, IN_A_FILE, MADE, path_of, problems_of

if TYPE_CHECKING:
    from openfero_gitops.domain.problem import Problem

#: Rules whose suggestion leaves a decision to the author, or is about the text of the file.
LEFT_TO_THE_AUTHOR = {
    "affinity",
    "alert-pattern",
    "alias-bomb",
    "claim",
    "custom-tag",
    "default-account",
    "duplicate-env",
    "duplicate-in-pod",
    "duplicate-key",
    "duplicate-name",
    "encrypted",
    "env-entry",
    "envelope-documents",
    "envelope-name",
    "file-too-large",
    "host-path",
    "host-port",
    "image-tag",
    "invalid-label",
    "key-not-text",
    "label-in-shell",
    "lifecycle",
    "named-twice",
    "namespace-not-allowed",
    "namespace-not-granted",
    "nesting",
    "no-alert",
    "no-containers",
    "no-effect",
    "no-image",
    "not-a-number",
    "not-in-a-template",
    "not-one-of",
    "not-utf-8",
    "other-job",
    "port",
    "privileged",
    "probe",
    "quantity",
    "requests-over-limits",
    "required-field",
    "reserved-key",
    "script-lines",
    "security-context",
    "service-account-undefined",
    "short-remember",
    "syntax",
    "template-place",
    "template-syntax",
    "not-a-placeholder",
    "too-complex",
    "too-many-documents",
    "typographic-character",
    "volume-device",
    "volume-source",
    "wrapped-job",
    "wrong-type",
}
_KEYS_ARE_WRONG = {"envelope-key", "option-prefix", "resource-name", "unknown-option"}


def parent_of(document: Any, pointer: str) -> tuple[Any, Any]:
    """Return what holds a pointer's target, and its key or index; what is missing is made."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    value = document
    for part in parts[:-1]:
        value = value[int(part)] if isinstance(value, list) else value.setdefault(part, {})
    return value, int(parts[-1]) if isinstance(value, list) else parts[-1]


def merge(into: dict[str, Any], added: dict[str, Any]) -> None:
    """Add the members of a mapping, also inside of those that are there."""
    for key, value in added.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def apply(suggestion: str, rule: str, document: Any, pointer: str) -> None:
    """Change a document as the first part of a suggestion says."""
    first = re.split(r", or |, with nothing|: the Pod|; ", suggestion)[0].rstrip("?")
    verb, words = re.fullmatch(r"(delete|did you mean|add|for example|write) (.+)", first).groups()  # type: ignore[union-attr]
    holder, key = parent_of(document, pointer)
    if verb == "delete":
        del holder[key]
    elif verb == "did you mean" and rule == "unknown-field":
        *path, name = words.split(".")
        above, _ = parent_of(document, pointer.rpartition("/")[0])
        target = above if path and path[0] in above else holder
        for part in path:
            target = target.setdefault(part, {})
        target[name] = holder.pop(key)
    elif verb == "did you mean" and rule in _KEYS_ARE_WRONG:
        holder[words] = holder.pop(key)
    elif words.startswith("openfero.io/"):
        document["metadata"].setdefault("annotations", {}).update(yaml.safe_load(words))
    elif ": " in words:
        added = yaml.safe_load(words.replace(" and ", "\n"))
        name = next(iter(added))
        if name == "restartPolicy":
            document["spec"]["template"]["spec"].update(added)
        elif name in pointer.split("/")[:-1]:
            merge(ancestor(document, pointer, name), added)
        else:
            merge(holder, added)
    else:
        holder[key] = yaml.safe_load(re.sub(r" or .*", "", words))


def ancestor(document: Any, pointer: str, name: str) -> Any:
    """Return what holds the member of a name on the way to a pointer."""
    parts = pointer.split("/")
    holder, _ = parent_of(document, "/".join(parts[: parts.index(name) + 1]))
    return holder


def still_found(documents: list[Any], path: str, problem: Problem) -> list[str]:
    """Return the messages of the same rule, and of all errors, after a change."""
    found = problems_of(yaml.safe_dump_all(documents).encode(), path)
    # An Operarius with the right version is checked further.
    counts_errors = problem.rule != "api-version"
    return [p.message for p in found if p.rule == problem.rule or (counts_errors and p.is_error)]


@pytest.mark.parametrize("rule", sorted(set(IN_A_FILE) - LEFT_TO_THE_AUTHOR))
def test_the_advice_of_each_rule_is_right(rule: str) -> None:
    """After the change that it suggests, the finding is gone, and no error has come."""
    assert rule not in MADE
    content = (BAD / f"{rule}.yaml").read_bytes()
    (problem,) = problems_of(content, path_of(rule))
    documents = load(content)
    apply(problem.suggestion, rule, documents[0], problem.pointer)
    assert still_found(documents, path_of(rule), problem) == []


def test_no_rule_is_left_to_the_author_that_does_not_exist() -> None:
    """The list above follows the rules."""
    assert set(IN_A_FILE) >= LEFT_TO_THE_AUTHOR


JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "openfero-disk-firing"},
    "spec": {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "backoffLimitPerIndex": 1,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "fix",
                        "image": "registry.example/fix:1",
                        "resources": {"limits": {"memory": "64Mi"}},
                    }
                ],
            }
        },
    },
}


@pytest.mark.parametrize(
    ("indexes", "completions", "right"),
    [
        ("0,2-3", 3, "0,2"),
        ("0-3", 3, "0-2"),
        ("2,0", 3, "0,2"),
        ("1-1", 3, "1"),
        ("0,1,2,2", 3, "0-2"),
        ("0, 2", 3, "0,2"),
        ("5", 3, "0-2"),
        ("a", 3, "0-2"),
        ("7-9", 1, "0"),
        ("3-1", 9, "1-3"),
        ("0;4-6", 6, "0,4-5"),
    ],
)
def test_the_indexes_that_are_suggested_are_those_of_the_job(
    indexes: str, completions: int, right: str
) -> None:
    """They are what the author wrote, as far as the Job has such indexes."""
    job = copy.deepcopy(JOB)
    job["spec"]["completions"] = completions
    rule = {"succeededIndexes": indexes, "succeededCount": 1}
    job["spec"]["successPolicy"] = {"rules": [rule]}
    (problem,) = problems_of(yaml.safe_dump(job).encode(), "a.yaml")
    assert (problem.rule, problem.suggestion) == ("success-policy", f"write {right}")
    rule["succeededIndexes"] = right
    assert problems_of(yaml.safe_dump(job).encode(), "a.yaml") == ()


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"successPolicy": {"rules": [{}]}}, "/spec/successPolicy/rules/0"),
        ({"backoffLimit": -1}, "/spec/backoffLimit"),
        ({"maxFailedIndexes": 9}, "/spec/maxFailedIndexes"),
        ({"activeDeadlineSeconds": -5}, "/spec/activeDeadlineSeconds"),
        (
            {"successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 3}]}},
            "/spec/successPolicy/rules/0/succeededCount",
        ),
        (
            {
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailJob",
                            "onExitCodes": {"operator": "In", "values": [42, 1, 0, 1]},
                        }
                    ]
                }
            },
            "/spec/podFailurePolicy/rules/0/onExitCodes/values",
        ),
    ],
)
def test_advice_that_is_computed_is_right(spec: dict[str, Any], pointer: str) -> None:
    """A value that is suggested is accepted."""
    job = copy.deepcopy(JOB)
    job["spec"] |= copy.deepcopy(spec)
    (problem,) = problems_of(yaml.safe_dump(job).encode(), "a.yaml")
    assert problem.pointer == pointer
    holder, key = parent_of(job, pointer)
    value = yaml.safe_load(re.sub(r"^(?:write|add) |(?: or less| to \d+)$", "", problem.suggestion))
    if problem.suggestion.startswith("add "):
        holder[key].update(value)
    else:
        holder[key] = value
    assert problems_of(yaml.safe_dump(job).encode(), "a.yaml") == ()


@pytest.mark.parametrize(
    ("field", "variable"),
    [
        ("{{ .Alert.Labels.nolabel }}", "OPENFERO_NOLABEL"),
        ("{{ .Alert.Annotations.run_book }}", "OPENFERO_ANNOTATION_RUN_BOOK"),
        ("$(OPENFERO_POD)", "OPENFERO_POD"),
    ],
)
def test_the_variable_that_is_suggested_is_that_of_the_field(field: str, variable: str) -> None:
    """The message quotes what is in the file, and the suggestion has the same data."""
    job = copy.deepcopy(JOB)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["command"] = ["sh", "-c", f"echo {field}"]
    (problem,) = problems_of(yaml.safe_dump(job).encode(), "a.yaml")
    assert problem.message == f"{field} inserts alert data into a shell script"
    assert problem.suggestion == f'use a quoted variable after --: -- "${variable}"'
    container["command"][2] = f'echo -- "${variable}"'
    assert problems_of(yaml.safe_dump(job).encode(), "a.yaml") == ()

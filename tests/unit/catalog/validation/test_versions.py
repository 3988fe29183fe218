"""What a version of Kubernetes refuses or ignores in a field that it has."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from openfero_gitops.catalog.validation.checks.versions import _GATED
from openfero_gitops.catalog.validation.schema import versions
from openfero_gitops.catalog.validation.schema.gates import (
    enabled_since,
    is_enabled,
    release_of,
    text_of,
)
from tests.support.mutated_jobs import sound_jobs
from tests.support.rules import SCOPE, problems_of

OF_VERSIONS = ("version-value", "feature-gate", "never-ends", "not-one-of", "unknown-field")


def changed(**places: Any) -> dict[str, Any]:
    """Return a sound Job with members of its container, init container, Pod or spec added."""
    job = copy.deepcopy(dict(sound_jobs()["plain"]))
    pod = job["spec"]["template"]["spec"]
    pod["containers"][0] |= places.get("main", {})
    if "init" in places:
        limits = {"limits": {"memory": "64Mi"}}
        image = "registry.example/tools:1.4.2"
        pod["initContainers"] = [
            {"name": "first", "image": image, "resources": limits} | places["init"]
        ]
    pod |= places.get("pod", {})
    job["spec"] |= places.get("spec", {})
    return job


def found(job: dict[str, Any], version: str) -> list[tuple[str, str]]:
    """Return rule and message of what depends on the version."""
    scope = replace(SCOPE, kubernetes_version=version)
    problems = problems_of(json.dumps(job, indent=1).encode(), "disks/full.json", scope)
    return [(p.rule, p.message) for p in problems if p.rule in OF_VERSIONS]


def rules(job: dict[str, Any], version: str) -> list[str]:
    """Return only the rules."""
    return [rule for rule, _ in found(job, version)]


@pytest.mark.parametrize("version", ["1.30", "1.33"])
@pytest.mark.parametrize("policy", ["Always", "Never", "OnFailure"])
def test_older_versions_refuse_a_restart_policy_of_a_main_container(
    version: str, policy: str
) -> None:
    """Before 1.34 every value is an error."""
    ((rule, message),) = found(changed(main={"restartPolicy": policy}), version)
    assert rule == "version-value"
    assert f'"{policy}" is refused by Kubernetes {version}' in message
    assert "1.34 and later accept it" in message


@pytest.mark.parametrize("version", ["1.34", "1.35", "1.36", "1.37"])
def test_a_main_container_that_always_restarts_is_a_warning_in_later_versions(version: str) -> None:
    """From 1.34 the Job is accepted, but never ends by itself."""
    job = changed(main={"restartPolicy": "Always"})
    assert "never-ends" in rules(job, version)
    assert "version-value" not in rules(job, version)
    messages = " ".join(message for _, message in found(job, version))
    assert "the Job never ends by itself" in messages
    assert ("ContainerRestartRules" in messages) is (version == "1.34")


@pytest.mark.parametrize("version", ["1.35", "1.36"])
@pytest.mark.parametrize(
    ("operator", "values", "never_ends"),
    [
        ("In", [0], True),
        ("In", [0, 42], True),
        ("In", [42], False),
        ("NotIn", [42], True),
        ("NotIn", [0, 42], False),
    ],
)
def test_a_restart_rule_that_matches_success_never_ends(
    version: str, operator: str, values: list[int], *, never_ends: bool
) -> None:
    """Restarting a container that exits with 0 is a warning; other exit codes are not."""
    restart = {"action": "Restart", "exitCodes": {"operator": operator, "values": values}}
    job = changed(main={"restartPolicy": "Never", "restartPolicyRules": [restart]})
    assert rules(job, version) == ["never-ends"] * never_ends


@pytest.mark.parametrize(
    ("policy", "version", "expected"),
    [
        ("Always", "1.30", []),
        ("Always", "1.33", []),
        ("Always", "1.34", []),
        ("Always", "1.36", []),
        ("Never", "1.30", ["version-value"]),
        ("OnFailure", "1.33", ["version-value"]),
        ("OnFailure", "1.34", ["feature-gate"]),
        ("Never", "1.35", []),
        ("OnFailure", "1.36", []),
    ],
)
def test_restart_policies_of_init_containers(
    policy: str, version: str, expected: list[str]
) -> None:
    """Sidecar containers are accepted by all versions, other policies since 1.35."""
    assert rules(changed(init={"restartPolicy": policy}), version) == expected


ALL_CONTAINERS = {
    "restartPolicy": "Never",
    "restartPolicyRules": [
        {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    ],
}


@pytest.mark.parametrize(
    ("places", "version", "expected"),
    [
        ({"main": ALL_CONTAINERS}, "1.34", ["feature-gate", "feature-gate"]),
        ({"main": ALL_CONTAINERS}, "1.35", ["version-value"]),
        ({"main": ALL_CONTAINERS}, "1.36", []),
        ({"main": {"lifecycle": {"preStop": {"sleep": {"seconds": 0}}}}}, "1.32",
         ["version-value"]),
        ({"main": {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}}, "1.32", []),
        ({"main": {"lifecycle": {"postStart": {"sleep": {"seconds": 0}}}}}, "1.33", []),
        ({"main": {"env": [{"name": "1A"}]}}, "1.31", ["version-value"]),
        ({"main": {"env": [{"name": "a b"}]}}, "1.31", ["version-value"]),
        ({"main": {"env": [{"name": "a.b-c"}]}}, "1.31", []),
        ({"main": {"env": [{"name": "1A"}]}}, "1.32", []),
        ({"pod": {"dnsConfig": {"searches": ["a_b.example"]}}}, "1.32", ["version-value"]),
        ({"pod": {"dnsConfig": {"searches": ["."]}}}, "1.32", ["version-value"]),
        ({"pod": {"dnsConfig": {"searches": ["a_b.example", "."]}}}, "1.33", []),
        ({"pod": {"securityContext": {"seLinuxChangePolicy": "MountOption"}}}, "1.32",
         ["version-value", "feature-gate"]),
        ({"pod": {"securityContext": {"seLinuxChangePolicy": "MountOption"}}}, "1.36",
         ["version-value"]),
        ({"pod": {"securityContext": {"seLinuxChangePolicy": "MountOption"}}}, "1.37", []),
        ({"pod": {"hostUsers": False}}, "1.30", ["feature-gate"]),
        ({"pod": {"hostUsers": False}}, "1.33", []),
        ({"main": {"securityContext": {"procMount": "Default"}}}, "1.32", []),
        ({"pod": {"hostUsers": False},
          "main": {"securityContext": {"procMount": "Unmasked"}}}, "1.32",
         ["feature-gate", "feature-gate"]),
        ({"main": {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}},
         "1.32", ["feature-gate"]),
        ({"init": {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]},
          "pod": {"restartPolicy": "OnFailure"}}, "1.36", ["version-value"]),
        ({"init": {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]},
          "pod": {"restartPolicy": "OnFailure"}}, "1.35", []),
        ({"pod": {"securityContext": {"supplementalGroupsPolicy": "Strict"}}}, "1.32",
         ["feature-gate"]),
        ({"pod": {"securityContext": {"supplementalGroupsPolicy": "Strict"}}}, "1.33", []),
        ({"pod": {"resources": {"limits": {"memory": "64Mi"}}}}, "1.33", ["feature-gate"]),
        ({"pod": {"resources": {"limits": {"memory": "64Mi"}}}}, "1.34", []),
        ({"pod": {"volumes": [{"name": "a", "image": {"reference": "a:1"}}]}}, "1.33",
         ["feature-gate"]),
        ({"pod": {"volumes": [{"name": "a", "image": {"reference": "a:1"}}]}}, "1.35", []),
        ({"pod": {"hostname": "a", "hostnameOverride": "b"}}, "1.34", ["feature-gate"]),
        ({"pod": {"tolerations": [{"key": "a", "operator": "Gt", "value": "5"}]}}, "1.34",
         ["not-one-of"]),
        ({"spec": {"completionMode": "Indexed", "completions": 2,
                   "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}}, "1.30",
         ["feature-gate"]),
        ({"spec": {"completionMode": "Indexed", "completions": 2,
                   "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}}, "1.31", []),
    ],
)  # fmt: skip
def test_values_and_gates_of_versions(
    places: dict[str, Any], version: str, expected: list[str]
) -> None:
    """Each version refuses, ignores or accepts a value as its API server does."""
    assert sorted(rules(changed(**places), version)) == sorted(expected)


@pytest.mark.parametrize(("version", "warned"), [("1.30", True), ("1.31", True), ("1.32", False)])
def test_multikueue_needs_a_version_that_lets_others_manage_a_job(
    version: str, *, warned: bool
) -> None:
    """Before, the API server drops the field, and the Job runs in this cluster."""
    job = changed(spec={"managedBy": "kueue.x-k8s.io/multikueue"})
    job["metadata"].setdefault("labels", {})["kueue.x-k8s.io/queue-name"] = "healing"
    assert ("feature-gate" in rules(job, version)) is warned


def test_an_ignored_field_stays_in_the_job() -> None:
    """The cluster may have enabled the feature gate, so the field is not dropped."""
    scope = replace(SCOPE, kubernetes_version="1.32")
    job = changed(pod={"hostUsers": False})
    (problem,) = [
        problem
        for problem in problems_of(json.dumps(job).encode(), "disks/full.json", scope)
        if problem.rule == "feature-gate"
    ]
    assert problem.pointer == "/spec/template/spec/hostUsers"
    assert problem.suggestion == "delete it, or use Kubernetes 1.33 or later"


def test_every_gate_is_known() -> None:
    """Each gate of the table is one that Kubernetes asks for, and versions are ordered."""
    for gate, _, _ in _GATED:
        since = enabled_since(gate)
        assert since is None or text_of(since) in versions(), gate
        assert not is_enabled(gate, (1, 29))


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("1.33", (1, 33)),
        ("v1.33.4-eks-1", (1, 33)),
        ("v1.40.0+k3s1", (1, 40)),
        ("", None),
        ("x", None),
    ],
)
def test_versions_of_clusters(text: str, release: tuple[int, int] | None) -> None:
    """The version is read as clusters of all vendors report it."""
    assert release_of(text) == release

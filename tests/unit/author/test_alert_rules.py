from __future__ import annotations

import json

import pytest
import yaml

from openfero_gitops.author.alert_rules import read_rules
from openfero_gitops.domain.errors import UsageError
from tests.support.paths import FIXTURES

RULES = FIXTURES / "alert_rules"


def read(text: str | bytes) -> list[tuple[str, dict[str, str], int]]:
    """Read rules, and return name, known labels and line of each."""
    content = text.encode() if isinstance(text, str) else text
    return [(rule.name, dict(rule.labels), rule.line) for rule in read_rules(content, "rules.yaml")]


def group(*rules: object, **more: object) -> dict[str, object]:
    """Make a group of rules."""
    return {"name": "g", "rules": list(rules), **more}


def test_objects_of_the_operator() -> None:
    """Every alert of a PrometheusRule is read with its line; recording rules are not."""
    rules = read((RULES / "kubernetes.yaml").read_bytes())

    assert [name for name, _, _ in rules] == [
        "KubePodCrashLooping",
        "KubePodNotReady",
        "KubeJobFailed",
        "KubeHpaReplicasMismatch",
        "KubePersistentVolumeFillingUp",
        "KubePersistentVolumeFillingUp",
        "KubeQuotaFullyUsed",
        "KubeNodeNotReady",
        "KubeletClientCertificateExpiration",
    ]
    assert rules[4][1] == {"severity": "critical"}
    assert rules[0][2] == 16


def test_a_templated_label_is_not_known() -> None:
    """A label whose value is computed may be anything."""
    assert read((RULES / "kubernetes.yaml").read_bytes())[-1][1] == {}


def test_a_plain_rule_file() -> None:
    """Prometheus rule files are read; labels of a rule override those of its group."""
    assert read((RULES / "plain.yaml").read_bytes()) == [
        ("HostDown", {"team": "hosts", "severity": "warning"}, 8),
        ("DiskFull", {"team": "hosts", "severity": "critical"}, 10),
    ]


@pytest.mark.parametrize("kind", ["List", "PrometheusRuleList"])
@pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps])
def test_lists_of_objects(kind: str, dump: object) -> None:
    """What `kubectl get -o yaml` and `-o json` write is read."""
    first = {"kind": "PrometheusRule", "spec": {"groups": [group({"alert": "A"})]}}
    second = {"kind": "PrometheusRule", "spec": {"groups": [group({"alert": "B"})]}}
    alert_rules = read(dump({"kind": kind, "items": [first, second, {"kind": "Other"}]}))

    assert [name for name, _, _ in alert_rules] == ["A", "B"]


def test_several_documents() -> None:
    """A file may contain documents of both kinds, and empty ones."""
    text = "---\n---\ngroups: [{name: g, rules: [{alert: A}]}]\n---\nkind: PrometheusRule\n"

    assert [name for name, _, _ in read(text)] == ["A"]


def test_anchors_and_merged_labels() -> None:
    """Labels of merge keys are known; a rule's own labels override them."""
    text = (
        "groups:\n- name: g\n  rules:\n"
        "  - {alert: A, labels: &l {severity: warning, team: a}}\n"
        "  - {alert: B, labels: {<<: *l, team: b}}\n"
    )

    assert [labels for _, labels, _ in read(text)][1] == {"severity": "warning", "team": "b"}


def test_a_large_installation_in_one_file() -> None:
    """A file may be larger than a file of operarios."""
    rules = [group({"alert": f"A{n}", "expr": "x" * 500}) for n in range(2000)]

    assert len(read(json.dumps({"groups": rules}))) == 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rules.yaml: no rules found"),
        ("kind: ConfigMap\n", "rules.yaml: no rules found"),
        ("- alert: A\n", "rules.yaml: no rules found"),
        ("a: b\ngroups: {}\n", "rules.yaml:2: groups must be a list"),
        ("groups:\n- 7\n", "rules.yaml:2: a group must be a mapping"),
        ("groups:\n- rules:\n  - expr: up\n", "rules.yaml:3: a rule has neither alert nor record"),
        ("groups:\n- rules:\n  - alert: []\n", "rules.yaml:3: alert must be the name of an alert"),
        ("groups:\n- rules: 7\n", "rules.yaml:2: rules must be a list"),
        (
            "groups:\n- rules:\n  - {alert: A, labels: x}\n",
            "rules.yaml:3: labels must be a mapping",
        ),
        ("a: [\n", "rules.yaml:2: "),
        ("a:\n{{- if .Values.rules }}\n", "render it first with helm template"),
        (b"\xff\xfea", "UTF-16"),
        ("[" * 100_000, "nested more than 64"),
        ("a: &a {<<: *a}\ngroups: &g [*g]\n", "a group must be a mapping"),
    ],
)
def test_files_without_rules_are_rejected(text: str | bytes, message: str) -> None:
    """A file without rules is rejected with its line and advice."""
    with pytest.raises(UsageError) as refused:
        read(text)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)

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


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("monitoring.coreos.com/v1", "PrometheusRule"),
        ("operator.victoriametrics.com/v1beta1", "VMRule"),
        ("monitoring.openshift.io/v1", "AlertingRule"),
        ("loki.grafana.com/v1", "AlertingRule"),
        ("monitoring.googleapis.com/v1", "Rules"),
        ("monitoring.googleapis.com/v1", "ClusterRules"),
        ("monitoring.googleapis.com/v1", "GlobalRules"),
        ("example.com/v1", "Alarms"),
    ],
)
def test_manifests_of_any_kind_with_groups(api_version: str, kind: str) -> None:
    """Other operators' rules have the form of a PrometheusRule, and more fields."""
    rule = {"alert": "Disk", "expr": "vector(1)", "keep_firing_for": "5m", "debug": True}
    manifest = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "x"},
        "spec": {"groups": [group(rule, {"record": "r", "expr": "1"}, labels={"team": "a"})]},
    }
    for text in (
        yaml.safe_dump(manifest),
        json.dumps({"kind": "List", "items": [manifest]}),
        json.dumps({"kind": f"{kind}List", "items": [{"kind": "Pod", "spec": {}}, manifest]}),
    ):
        assert [(name, labels) for name, labels, _ in read(text)] == [("Disk", {"team": "a"})]


def test_groups_of_another_kind_are_not_rules() -> None:
    """What else has spec.groups is skipped, as all other objects are."""
    other = {"kind": "AccessPolicy", "spec": {"groups": ["admins", {"name": "g"}]}}
    rules = {"kind": "VMRule", "spec": {"groups": [group({"alert": "A"})]}}
    text = yaml.safe_dump_all([other, rules])
    assert [name for name, _, _ in read(text)] == ["A"]
    with pytest.raises(UsageError, match="no rules found; expected a rule file"):
        read(yaml.safe_dump(other))


def test_the_answer_of_the_rules_api() -> None:
    """What Prometheus, Thanos, Mimir, Loki and vmalert answer at /api/v1/rules is read."""
    alerting = {
        "type": "alerting",
        "name": "Disk",
        "query": "vector(1)",
        "duration": 300,
        "labels": {"severity": "page"},
        "annotations": {"summary": "{{ $labels.pod }}"},
        "alerts": [{"labels": {"alertname": "Disk"}, "state": "firing"}],
        "health": "ok",
        "state": "firing",
    }
    recording = {"type": "recording", "name": "up:sum", "query": "sum(up)", "health": "ok"}
    answer = {
        "status": "success",
        "data": {"groups": [{**group(recording, alerting), "file": "/etc/rules.yaml"}]},
    }
    assert read(json.dumps(answer)) == [("Disk", {"severity": "page"}, 1)]
    assert read(json.dumps({"status": "success", "data": {"groups": []}})) == []


def test_rules_that_are_provisioned_in_grafana() -> None:
    """Their alert name is the title."""
    rule = {
        "uid": "a1",
        "title": "Disk full",
        "condition": "C",
        "for": "5m",
        "labels": {"team": "a"},
        "data": [],
    }
    text = yaml.safe_dump({"apiVersion": 1, "groups": [{**group(rule), "folder": "f"}]})
    assert [(name, labels) for name, labels, _ in read(text)] == [("Disk full", {"team": "a"})]


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
        (
            'groups:\n- rules:\n  - alert: "{{ .Release.Name }}Down"\n',
            "rules.yaml:3: the name of the alert is a template: {{ .Release.Name }}Down; if it is",
        ),
        ("kind: VMRule\nspec:\n  groups: {}\n", "rules.yaml:3: groups must be a list"),
        ('{"data":{"groups":[{"rules":[{"type":"alerting"}]}]}}', "neither alert nor record"),
        ('{"status":"error","error":"not found"}', "rules.yaml: no rules found; expected a rule"),
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

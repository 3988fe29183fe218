"""The alerts about the controller itself: each fires for its cause, and has a runbook."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openfero_gitops.domain.help import PAGE
from tests.support.chart import (
    CHART,
    NAME,
    RELEASE,
    REPOSITORY,
    Values,
    helm,
    merged,
    only,
    render_chart,
)
from tests.support.cluster import require_binaries
from tests.support.paths import ROOT
from tests.support.promtool import check_queries, check_rules, run_rule_tests, selectors
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.cluster

SCRAPED = f'namespace="team",job="{NAME}"'


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


@pytest.fixture(scope="module")
def served_metrics(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Mapping[str, frozenset[str]]:
    """Give the names of all metrics that a real replica serves, with their documented labels."""
    folder = tmp_path_factory.mktemp("served")
    repository = Repository(folder / "git")
    repository.write("Disk.json", operario("Disk"))
    repository.commit("Operarios")
    with Replica(
        folder,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
    ) as replica:
        assert replica.deliver(alert("Disk", host="a"))[0] == 200
        served = list(text_string_to_metric_families(replica.read("/metrics")))
    page = (ROOT / "docs/reference/metrics.md").read_text()
    documented = {
        name: frozenset(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(
            r"^\| `(openfero_\w+)` \| \w+ \| (.*?) \|", page, re.MULTILINE
        )
    }
    for family in served:
        for sample in family.samples:
            if family.name.startswith("openfero_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                assert set(sample.labels) - {"le"} == documented[name]
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in served}
    assert {name for name in names if name.startswith("openfero_")} == set(documented)
    histograms = {each.name for each in served if each.type == "histogram"}
    for name in histograms & documented.keys():
        documented[f"{name}_bucket"] = documented[name] | {"le"}
        documented[f"{name}_count"] = documented[f"{name}_sum"] = documented[name]
    return documented


@dataclass(frozen=True)
class Case:
    """An alert, series for which it fires, and similar ones for which it does not.

    Series are written as promtool does: `1x9` is ten times 1, and `0+1x9` rises by 1 each minute.
    It must fire at the minute `at`, and not at the minute `not_at`, which is earlier; for similar
    series it must not fire at any minute until `at`. `filled` are the texts in place of the
    templates of its description.
    """

    alert: str
    firing: Mapping[str, str]
    quiet: Mapping[str, str]
    not_at: int
    at: int
    filled: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


CASES = [
    Case(
        "OpenFeroNoLeader",
        {'leader{pod="a"}': "1 1 0x20", 'leader{pod="b"}': "0x20"},
        {'leader{pod="a"}': "0x20", 'leader{pod="b"}': "1x20"},
        1,
        5,
    ),
    Case(
        "OpenFeroNoLeader",
        {'leader{pod="a"}': "1 1 stale"},
        {'leader{pod="a"}': "1 1 1x20"},
        1,
        5,
    ),
    Case(
        "OpenFeroNotSynced",
        {
            'sync_failing_since_timestamp_seconds{pod="a"}': "0 60x30",
            'revision_refused{pod="a"}': "0x30",
            'sync_failing_since_timestamp_seconds{pod="b"}': "0x30",
            'revision_refused{pod="b"}': "0x30",
        },
        {
            'sync_failing_since_timestamp_seconds{pod="a"}': "0 60x30",
            'revision_refused{pod="a"}': "0 1x30",
        },
        16,
        18,
        ("17m 0s",),
    ),
    Case(
        "OpenFeroRevisionRefused",
        {'revision_refused{pod="a"}': "0x30", 'revision_refused{pod="b"}': "0 1x30"},
        {'revision_refused{pod="a"}': "0x30", 'revision_refused{pod="b"}': "1 1 0x30"},
        1,
        4,
    ),
    Case(
        "OpenFeroOperariosQuarantined",
        {'problems{pod="a"}': "0 3x30", 'problems{pod="b"}': "0 2x30"},
        {'problems{pod="a"}': "0x30"},
        1,
        4,
        ("3",),
    ),
    Case(
        "OpenFeroWaitingLong",
        {'waiting_max_wait_ratio{pod="a"}': "0 0.4 0.6x30"},
        {'waiting_max_wait_ratio{pod="a"}': "0 0.4 0.5x30"},
        1,
        4,
        ("60%",),
    ),
    Case(
        "OpenFeroStuckInQueue",
        {'stuck_in_queue{pod="a"}': "0 2x30", 'stuck_in_queue{pod="b"}': "0 0 0 0 stale"},
        {'stuck_in_queue{pod="a"}': "0 2x6 0x30"},
        10,
        12,
        ("2",),
    ),
    Case(
        "OpenFeroNotHealedInARow",
        {'not_healed_in_a_row{pod="a",operario="disk"}': "1 1 2x30"},
        {
            'not_healed_in_a_row{pod="a",operario="disk"}': "1x30",
            'not_healed_in_a_row{pod="a",operario="node"}': "1x30",
        },
        1,
        2,
        ("2", "disk"),
        {"operario": "disk"},
    ),
    Case(
        "OpenFeroDeliveriesFailing",
        {
            'deliveries_total{pod="a",code="200"}': "0+9x30",
            'deliveries_total{pod="a",code="503"}': "0+1x30",
        },
        {
            'deliveries_total{pod="a",code="200"}': "0+9x30",
            'deliveries_total{pod="a",code="401"}': "0+1x30",
            'deliveries_total{pod="a",code="503"}': "0 1 2x30",
        },
        4,
        9,
        ("503",),
        {"code": "503"},
    ),
    # Each Pod failed once, some minutes apart.
    Case(
        "OpenFeroDeliveriesFailing",
        {'deliveries_total{pod="a",code="500"}': "0+1x30"},
        {
            'deliveries_total{pod="a",code="503"}': "0 0 1x30",
            'deliveries_total{pod="b",code="503"}': "0x5 1x30",
        },
        4,
        12,
        ("500",),
        {"code": "500"},
    ),
    # Alertmanager tries again when it next delivers the group, by default after five minutes.
    Case(
        "OpenFeroDeliveriesRefused",
        {'deliveries_total{pod="a",code="401"}': "1x4 2x4 3x4 4x4"},
        {
            'deliveries_total{pod="a",code="401"}': "1x30",
            'deliveries_total{pod="a",code="503"}': "0+1x30",
        },
        19,
        22,
        ("401",),
        {"code": "401"},
    ),
    # A second refusal, for example by `helm test`, is the first rise of the counter.
    Case(
        "OpenFeroDeliveriesRefused",
        {'deliveries_total{pod="a",code="401"}': "0+1x30"},
        {'deliveries_total{pod="a",code="401"}': "1x4 2x30"},
        14,
        22,
        ("401",),
        {"code": "401"},
    ),
    Case(
        "OpenFeroWatchdogMissing",
        {'condition{pod="a",condition="watchdog"}': "1 0x30"},
        {'condition{pod="a",condition="watchdog"}': "1x30"},
        1,
        3,
    ),
    Case(
        "OpenFeroDegraded",
        {
            'condition{pod="a",condition="clock"}': "1x30",
            'condition{pod="b",condition="clock"}': "1 0x30",
        },
        {
            'condition{pod="a",condition="clock"}': "1x30",
            'condition{pod="a",condition="watchdog"}': "0x30",
            'condition{pod="a",condition="serving"}': "0x30",
            'condition{pod="a",condition="job policy"}': "0x30",
        },
        10,
        13,
        ("clock", "b"),
        {"condition": "clock", "pod": "b"},
    ),
]


def rules(**changes: Any) -> dict[str, dict[str, Any]]:
    """Return the alerts of the chart's PrometheusRule by their names."""
    values: Values = {"prometheusRule": {"enabled": True, **changes}}
    [group] = only(render_chart("team", merged(REPOSITORY, values)), "PrometheusRule")["spec"][
        "groups"
    ]
    return {rule["alert"]: rule for rule in group["rules"]}


def rule_tests(case: Case, rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return promtool's tests of a case."""
    filled = iter(case.filled)
    texts = rule["annotations"]
    description = re.sub(r"\{\{.*?\}\}", lambda _: next(filled), texts["description"])
    expected = {
        "exp_labels": {"severity": rule["labels"]["severity"], "namespace": "team", **case.labels},
        "exp_annotations": {**texts, "description": description},
    }

    def test(series: Mapping[str, str], scraped: str, moments: Mapping[int, list[Any]]) -> Any:
        return {
            "interval": "1m",
            "input_series": [
                {"series": f"openfero_gitops_{name.replace('{', '{' + scraped + ',')}", "values": v}
                for name, v in series.items()
            ],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": alerts}
                for minute, alerts in moments.items()
            ],
        }

    return [
        test(case.firing, SCRAPED, {case.not_at: [], case.at: [expected]}),
        test(case.quiet, SCRAPED, {minute: [] for minute in range(case.at + 1)}),
        # Without series of this release it has no leader.
        test(
            case.firing,
            'namespace="other",job="other"',
            {case.at: [expected] if case.alert == "OpenFeroNoLeader" else []},
        ),
    ]


def test_each_alert_fires_for_its_cause_alone(tmp_path: Path) -> None:
    """It fires after its time, not before, not for what is similar, nor for another release."""
    given = rules()
    assert {case.alert for case in CASES} == set(given)
    tests = [test for case in CASES for test in rule_tests(case, given[case.alert])]
    run_rule_tests(tmp_path, [{"name": "chart", "rules": list(given.values())}], tests)


#: Metrics that only the leader exposes, with a value for which their alert fires.
OF_THE_LEADER = {
    "OpenFeroWaitingLong": ("waiting_max_wait_ratio", "0.6"),
    "OpenFeroStuckInQueue": ("stuck_in_queue", "2"),
    "OpenFeroNotHealedInARow": ('not_healed_in_a_row{operario="disk"}', "2"),
}


@pytest.mark.parametrize("name", OF_THE_LEADER)
def test_an_alert_outlives_a_change_of_the_leader(name: str, tmp_path: Path) -> None:
    """It goes on firing while the metric of the old leader has ended and no other has begun."""
    metric, value = OF_THE_LEADER[name]
    [case] = [case for case in CASES if case.alert == name]
    metric, _, labels = metric.rstrip("}").partition("{")
    rule = rules()[name]
    before = {f'{metric}{{pod="a",{labels}}}': f"{value}x14 stale"}
    after = {f'{metric}{{pod="b",{labels}}}': f"{'_ ' * 16}{value}x14"}
    given = dataclasses.replace(case, firing=before | after)
    firing = [
        rule_tests(dataclasses.replace(given, not_at=0, at=minute), rule)[0]
        for minute in range(13, 30)
    ]
    for test in firing:
        test["alert_rule_test"] = test["alert_rule_test"][-1:]
    run_rule_tests(tmp_path, [{"name": "chart", "rules": [rule]}], firing)


def test_every_metric_of_an_alert_is_served(served_metrics: Mapping[str, frozenset[str]]) -> None:
    """A replica exposes each metric and label that an expression names."""
    scraped = {"namespace", "job"}
    for rule in rules().values():
        used = list(selectors(rule["expr"]))
        assert used
        for metric, labels in used:
            assert labels - scraped <= served_metrics[metric], rule["alert"]


def test_each_alert_has_a_runbook() -> None:
    """Its address is that of a heading, whose section names the alert in the table above."""
    page = (ROOT / "docs/troubleshooting/runbooks.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    for name, rule in rules().items():
        address, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert address == f"{PAGE}runbooks.html"
        assert anchor in headings
        severity = rule["labels"]["severity"]
        assert f"| [{name}](#{anchor}) | {severity} |" in page
    assert headings == {name.lower() for name in rules()}
    own = "https://wiki.example.com/openfero"
    for name, rule in rules(runbookUrl=own).items():
        assert rule["annotations"]["runbook_url"] == f"{own}#{name.lower()}"


def test_alerts_can_be_adapted(tmp_path: Path) -> None:
    """They can be left out, wait for longer, have more labels, and select other metrics."""
    changed = rules(
        disabled=["OpenFeroDegraded"],
        alertLabels={"team": "platform"},
        selector='cluster="a",app="openfero"',
        **{"for": {"OpenFeroNotSynced": "30m"}},
    )
    assert "OpenFeroDegraded" not in changed
    assert changed["OpenFeroNotSynced"]["for"] == "30m"
    for rule in changed.values():
        assert rule["labels"]["team"] == "platform"
        assert rule["labels"]["namespace"] == "team"
        assert 'cluster="a",app="openfero"' in rule["expr"]
    check_rules(tmp_path, [{"name": "chart", "rules": list(changed.values())}])


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, True),
        ({"serviceMonitor": {"enabled": True}}, False),
        ({"prometheusRule": {"selector": 'app="openfero"'}}, False),
        ({"prometheusRule": {"enabled": False}}, False),
    ],
)
def test_notes_warn_of_alerts_that_may_select_nothing(changes: Values, *, warned: bool) -> None:
    """Without a ServiceMonitor, the labels of the metrics are not known."""
    values = merged(merged(REPOSITORY, {"prometheusRule": {"enabled": True}}), changes)
    printed = helm("install", RELEASE, str(CHART), "--dry-run=client", values=values)
    assert ("set prometheusRule.selector" in printed) is warned


def test_labels_of_alerts_can_be_replaced() -> None:
    """A label of `alertLabels` replaces the chart's, so that no key is written twice."""
    values: Values = {"prometheusRule": {"enabled": True, "alertLabels": {"severity": "page"}}}
    command = ("template", RELEASE, str(CHART), "--show-only=templates/prometheusrule.yaml")
    text = helm(*command, values=merged(REPOSITORY, values))
    alerts = len(re.findall("- alert:", text))
    assert (
        re.findall(r"^ +severity: .*$", text, re.MULTILINE)
        == [f"{' ' * 12}severity: page"] * alerts
    )


def dashboard() -> dict[str, Any]:
    """Return the dashboard in the chart's ConfigMap."""
    values: Values = {"grafanaDashboard": {"enabled": True, "annotations": {"folder": "a"}}}
    made = only(render_chart("team", merged(REPOSITORY, values)), "ConfigMap")
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert made["metadata"]["annotations"] == {"folder": "a"}
    content: dict[str, Any] = json.loads(made["data"]["openfero-gitops.json"])
    return content


def queries() -> list[str]:
    """Return every query of the dashboard, with what Grafana puts in place of its variables."""
    variables = {"$namespace": "team", "$job": NAME, "$__rate_interval": "5m"}
    texts = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    for name, text in variables.items():
        texts = [query.replace(name, text) for query in texts]
    return texts


def test_the_dashboard_is_made_on_request() -> None:
    """Without it no ConfigMap is created."""
    assert "ConfigMap" not in {each["kind"] for each in render_chart("team", REPOSITORY)}


def test_every_query_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    """Prometheus can parse each, no variable is left over, and each names the release."""
    given = queries()
    assert not [query for query in given if "$" in query]
    assert all(SCRAPED in query for query in given)
    check_queries(tmp_path, given)


def test_the_dashboard_shows_every_metric(served_metrics: Mapping[str, frozenset[str]]) -> None:
    """Each metric and label in a query is served, and no metric of ours is left out."""
    scraped = {"namespace", "job", "pod", "instance"}
    shown = set()
    for query in queries():
        for metric, labels in selectors(query):
            assert labels - scraped <= served_metrics[metric], query
            shown.add(re.sub(r"_(bucket|sum|count)$", "", metric))
        for by in re.findall(r"by \(([^)]*)\)", query):
            known = {*scraped, *(x for m, _ in selectors(query) for x in served_metrics[m])}
            assert set(by.split(", ")) <= known, query
    every = {re.sub(r"_(bucket|sum|count)$", "", name) for name in served_metrics}
    assert every - shown == {"openfero_gitops_sync_last_success_timestamp_seconds"}


def test_panels_do_not_overlap() -> None:
    """Each has a title, a description, and its own place in the grid of 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"].endswith(".")
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells

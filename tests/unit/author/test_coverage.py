from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.author.alert_rules import AlertRule, read_rules
from openfero_gitops.author.coverage import Coverage, as_json, as_text, cover
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.matcher_parser import parse_matchers
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.watchdog import Watchdog
from tests.support.build import catalog, operario
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openfero_gitops.domain.operario import Operario

RULES = FIXTURES / "alert_rules"
WARNING = {"severity": "warning"}


def rule(name: str = "HostDown", **labels: str) -> AlertRule:
    """Make an alerting rule."""
    return AlertRule(name, labels, "rules.yaml", 3)


def operario_with(
    name: str = "a",
    alertname: str = "HostDown",
    matchers: str = "",
    status: Status = Status.FIRING,
    **options: Any,
) -> Operario:
    """Make an operario with matchers."""
    chosen = Options(matchers=parse_matchers(matchers), **options)
    return operario(name, alertname=alertname, status=status, options=chosen)


def coverage_of(
    *operarios: Operario, rules: Sequence[AlertRule] | None = None, ignore: Sequence[str] = ()
) -> Coverage:
    """Compare operarios with rules, by default `rule()`."""
    return cover(catalog(*operarios), [rule()] if rules is None else rules, ignore)


def test_an_alert_with_an_operario() -> None:
    """The alert name matches case-insensitively."""
    coverage = coverage_of(operario_with(alertname="hostdown"))

    assert coverage.complete
    assert coverage.percentage == 100
    assert as_text(coverage) == "1 of 1 alerting rule has an operario (100 %)"


def test_an_alert_without_an_operario() -> None:
    """A rule without an operario is a gap, with its labels and line."""
    coverage = coverage_of(operario_with(), rules=(rule(), rule("DiskFull", severity="critical")))

    assert not coverage.complete
    assert coverage.percentage == 50
    assert 'no operario: DiskFull{severity="critical"} (rules.yaml:3)' in as_text(coverage)


def test_a_name_that_was_mistyped_is_suggested_on_both_sides() -> None:
    """The nearest name is suggested for the rule and for the operario."""
    text = as_text(coverage_of(operario_with(alertname="HostsDown")))

    assert "there is an operario for HostsDown, is that the same alert?" in text
    assert (
        "unreachable: a (operarios/a.yaml): no rule has the name HostsDown (did you mean HostDown?)"
        in text
    )


@pytest.mark.parametrize(
    ("matchers", "labels", "covered_for"),
    [
        ('severity="warning"', WARNING, "all"),
        ('severity="critical"', WARNING, "none"),
        ('severity=~"warn.*"', WARNING, "all"),
        ('severity!="warning"', WARNING, "none"),
        ('namespace="shop"', WARNING, "some"),
        ('severity="warning", namespace="shop"', WARNING, "some"),
        ('severity="critical", namespace="shop"', WARNING, "none"),
        ('alertname="HostDown"', WARNING, "all"),
        ('severity="critical"', {}, "some"),
    ],
)
def test_matchers_against_what_is_known(
    matchers: str, labels: dict[str, str], covered_for: str
) -> None:
    """A matcher can contradict only labels that the rule sets."""
    coverage = coverage_of(operario_with(matchers=matchers), rules=(rule(**labels),))

    assert bool(coverage.rules[0].operarios) is (covered_for != "none")
    assert coverage.rules[0].always is (covered_for == "all")
    assert bool(coverage.unreachable) is (covered_for == "none")


def test_an_alert_for_some_labels_alone_is_no_gap() -> None:
    """A rule that is covered for some labels is reported, and is no gap."""
    coverage = coverage_of(operario_with(matchers='namespace="shop"'), rules=(rule(**WARNING),))

    assert coverage.complete
    assert (
        'some labels: HostDown{severity="warning"} (rules.yaml:3): a if namespace="shop"'
    ) in as_text(coverage)
    assert "1 of them for some labels only" in as_text(coverage)


def test_a_matcher_that_contradicts_is_named() -> None:
    """The gap and the operario name the matcher and the label."""
    text = as_text(
        coverage_of(operario_with(matchers='severity="critical"'), rules=(rule(**WARNING),))
    )
    why = 'matcher severity="critical" contradicts the rule\'s severity="warning"'

    assert f"(rules.yaml:3): a does not match: {why}" in text
    assert f"unreachable: a (operarios/a.yaml): {why}" in text


def test_one_rule_of_the_name_is_enough() -> None:
    """An operario that one of several rules reaches is reached."""
    coverage = coverage_of(
        operario_with(matchers='severity="critical"'),
        rules=(rule(**WARNING), rule(severity="critical")),
    )

    assert coverage.unreachable == ()
    assert len(coverage.gaps) == 1


def test_an_operario_behind_another_is_unreachable() -> None:
    """An operario behind another that always matches is unreachable."""
    coverage = coverage_of(operario_with("z"), operario_with("b", priority=5))

    assert [(gap.operario, gap.reason) for gap in coverage.unreachable] == [
        ("z", "b comes before it and matches whatever the labels")
    ]
    assert (
        coverage_of(
            operario_with("z"), operario_with("b", priority=5, matchers='pod!=""')
        ).unreachable
        == ()
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"enabled": False}, "a is disabled"),
        ({"status": Status.RESOLVED}, "a matches only the resolved alert"),
    ],
)
def test_who_does_not_count(options: dict[str, object], why: str) -> None:
    """A gap names an operario that is disabled or for the other status."""
    assert f"no operario: HostDown (rules.yaml:3): {why}" in as_text(
        coverage_of(operario_with(**options))
    )


def test_operarios_for_resolved_alerts_are_noted() -> None:
    """Operarios for resolved alerts are counted; one without a firing counterpart is noted."""
    both = coverage_of(operario_with(), operario_with("r", status=Status.RESOLVED))
    alone = coverage_of(operario_with("r", status=Status.RESOLVED))

    assert both.rules[0].resolved == ("r",)
    assert "; 1 also when resolved" in as_text(both)
    assert both.notes == ()
    assert "note: r is for the resolved alert HostDown, but there is no operario" in as_text(alone)
    assert alone.unreachable == ()


def test_ignored_rules() -> None:
    """An ignored rule is neither covered nor a gap; it still reaches its operario."""
    coverage = coverage_of(operario_with(), rules=(rule(), rule("Watchdog")), ignore=("watchdog",))

    assert coverage.complete
    assert "1 of 1 alerting rule has an operario (100 %); 1 rule ignored" in as_text(coverage)
    assert coverage_of(operario_with(), rules=(rule(),), ignore=("HostDown",)).unreachable == ()


def test_the_watchdog_needs_no_operario() -> None:
    """It always fires; openfero.yaml names it."""
    watched = catalog(operario_with(), envelope=Envelope(watchdog=Watchdog()))
    coverage = cover(watched, [rule(), rule("watchdog")])

    assert coverage.complete
    assert coverage.ignored == 1


def test_without_an_alert_nothing_is_complete() -> None:
    """Only recording rules is a failure."""
    coverage = coverage_of(operario_with(), rules=())

    assert not coverage.complete
    assert "no alerting rules: all rules are recording rules, or ignored" in as_text(coverage)


def test_a_percentage_of_100_is_all_of_them() -> None:
    """The percentage is rounded down."""
    rules = [rule(f"A{number}") for number in range(2_000)]
    coverage = coverage_of(
        *(operario_with(f"o{number}", f"A{number}") for number in range(1_999)), rules=rules
    )

    assert coverage.percentage == 99.9


def test_the_rules_of_a_cluster() -> None:
    """Rules of the kubernetes-mixin's shape against operarios for some of them."""
    rules = read_rules((RULES / "kubernetes.yaml").read_bytes(), "kubernetes.yaml")
    operarios = (
        operario_with("crash", "KubePodCrashLooping"),
        operario_with("grow", "KubePersistentVolumeFillingUp", 'severity="critical"'),
        operario_with("certificate", "KubeletClientCertificateExpiration", 'severity="critical"'),
        operario_with("pods", "KubeQuotaFullyUsed", 'resource="count/pods"'),
        operario_with("gone", "KubeAPIDown"),
    )
    coverage = cover(catalog(*operarios), rules)

    assert {gap.rule.name for gap in coverage.gaps} == {
        "KubePodNotReady",
        "KubeJobFailed",
        "KubeHpaReplicasMismatch",
        "KubePersistentVolumeFillingUp",
        "KubeNodeNotReady",
    }
    assert {
        covered.rule.name for covered in coverage.rules if covered.operarios and not covered.always
    } == {
        "KubeletClientCertificateExpiration",
        "KubeQuotaFullyUsed",
    }
    assert [gap.operario for gap in coverage.unreachable] == ["gone"]
    assert coverage.percentage == 44.4


def test_programs_get_every_rule() -> None:
    """The JSON has the documented members."""
    coverage = as_json(
        coverage_of(
            operario_with(matchers='pod="x"'), operario_with("b", "Other"), rules=(rule(**WARNING),)
        )
    )

    assert list(coverage) == ["percentage", "alerts", "unreachable", "notes", "leftOut"]
    assert coverage["alerts"] == [
        {
            "alertname": "HostDown",
            "labels": WARNING,
            "path": "rules.yaml",
            "line": 3,
            "covered": "some",
            "operarios": ["a"],
            "resolved": [],
            "message": 'a if pod="x"',
        }
    ]
    assert coverage["unreachable"][0]["operario"] == "b"


def test_hostile_rules_cannot_write_on_the_terminal() -> None:
    """Control characters in names and labels of rules are escaped."""
    hostile = replace(rule("A\x1b[2J"), labels={"a\u202e": "b\n"}, path="x\x1b")

    assert not set("\x1b\u202e") & set(as_text(coverage_of(operario_with(), rules=(hostile,))))

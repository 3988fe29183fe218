from __future__ import annotations

import pytest

from openfero_gitops.delivery.match import Match, NoMatch, match
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey
from tests.support.build import alert, catalog, operario

POD_OF_SHOP = Matcher("namespace", Operator.EQUAL, "shop")
OWN = JobKey("jobs", "podcrashlooping-firing-abcdefghijklmnop")


def test_the_operario_for_the_alert_matches() -> None:
    """An operario matches the alert in its status."""
    healer = operario()

    assert match(alert(), catalog(operario("other", alertname="Other"), healer), ()) == Match(
        healer
    )


@pytest.mark.parametrize("written", ["podcrashlooping", "PODCRASHLOOPING", "PodCrashLooping"])
def test_alert_names_are_compared_without_case(written: str) -> None:
    """OpenFero's files often have lower-case names."""
    healer = operario(alertname=written)

    assert match(alert(), catalog(healer), ()) == Match(healer)


@pytest.mark.parametrize("status", Status)
def test_an_operario_matches_its_own_status_only(status: Status) -> None:
    """An operario for resolved alerts does not match a firing one, or vice versa."""
    firing, resolved = operario("f"), operario("r", status=Status.RESOLVED)
    wanted = firing if status is Status.FIRING else resolved

    assert match(alert(status=status), catalog(firing, resolved), ()) == Match(wanted)


def test_an_alert_without_an_operario_has_its_own_reason() -> None:
    """It differs from that of an alert whose operarios do not match."""
    assert match(alert(), catalog(), ()) == NoMatch(Reason.NO_OPERARIO)
    resolved = operario(status=Status.RESOLVED)
    assert match(alert(), catalog(resolved), ()) == NoMatch(Reason.NO_OPERARIO)
    assert match(alert(labels={}), catalog(operario()), ()) == NoMatch(Reason.NO_OPERARIO)


def test_a_disabled_operario_does_not_match() -> None:
    """The next operario is chosen, or none."""
    off = operario("a", options=Options(enabled=False, priority=9))
    on = operario("b")

    assert match(alert(), catalog(off), ()) == NoMatch(Reason.DISABLED)
    assert match(alert(), catalog(off, on), ()) == Match(on)


def test_matchers_choose_among_operarios() -> None:
    """All matchers must match; if no operario's do, that is the reason."""
    picky = operario("a", options=Options(matchers=(POD_OF_SHOP,)))
    shop = alert(labels=dict(alert().labels, namespace="shop"))

    assert match(shop, catalog(picky), ()) == Match(picky)
    assert match(alert(), catalog(picky), ()) == NoMatch(Reason.MATCHERS)
    assert match(alert(), catalog(picky, operario("b")), ()) == Match(operario("b"))


def test_every_matcher_must_match() -> None:
    """One matcher that does not match is enough."""
    web = Matcher("pod", Operator.MATCHES, "web-.*")
    both = operario(options=Options(matchers=(web, POD_OF_SHOP)))

    assert match(alert(), catalog(both), ()) == NoMatch(Reason.MATCHERS)


def test_the_highest_priority_wins_then_the_first_name() -> None:
    """The choice does not depend on the order of files."""
    low = operario("a", options=Options(priority=-1))
    second, first = operario("c"), operario("b")
    high = operario("z", options=Options(priority=1))

    assert match(alert(), catalog(low, second, first, high), ()) == Match(high)
    assert match(alert(), catalog(high, first, second, low), ()) == Match(high)
    assert match(alert(), catalog(low, second, first), ()) == Match(first)


@pytest.mark.parametrize(
    "labels",
    [
        {"namespace": OWN.namespace, "job_name": OWN.name},
        {"namespace": OWN.namespace, "pod": f"{OWN.name}-x7k2p"},
        {"namespace": OWN.namespace, "pod": f"{OWN.name}-3-x7k2p"},
    ],
)
def test_an_alert_about_one_of_our_jobs_is_ignored(labels: dict[str, str]) -> None:
    """A failed remediation fires KubeJobFailed; healing it would be a loop."""
    about = alert(labels={"alertname": "KubeJobFailed"} | labels)
    plain = operario("a", alertname="KubeJobFailed")
    asking = operario("b", alertname="KubeJobFailed", options=Options(own_jobs=True))

    assert match(about, catalog(plain), {OWN}) == NoMatch(Reason.OWN_JOB)
    assert match(about, catalog(plain, asking), {OWN}) == Match(asking)
    assert match(about, catalog(plain), ()) == Match(plain)


@pytest.mark.parametrize(
    "labels",
    [
        {"namespace": "elsewhere", "job_name": OWN.name},
        {"namespace": "elsewhere", "pod": f"{OWN.name}-x7k2p"},
        {"job_name": OWN.name},
        {"namespace": OWN.namespace, "job_name": "backup"},
        {"namespace": OWN.namespace, "job": OWN.name},
        {"namespace": OWN.namespace, "pod": OWN.name},
        {"namespace": OWN.namespace, "pod": f"{OWN.name}-1-2-3"},
        {"namespace": OWN.namespace, "pod": ""},
    ],
)
def test_an_alert_about_another_job_matches(labels: dict[str, str]) -> None:
    """Only the namespace and name of the Job, or of its Pod, identify it."""
    about = alert(labels={"alertname": "KubeJobFailed"} | labels)
    healer = operario(alertname="KubeJobFailed")

    assert match(about, catalog(healer), {OWN}) == Match(healer)


def test_an_alert_that_we_sent_to_alertmanager_is_ignored() -> None:
    """A remediation of what notifies people about remediations could loop."""
    sent = alert(labels={"alertname": "OpenFeroNotHealed", "openfero": "true", "pod": "web-1"})
    plain = operario("a", alertname="OpenFeroNotHealed")
    asking = operario("b", alertname="OpenFeroNotHealed", options=Options(own_jobs=True))

    assert match(sent, catalog(), ()) == NoMatch(Reason.OWN_ALERT)
    assert match(sent, catalog(plain), ()) == NoMatch(Reason.OWN_ALERT)
    assert match(sent, catalog(plain, asking), ()) == Match(asking)


@pytest.mark.parametrize(
    "labels",
    [
        {"alertname": "PodCrashLooping", "openfero": "true"},
        {"alertname": "OpenFeroNotHealed"},
        {"alertname": "OpenFeroNotHealed", "openfero": "false"},
    ],
)
def test_people_may_use_the_label_to_route_alerts(labels: dict[str, str]) -> None:
    """Only the name and the label together say that an alert is ours."""
    healer = operario(alertname=labels["alertname"])

    assert match(alert(labels=labels), catalog(healer), ()) == Match(healer)

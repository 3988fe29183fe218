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


def test_the_operario_of_the_alert_answers_it() -> None:
    """An operario written for an alert in a state answers it."""
    healer = operario()

    assert match(alert(), catalog(operario("other", alertname="Other"), healer), ()) == Match(
        healer
    )


@pytest.mark.parametrize("written", ["podcrashlooping", "PODCRASHLOOPING", "PodCrashLooping"])
def test_alert_names_are_compared_without_case(written: str) -> None:
    """OpenFero's files are often named in lower case."""
    healer = operario(alertname=written)

    assert match(alert(), catalog(healer), ()) == Match(healer)


@pytest.mark.parametrize("status", Status)
def test_an_operario_answers_its_own_state_alone(status: Status) -> None:
    """A firing alert does not meet the operario for resolved ones, nor the reverse."""
    firing, resolved = operario("f"), operario("r", status=Status.RESOLVED)
    wanted = firing if status is Status.FIRING else resolved

    assert match(alert(status=status), catalog(firing, resolved), ()) == Match(wanted)


def test_without_an_operario_nothing_answers() -> None:
    """An alert nobody wrote for is told apart from one whose operarios do not fit."""
    assert match(alert(), catalog(), ()) == NoMatch(Reason.NO_OPERARIO)
    resolved = operario(status=Status.RESOLVED)
    assert match(alert(), catalog(resolved), ()) == NoMatch(Reason.NO_OPERARIO)
    assert match(alert(labels={}), catalog(operario()), ()) == NoMatch(Reason.NO_OPERARIO)


def test_a_disabled_operario_does_not_answer() -> None:
    """One that is switched off leaves the alert to the next, or to nobody."""
    off = operario("a", options=Options(enabled=False, priority=9))
    on = operario("b")

    assert match(alert(), catalog(off), ()) == NoMatch(Reason.DISABLED)
    assert match(alert(), catalog(off, on), ()) == Match(on)


def test_matchers_choose_among_operarios() -> None:
    """All matchers must hold; where none of the operarios' do, that is the reason."""
    picky = operario("a", options=Options(matchers=(POD_OF_SHOP,)))
    shop = alert(labels=dict(alert().labels, namespace="shop"))

    assert match(shop, catalog(picky), ()) == Match(picky)
    assert match(alert(), catalog(picky), ()) == NoMatch(Reason.MATCHERS)
    assert match(alert(), catalog(picky, operario("b")), ()) == Match(operario("b"))


def test_every_matcher_must_hold() -> None:
    """One matcher that fails is enough to leave the alert alone."""
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
def test_an_alert_about_one_of_our_jobs_is_left_alone(labels: dict[str, str]) -> None:
    """A failed remediation fires KubeJobFailed; healing that would loop, unless asked for."""
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
def test_an_alert_about_another_job_is_answered(labels: dict[str, str]) -> None:
    """Only the namespace and name of a Job of ours, or of its Pod, make an alert our own."""
    about = alert(labels={"alertname": "KubeJobFailed"} | labels)
    healer = operario(alertname="KubeJobFailed")

    assert match(about, catalog(healer), {OWN}) == Match(healer)

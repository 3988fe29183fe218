"""The page of alerts: what came, what was done, and why nothing was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from openfero_gitops.delivery.unanswered import EMPTY, MAX_OCCURRENCES, merge, record_of, trimmed
from openfero_gitops.domain.alert import InvalidAlert, Status
from openfero_gitops.domain.answer import Item
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome, Phase
from openfero_gitops.web.alert_groups import GroupState, group_alerts
from openfero_gitops.web.api.endpoints import add_api
from openfero_gitops.web.errors import problems
from openfero_gitops.web.turns import Turns
from tests.support import build, pages
from tests.support.copying import replace
from tests.support.drawn import OPEN, application, draw

NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)


def item(name: str, status: Status = Status.FIRING, **labels: str) -> Item:
    """An alert that no operario answers."""
    alert = build.alert(labels={"alertname": name, **labels}, status=status)
    return Item(alert, Outcome.NO_MATCH, Reason.NO_OPERARIO, Reason.NO_OPERARIO.text)


def heard(*items: Item, minutes: float = 0):  # noqa: ANN201
    """The record of one delivery."""
    return record_of(items, NOW + timedelta(minutes=minutes), REPLICA_LABELS)


def test_an_alert_fires_until_it_is_resolved() -> None:
    """Each by its labels; a name with one that fires is firing."""
    record = heard(item("A", pod="1"), item("A", pod="2"))
    record = merge(record, heard(item("A", Status.RESOLVED, pod="1"), minutes=5))
    (group,) = group_alerts(record, ())
    assert (group.firing, group.is_firing) == (1, True)
    record = merge(record, heard(item("A", Status.RESOLVED, pod="2"), minutes=6))
    (group,) = group_alerts(record, ())
    assert (group.firing, group.states) == (0, {GroupState.RESOLVED, GroupState.UNANSWERED})


def test_a_resolved_alert_needs_no_job() -> None:
    """So that it is not listed as unanswered."""
    (group,) = group_alerts(heard(item("A", Status.RESOLVED)), ())
    assert group.states == {GroupState.RESOLVED}


def test_many_alerts_that_all_are_resolved_do_not_fire() -> None:
    """Although not all of them are recorded; the same ones are kept of both."""
    pods = [str(number) for number in range(MAX_OCCURRENCES + 50)]
    record = EMPTY
    for minutes, status in ((0, Status.FIRING), (5, Status.RESOLVED)):
        ordered = pods if status is Status.FIRING else pods[::-1]
        for start in range(0, len(pods), 50):
            alerts = [item("A", status, pod=pod) for pod in ordered[start : start + 50]]
            record = merge(record, heard(*alerts, minutes=minutes + start / 600))
        record = trimmed(record)
        (group,) = group_alerts(record, ())
        firing = MAX_OCCURRENCES if status is Status.FIRING else 0
        assert (group.firing, group.is_firing) == (firing, bool(firing))
        assert group.has_more_firing(NOW)


def test_the_job_of_a_resolved_alert_resolves_the_firing_one() -> None:
    """Whatever its replica labels are, and only if it came later."""
    job = build.remediation(
        alertname="A",
        labels={"alertname": "A", "pod": "1", "prometheus_replica": "b"},
        status=Status.RESOLVED,
        replica_labels=("prometheus_replica",),
        delivered_at=NOW + timedelta(minutes=1),
    )
    fires = heard(item("A", pod="1", prometheus_replica="a"))
    assert [group.firing for group in group_alerts(fires, [job])] == [0]
    again = heard(item("A", pod="1"), minutes=2)
    assert [group.firing for group in group_alerts(again, [job])] == [1]


async def test_an_alert_that_cannot_be_read_may_fire() -> None:
    """It is listed with those that fire, and what is shown of it is not called the alert."""
    problem = "/alerts/0/startsAt: is not a time"
    alert = InvalidAlert(0, "Odd", ("alerts", 0), "/alerts/0/startsAt", "is not a time")
    odd = heard(Item(alert, Outcome.INVALID, Reason.INVALID_ALERT, problem))
    page = await draw(replace(pages.quiet(NOW), alerts=odd), "/alerts?open=all&state=firing")
    assert "not readable" in page.text
    assert "What could be read" in page.text
    assert "not firing" not in page.text
    later = merge(odd, heard(item("Odd", Status.RESOLVED), minutes=1))
    (group,) = group_alerts(later, ())
    assert GroupState.FIRING not in group.states


def test_the_reason_and_message_of_jobs_are_searched() -> None:
    """As those of alerts without a Job are."""
    job = build.remediation(alertname="A", reason="cooldown", message="last Job at 03:00")
    (group,) = group_alerts(EMPTY, [job])
    assert {"cooldown", "last Job at 03:00"} <= set(group.texts())


@pytest.mark.parametrize(
    ("reason", "repeats"),
    [
        (Reason.API_UNAVAILABLE, True),
        (Reason.API_REFUSED, False),
        (Reason.NAME_TAKEN, True),
        (Reason.API_FORBIDDEN, True),
    ],
)
async def test_the_page_says_whether_alertmanager_repeats_a_delivery(
    reason: Reason, *, repeats: bool
) -> None:
    """It does not repeat what was answered with 422."""
    failed = replace(item("A"), outcome=Outcome.ERROR, reason=reason, message="no")
    page = await draw(replace(pages.quiet(NOW), alerts=heard(failed)), "/alerts?open=all")
    assert ("Alertmanager repeats" in page.text) is repeats
    assert ("Alertmanager does not repeat" in page.text) is not repeats


async def test_elements_that_open_have_ids() -> None:
    """Stable and unique ones, so that they stay open when the page is updated."""
    first, again = [await draw(pages.busy(NOW), "/alerts?open=all") for _ in range(2)]
    ids, others = (
        [
            element.attributes["id"]
            for element in page.walk()
            if element.tag == "details" and "data-key" in element.attributes
        ]
        for page in (first, again)
    )
    assert 1 < len(ids) == len(set(ids))
    assert ids == others


def test_jobs_are_grouped_with_alerts_of_the_same_name() -> None:
    """The most recently heard name comes first."""
    shown = pages.busy(NOW)
    groups = group_alerts(shown.unanswered(), shown.remediations())
    names = [group.name for group in groups]
    assert names == sorted(set(names), key=names.index)
    assert {"HighLatency", "KubePodCrashLooping"} <= set(names)
    assert [g.last for g in groups] == sorted((g.last for g in groups), reverse=True)
    crashing = next(group for group in groups if group.name == "KubePodCrashLooping")
    assert crashing.jobs
    assert crashing.kinds


def test_the_strip_shows_when_an_alert_was_heard() -> None:
    """From the first to the last time, in half hours."""
    record = merge(heard(item("A")), heard(item("A"), minutes=90))
    (group,) = group_alerts(record, ())
    cells = [cell for cell, _ in group.strip(NOW + timedelta(hours=24))]
    assert cells == [0, 1, 2, 3]


def test_an_alert_that_came_again_after_its_job_fires() -> None:
    """Until then the Job says that the alert is resolved; the same incident counts once."""
    labels = {"alertname": "A", "pod": "1"}
    job = pages.remediation("A", Phase.SUCCEEDED, NOW, labels=labels)
    job = replace(job, resolved_at=NOW + timedelta(minutes=5))
    (group,) = group_alerts(EMPTY, [job])
    assert (group.firing, group.is_firing) == (0, False)
    for minutes, firing in ((4, 0), (6, 1)):
        (group,) = group_alerts(heard(item("A", pod="1"), minutes=minutes), [job, job])
        assert (group.firing, group.is_firing) == (firing, bool(firing))


async def test_the_page_says_why_there_is_no_job_and_what_to_do() -> None:
    """With the labels of the last alert; groups are open by a link, without JavaScript."""
    shown = pages.busy(NOW)
    closed = await draw(shown, "/alerts?q=HighLatency")
    assert "Open all" in closed.text
    page = await draw(shown, "/alerts?q=HighLatency&open=all&state=unanswered")
    assert "no operario in the active catalog matches this alert and its status" in page.text
    assert "Add an operario for this alert" in page.text
    assert "service=checkout" in page.text
    assert "CertificateExpiresSoon" not in page.text


async def test_hostile_alerts_are_shown_as_text() -> None:
    """Their labels, too."""
    hostile = "<script>alert(1)</script>\u202e"
    shown = replace(pages.quiet(NOW), alerts=heard(item(hostile, pod=hostile)))
    page = await draw(shown, "/alerts?open=all")
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in page.text


async def test_an_empty_page_says_what_to_do() -> None:
    """Nothing came yet."""
    page = await draw(pages.quiet(NOW), "/alerts")
    assert "No alerts yet." in page.text
    assert "send_resolved" in page.text


@pytest.mark.parametrize("address", ["/alerts?state=odd", "/alerts?open=some", "/alerts?page=0"])
async def test_unknown_filters_are_refused(address: str) -> None:
    """A misspelled filter must not hide alerts."""
    async with application(pages.quiet(NOW)) as client:
        answer = await client.get(address, headers={"Accept": "text/html"})
        assert answer.status == 400


async def test_other_clients_get_the_answer_of_openfero() -> None:
    """Its health check reads the text OK."""
    async with application(pages.quiet(NOW)) as client:
        answer = await client.get("/alerts")
        assert (answer.status, await answer.json()) == (200, "OK")


async def test_the_api_has_the_shape_of_openfero() -> None:
    """An array, newest first, with the Job where there is one, and searched by `q`."""
    app = web.Application(middlewares=[problems])
    add_api(app, pages.busy(NOW), OPEN, Turns(), now=lambda: NOW)
    async with TestClient(TestServer(app)) as client:
        entries = await (await client.get("/api/alerts")).json()
        times = [entry["timestamp"] for entry in entries]
        assert times == sorted(times, reverse=True)
        assert {entry["status"] for entry in entries} == {"firing", "resolved"}
        assert {"jobInfo" in entry for entry in entries} == {True, False}
        found = await (await client.get("/api/alerts?q=highlatency&limit=5")).json()
        assert [entry["alert"]["labels"]["alertname"] for entry in found] == ["HighLatency"]
        assert (found[0]["reason"], found[0]["count"]) == ("no-operario", 1)
        assert (await client.get("/api/alerts?limit=0")).status == 400


async def test_the_api_lists_alerts_page_by_page() -> None:
    """The header Link leads to the next page of the array, and all pages together have all."""
    app = web.Application(middlewares=[problems])
    add_api(app, pages.busy(NOW), OPEN, Turns(), now=lambda: NOW)
    async with TestClient(TestServer(app)) as client:
        everything = await (await client.get("/api/alerts?limit=1000")).json()
        read: list[object] = []
        address = URL("/api/alerts?limit=4")
        while True:
            answer = await client.get(address)
            page = await answer.json()
            assert 1 <= len(page) <= 4
            read += page
            if "next" not in answer.links:
                break
            address = URL("/api/alerts").join(URL(answer.headers["Link"].partition(">")[0][1:]))
        assert read == everything


async def test_the_api_has_the_image_of_the_operario_and_searches_values_only() -> None:
    """As OpenFero does; the image is unknown if the operario is not in the catalog any more."""
    shown = pages.busy(NOW)
    container = {"name": "heal", "image": "registry.example/kubectl:1.36"}
    job = {"spec": {"template": {"spec": {"containers": [container]}}}}
    down = pages.operario("openfero-targetdown-firing", "TargetDown", job=job)
    app = web.Application(middlewares=[problems])
    add_api(app, replace(shown, active=pages.catalog(down)), OPEN, Turns(), now=lambda: NOW)
    async with TestClient(TestServer(app)) as client:
        found = await (await client.get("/api/alerts?q=REGISTRY.example/kube")).json()
        assert {entry["jobInfo"]["image"] for entry in found} == {container["image"]}
        assert {entry["alert"]["labels"]["alertname"] for entry in found} == {"TargetDown"}
        others = await (await client.get("/api/alerts?q=unknown")).json()
        assert {entry["jobInfo"]["configMapName"] for entry in others} == {
            job.operario for job in shown.jobs if job.operario != down.name
        }
        assert await (await client.get("/api/alerts?q=alertname")).json() == []

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.author.alert_file import read_alerts
from openfero_gitops.author.explain import as_json
from openfero_gitops.commands.author import CatalogSource, explain_all
from openfero_gitops.delivery.unanswered import UnansweredRecord, record_of
from openfero_gitops.domain.alert import Alert, Status
from openfero_gitops.domain.answer import Item
from openfero_gitops.domain.matcher import Matcher, Operator
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome, Phase
from openfero_gitops.web.api.explain import add_explain
from openfero_gitops.web.bodies import BodyBudget
from openfero_gitops.web.explaining import explain_alerts
from openfero_gitops.web.turns import Turns
from tests.support import pages
from tests.support.build import job_spec
from tests.support.pages import NAMESPACE, Showcase, catalog, operario, remediation, synced
from tests.support.serving import OPEN, serving
from tests.unit.web.test_pages import Element, Reader, application, draw

if TYPE_CHECKING:
    import contextlib

    from aiohttp.test_utils import TestClient

    from openfero_gitops.domain.operario import Operario

SHOP = Matcher("namespace", Operator.EQUAL, "shop")
NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
DISK = {"alertname": "DiskFull", "node": "worker-1", "severity": "critical"}


def answering(**options: Any) -> Operario:
    """An operario for `DISK`, with a Job that can be rendered."""
    return operario(
        "openfero-diskfull-firing",
        "DiskFull",
        job={"spec": job_spec(args=["clean", "$(OPENFERO_NODE)"])},
        options=Options(**options),
    )


def showing(*operarios: Operario, jobs: tuple[Any, ...] = ()) -> Showcase:
    """A replica with these operarios and Jobs."""
    active = catalog(*operarios)
    return Showcase(NOW, active, synced(active, NOW), list(jobs))


def firing(**labels: str) -> dict[str, Any]:
    """An alert as Alertmanager sends it."""
    return {
        "status": "firing",
        "labels": DISK | labels,
        "startsAt": "2026-11-21T03:00:00Z",
    }


def api(state: Showcase) -> contextlib.AbstractAsyncContextManager[TestClient]:
    """Serve the endpoint alone."""
    budget = BodyBudget(2**25)
    return serving(
        lambda app: add_explain(app, state, OPEN, Turns(), now=lambda: NOW, budget=budget)
    )


async def ask(state: Showcase, text: str) -> Element:
    """Paste a text and parse the answer."""
    async with application(state) as client:
        answer = await client.post("/explain", data={"alert": text})
        assert answer.status == 200, await answer.text()
        return Reader(await answer.text()).root


async def test_a_pasted_alert_is_explained() -> None:
    """The answer names the operario, what happens now, and the Job."""
    page = await ask(showing(answering()), json.dumps(firing()))

    answer = page.find("section", "answer")
    assert answer.find("span", "badge").text == "Job starts at once"
    assert "openfero-diskfull-firing (diskfull/firing.yaml) matches and creates Job" in answer.text
    job = answer.find("div", "code").text
    assert "kind: Job" in job
    assert "openfero.io/received-at: <received-at>" in job
    assert json.loads(page.find("textarea", id="alert").text)["labels"] == DISK


async def test_each_candidate_has_its_reason() -> None:
    """An operario that does not match says which matcher, and links to its page."""
    page = await ask(showing(answering(matchers=(SHOP,))), json.dumps(firing()))

    answer = page.find("section", "answer")
    assert answer.find("span", "badge").text == "No Job"
    [other] = answer.find("ul", "lines").all("li")
    assert 'matcher namespace="shop" does not match' in other.text
    assert other.find("a").attributes["href"] == "./operarios/openfero-diskfull-firing"


async def test_the_jobs_of_the_cluster_count() -> None:
    """A limit that is reached now is the reason why the Job waits."""
    other = remediation(
        "DiskFull", Phase.RUNNING, NOW - timedelta(minutes=1), labels=DISK | {"node": "worker-2"}
    )
    page = await ask(showing(answering(max_concurrent=1), jobs=(other,)), json.dumps(firing()))

    answer = page.find("section", "answer")
    assert answer.find("span", "badge").text == "Job waits"
    assert "1 Job of this operario running, max-concurrent is 1" in answer.text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the field is empty"),
        ("{", "the text is not JSON"),
        ('{"labels": {"alertname": 5}}', "/labels/alertname"),
        ('{"alerts": []}', "the payload contains no alert"),
    ],
)
async def test_an_error_names_the_member_and_keeps_the_text(text: str, error: str) -> None:
    """What was pasted stays in the field."""
    page = await ask(showing(answering()), text)

    assert error in page.find("p", id="alert-error").text
    assert page.find("textarea", id="alert").text == text
    assert not page.all("section", "answer")


async def test_a_text_that_is_too_large_is_refused() -> None:
    """The limit is said on the page."""
    async with application(showing(answering())) as client:
        answer = await client.post("/explain", data=io.BytesIO(b"x" * (2**20 + 1)))
        page = Reader(await answer.text()).root

    assert "larger than 1048576 bytes" in page.find("p", id="alert-error").text


async def test_line_ends_of_browsers_are_no_content() -> None:
    """A browser sends CRLF, and gets its text back."""
    text = json.dumps(firing(), indent=1)

    page = await ask(showing(answering()), text.replace("\n", "\r\n"))

    assert json.loads(page.find("textarea", id="alert").text) == firing()
    assert "u000d" not in page.text


async def test_many_alerts_are_cut() -> None:
    """The page explains the first ten, and says so."""
    group = {"alerts": [firing(node=f"worker-{number}") for number in range(12)]}
    page = await ask(showing(answering()), json.dumps(group))

    assert len(page.all("section", "answer")) == 10
    assert page.find("p", "rest").text.startswith("Showing the first 10 of 12 alerts.")


async def test_a_recent_alert_can_be_chosen() -> None:
    """Its link explains the alert of the Job."""
    job = remediation("DiskFull", Phase.SUCCEEDED, NOW - timedelta(hours=2), labels=DISK)
    state = showing(answering(), jobs=(job,))
    page = await draw(state, "/explain")
    link = page.find("ul", "recent").find("a")
    assert link.text == "DiskFull"

    page = await draw(state, "/" + link.attributes["href"].removeprefix("./"))

    assert page.find("section", "answer").find("span", "badge").text == "Job exists"
    assert json.loads(page.find("textarea", id="alert").text)["labels"] == DISK


def without_job(name: str = "HighLatency", **labels: str) -> UnansweredRecord:
    """An alert that no operario matches, and that was heard half an hour ago."""
    alert = Alert(Status.FIRING, {"alertname": name, **labels}, {}, NOW, None, "", "")
    reason = Reason.NO_OPERARIO
    heard = Item(alert, Outcome.NO_MATCH, reason, reason.text)
    return record_of([heard], NOW - timedelta(minutes=30), frozenset())


@pytest.mark.parametrize("name", ["HighLatency", "a/b c&d", ""])
async def test_an_alert_without_a_job_can_be_chosen(name: str) -> None:
    """Its link, which the page of alerts has too, explains the last alert of that kind."""
    state = replace(showing(answering()), alerts=without_job(name, service="shop"))
    page = await draw(state, "/explain")
    entry = page.find("ul", "recent-without-job")
    assert Reason.NO_OPERARIO.text in entry.text
    address = entry.find("a").attributes["href"]
    listed = await draw(state, "/alerts?open=all")
    assert address in [link.attributes["href"] for link in listed.all("a")]

    page = await draw(state, "/" + address.removeprefix("./"))

    assert page.find("section", "answer").find("span", "badge").text == "No Job"
    assert json.loads(page.find("textarea", id="alert").text)["labels"]["service"] == "shop"


async def test_the_reason_may_be_left_out_of_a_sample() -> None:
    """A link that people write has the name and the status."""
    state = replace(showing(answering()), alerts=without_job())
    page = await draw(state, "/explain?sample=HighLatency/firing")
    assert page.find("section", "answer")
    page = await draw(state, "/explain?sample=HighLatency/resolved")
    assert "HighLatency/resolved" in page.find("p", id="alert-error").text


async def test_an_alert_that_was_not_recorded_whole_says_so() -> None:
    """The answer for the alert itself can be another one."""
    whole = replace(showing(answering()), alerts=without_job(service="shop"))
    cut = replace(whole, alerts=without_job(service="x" * 5000))
    address = "/explain?sample=HighLatency/firing"
    assert "recorded whole" in (await draw(cut, address)).text
    assert "recorded whole" not in (await draw(whole, address)).text


async def test_a_job_that_expired_says_so() -> None:
    """A link to a Job that no longer exists explains nothing."""
    page = await draw(showing(answering()), f"/explain?job={NAMESPACE}/gone")

    assert f"there is no Job {NAMESPACE}/gone" in page.find("p", id="alert-error").text


async def test_without_a_catalog_nothing_is_explained() -> None:
    """The page says where the cause is."""
    page = await ask(replace(pages.broken(NOW), jobs=[]), json.dumps(firing()))

    assert "no catalog is active" in page.find("p", id="alert-error").text


async def test_the_answer_is_not_refreshed() -> None:
    """A refresh would load the address, which has no pasted alert."""
    page = await ask(showing(answering()), json.dumps(firing()))

    assert "data-still" in page.find("main").attributes
    assert not page.all("meta", **{"http-equiv": "refresh"})


@pytest.mark.parametrize("status", [Status.FIRING, Status.RESOLVED])
async def test_the_api_and_the_command_explain_the_same(status: Status) -> None:
    """The API answers with the JSON of `openfero-gitops explain`, from the same catalog."""
    state = showing(answering(approval=True), answering(matchers=(SHOP,)))
    payload = json.dumps({**firing(), "status": status.value})
    source = CatalogSource("unused", jobs_namespace=NAMESPACE)
    group = read_alerts(payload.encode())

    async with api(state) as client:
        answer = await client.post("/api/explain", data=payload)
        explained = await answer.json()

    assert explained == as_json(explain_all(state.active, group, source))
    assert "ETag" not in answer.headers  # of what a GET of this address would return


async def test_the_page_shows_the_message_of_the_command() -> None:
    """What the command prints about an alert is on the page, too."""
    state = showing(answering(approval=True), answering(matchers=(SHOP,)))
    group = read_alerts(json.dumps(firing()).encode())
    [explained] = await explain_alerts(state, group, NOW)

    page = await ask(state, json.dumps(firing()))

    text = page.find("section", "answer").text
    assert explained.notes
    for line in (explained.message, *explained.notes):
        assert line in text


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "not JSON"),
        (b'{"labels": {"alertname": 5}}', 400, "/labels/alertname"),
        (b"x" * (2**20 + 1), 413, "larger than"),
        (json.dumps({"alerts": [firing()] * 201}).encode(), 413, "201 alerts"),
    ],
    ids=["no JSON", "wrong member", "too large", "too many"],
)
async def test_the_api_names_what_is_wrong(body: bytes, status: int, detail: str) -> None:
    """An error is a problem document that names the member or the limit."""
    async with api(showing(answering())) as client:
        answer = await client.post("/api/explain", data=io.BytesIO(body))
        assert answer.status == status
        assert detail in (await answer.json(content_type=None))["detail"]


async def test_the_api_without_a_catalog_says_so() -> None:
    """Nothing can be explained before the first sync."""
    async with api(pages.broken(NOW)) as client:
        answer = await client.post("/api/explain", json=firing())
        assert answer.status == 503


async def test_a_browser_sends_the_origin_of_the_form() -> None:
    """Without a referrer it would send none, and the server would refuse the form."""
    async with application(showing(answering())) as client:
        answer = await client.get("/explain")

    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "form-action 'self'" in answer.headers["Content-Security-Policy"]


async def test_hostile_texts_are_texts() -> None:
    """Names and labels of a pasted alert are escaped everywhere."""
    name = pages.SCRIPT
    alert = {"labels": {"alertname": name, pages.ATTRIBUTE: pages.SCRIPT}}
    page = await ask(showing(answering()), json.dumps(alert))

    assert not page.find("main").all("script")
    assert not page.all("img", onerror="document.title='taken'")
    assert name in page.find("textarea", id="alert").text.replace('\\"', '"')

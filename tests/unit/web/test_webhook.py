from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from openfero_gitops.delivery.alertmanager import PayloadLimits
from openfero_gitops.delivery.submitter import DeliveryLimits
from openfero_gitops.domain.alert import Alert, InvalidAlert, Status
from openfero_gitops.domain.answer import Answer, Item, Verdict
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import JobKey, Outcome
from openfero_gitops.metrics import Metrics
from openfero_gitops.tracing import NO_TRACES
from openfero_gitops.web.api.delivery_shape import DeliveryItemShape
from openfero_gitops.web.api.shape import to_json
from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.webhook import TIMEOUT_SECONDS, Intake, add_webhook
from tests.support.depth import scaled
from tests.support.replica import alert, group
from tests.support.serving import OPEN, PROBLEM, Inbox, created, problem, say, serving
from tests.support.workers import until

if TYPE_CHECKING:
    import contextlib
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp.test_utils import TestClient

    from openfero_gitops.ports import Traces

    Client = TestClient[web.Request, web.Application]

BODY = json.dumps(group(alert("HostDown", host="a"))).encode()
HEAD = b"POST /alerts HTTP/1.1\r\nHost: heal\r\n"
JOB = JobKey("openfero-jobs", "hostdown-firing-abc")


def webhook(
    inbox: Inbox,
    *,
    guard: Guard = OPEN,
    counts: Metrics | None = None,
    patience: float = 5.0,
    limits: PayloadLimits | None = None,
    causes: list[str] | None = None,
    traces: Traces = NO_TRACES,
) -> contextlib.AbstractAsyncContextManager[Client]:
    """Serve the webhook alone."""

    def add(app: web.Application) -> None:
        reported = causes if causes is not None else []
        intake = Intake(limits or PayloadLimits(), reported.append)
        add_webhook(
            app,
            inbox,
            counts or Metrics("1.2.3"),
            guard,
            intake,
            timeout_seconds=patience,
            traces=traces,
        )

    return serving(add)


def refused(reason: Reason, verdict: Verdict, message: str) -> Any:
    """Say of every alert that the API server did not take its Job."""

    def tell(alert: Alert) -> Item:
        return Item(alert, Outcome.ERROR, reason, message, "heal", JOB, verdict)

    return tell


# What is answered


@pytest.mark.parametrize("path", ["/alerts", "/alert", "/alerts/", "/alert/"])
async def test_every_alert_is_answered_in_its_order(path: str) -> None:
    """200 has the outcome of each alert; both paths behave the same."""

    def tell(alert: Alert) -> Item:
        if alert.labels.get("host") == "a":
            return created(alert)
        if alert.labels.get("host") == "b":
            return Item(alert, Outcome.EXISTS, operario="heal", job=JOB)
        if alert.labels.get("host") == "c":
            return Item(alert, Outcome.REFUSED, Reason.UNSAFE_VALUE, "label host", "heal", JOB)
        return Item(alert, Outcome.NO_MATCH, Reason.NO_OPERARIO, Reason.NO_OPERARIO.text)

    inbox = Inbox(tell)
    alerts = [alert("HostDown", host=host) for host in "abc"] + [alert("Odd Näme", "resolved")]
    async with webhook(inbox) as client:
        answer = await client.post(path, json=group(*alerts))
        assert answer.status == 200
        assert answer.content_type == "application/json"
        body = await answer.json()
    common = {"alertname": "HostDown", "status": "firing", "fingerprint": "0123456789abcdef"}
    job = {"namespace": "openfero-jobs", "job": "hostdown-firing-abc"}
    assert body == {
        "items": [
            common
            | {"outcome": "created", "operario": "heal", "reason": None, "message": None}
            | job,
            common
            | {"outcome": "exists", "operario": "heal", "reason": None, "message": None}
            | job,
            common
            | {
                "outcome": "refused",
                "operario": "heal",
                "reason": "unsafe-value",
                "message": "label host",
            }
            | job,
            {
                "alertname": "Odd Näme",
                "status": "resolved",
                "fingerprint": "0123456789abcdef",
                "outcome": "no-match",
                "operario": None,
                "namespace": None,
                "job": None,
                "reason": "no-operario",
                "message": "no operario in the active catalog matches this alert and its status",
            },
        ]
    }
    assert [to_json(DeliveryItemShape(**item)) for item in body["items"]] == body["items"]
    (taken,) = inbox.groups
    assert [alert.status for alert in taken.alerts] == [*[Status.FIRING] * 3, Status.RESOLVED]


async def test_a_job_that_is_wrong_is_named() -> None:
    """422 names the Job and the API server's message; the other alerts have their Jobs."""

    def tell(alert: Alert) -> Item:
        if alert.labels["host"] == "a":
            return created(alert)
        return refused(Reason.API_REFUSED, Verdict.UNPROCESSABLE, "spec: «no»")(alert)

    async with webhook(Inbox(tell)) as client:
        answer = await client.post(
            "/alerts", json=group(alert("HostDown", host="a"), alert("HostDown", host="b"))
        )
        assert (answer.status, answer.content_type) == (422, PROBLEM)
        body = problem(await answer.text(), 422)
    assert body["title"] == "Unprocessable Entity"
    assert body["detail"] == (
        "1 of 2 alerts have no Job (fix the operario): HostDown, Job "
        "openfero-jobs/hostdown-firing-abc: api-refused: spec: «no»"
    )
    assert [item["outcome"] for item in body["items"]] == ["created", "error"]
    assert body["items"][1]["reason"] == "api-refused"


async def test_an_alert_that_cannot_be_read_is_named() -> None:
    """422 says which alert is invalid and why."""

    def tell(alert: Alert) -> Item:
        if alert.name == "A":
            return created(alert)
        invalid = InvalidAlert(1, "B", (), "/alerts/1/labels/a", "must be a string")
        reason, message = Reason.INVALID_ALERT, "/alerts/1/labels/a: must be a string"
        verdict = Verdict.UNPROCESSABLE
        return Item(invalid, Outcome.INVALID, reason, message, verdict=verdict)

    async with webhook(Inbox(tell)) as client:
        answer = await client.post("/alerts", json=group(alert("A"), alert("B")))
        body = problem(await answer.text(), 422)
    assert body["detail"] == (
        "1 of 2 alerts have no Job (correct the alert): B: invalid-alert: "
        "/alerts/1/labels/a: must be a string"
    )
    assert body["items"][1] == {
        "alertname": "B",
        "status": None,
        "fingerprint": "",
        "outcome": "invalid",
        "operario": None,
        "namespace": None,
        "job": None,
        "reason": "invalid-alert",
        "message": "/alerts/1/labels/a: must be a string",
    }


async def test_repeating_wins_over_mending() -> None:
    """Where one Job is wrong and another could not be stored, 503 makes Alertmanager repeat."""
    verdicts = {
        "a": refused(Reason.API_REFUSED, Verdict.UNPROCESSABLE, "never"),
        "b": refused(Reason.API_FORBIDDEN, Verdict.REPEAT, "quota"),
        "c": created,
    }
    inbox = Inbox(lambda alert: verdicts[alert.labels["host"]](alert))
    async with webhook(inbox) as client:
        answer = await client.post("/alerts", json=group(*(alert("A", host=h) for h in "abc")))
        body = problem(await answer.text(), 503)
    assert answer.status == 503
    assert "2 of 3 alerts have no Job (repeat the delivery)" in body["detail"]
    assert body["detail"].endswith("api-forbidden: quota")
    assert len(body["items"]) == 3


async def test_each_alert_of_a_large_answer_is_looked_at_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time for an answer grows with its alerts, also if only the last one has no Job."""
    verdicts = 0
    verdict_of = Answer.verdict.fget

    def count(answer: Answer) -> Verdict:
        nonlocal verdicts
        verdicts += 1
        return verdict_of(answer)

    def tell(alert: Alert) -> Item:
        if alert.labels["host"] == "h49":
            return Item(alert, Outcome.ERROR, Reason.API_UNAVAILABLE, verdict=Verdict.REPEAT)
        return created(alert)

    monkeypatch.setattr(Answer, "verdict", property(count))
    async with webhook(Inbox(tell)) as client:
        alerts = [alert("HostDown", host=f"h{number}") for number in range(50)]
        answer = await client.post("/alerts", json=group(*alerts))
    assert answer.status == 503
    assert verdicts == 1


async def test_an_alert_without_a_name_can_be_told_of() -> None:
    """An error about an alert without a name, and without a Job, is still a full sentence."""
    inbox = Inbox(
        lambda alert: Item(alert, Outcome.ERROR, Reason.BUSY, "too many", verdict=Verdict.REPEAT)
    )
    async with webhook(inbox) as client:
        answer = await client.post("/alerts", json={"status": "firing", "labels": {}})
        body = problem(await answer.text(), 503)
    assert body["detail"] == (
        "1 of 1 alerts have no Job (repeat the delivery): an alert without a name: busy: too many"
    )


async def test_half_a_character_does_not_lose_the_answer() -> None:
    """Lone surrogates are escaped in errors, as in other answers."""
    inbox = Inbox(refused(Reason.API_REFUSED, Verdict.UNPROCESSABLE, "half \ud800"))
    async with webhook(inbox) as client:
        answer = await client.post("/alerts", data=BODY)
        assert answer.status == 422
        assert "half \ud800" in json.loads(await answer.read())["detail"]


@pytest.mark.parametrize("body", [group(), group(truncatedAlerts=7)])
async def test_a_delivery_without_alerts_is_taken(body: dict[str, Any]) -> None:
    """A delivery without alerts is accepted, also if Alertmanager left all of them out."""
    inbox = Inbox()
    async with webhook(inbox) as client:
        answer = await client.post("/alerts", json=body)
        assert (answer.status, await answer.json()) == (200, {"items": []})
    assert inbox.groups[0].truncated_alerts == body["truncatedAlerts"]


async def test_openferos_get_is_answered() -> None:
    """GET /alerts answers "OK" as JSON, and HEAD the same without a body."""
    async with webhook(Inbox()) as client:
        answer = await client.get("/alerts")
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == "OK"
        assert (await client.head("/alerts")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, "/alerts", "GET, HEAD, POST") for method in ("PUT", "PATCH", "DELETE")),
        *((method, "/alert", "POST") for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE")),
        ("OPTIONS", "/alerts", "GET, HEAD, POST"),
    ],
)
async def test_other_methods_are_refused(method: str, path: str, allowed: str) -> None:
    """405 says which methods there are, and nothing is taken."""
    inbox = Inbox()
    async with webhook(inbox) as client:
        answer = await client.request(method, path, data=BODY)
        assert (answer.status, answer.content_type) == (405, PROBLEM)
        assert answer.headers["Allow"] == allowed
        if method != "HEAD":
            body = problem(await answer.text(), 405)
            assert body["detail"] == f"{path} does not support {method}; use {allowed}"
    assert not inbox.groups


# What cannot be read


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is not JSON: it is empty"),
        (gzip.compress(b"{}", mtime=0), "it is compressed (gzip); send it uncompressed"),
        (b"not json", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not a JSON object"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"alerts": 1}', "at /alerts"),
        (b'{"alerts": [{"labels": {}}, 1]}', "at /alerts/1"),
        (b'{"alerts": [{"labels": 1}]}', "at /alerts/0"),
        (b"null", "not a JSON object"),
    ],
)
async def test_what_is_no_payload_is_refused(body: bytes, detail: str) -> None:
    """400 says which member is wrong, is not repeated by Alertmanager, and is logged."""
    inbox, counts = Inbox(), Metrics("1.2.3")
    with capture_logs() as log:
        async with webhook(inbox, counts=counts) as client:
            answer = await client.post("/alerts", data=body)
            assert (answer.status, answer.content_type) == (400, PROBLEM)
            body = problem(await answer.text(), 400)
    assert detail in body["detail"]
    assert body["items"] == []
    assert not inbox.groups
    assert [(line["event"], line["code"]) for line in log] == [("delivery refused", 400)]
    assert b'openfero_gitops_deliveries_total{code="400"} 1.0' in counts.expose()


@settings(max_examples=scaled(5))
@given(bodies=st.lists(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), max_size=8))
def test_no_bytes_are_a_defect(bodies: list[bytes]) -> None:
    """Any body is accepted or refused with an answer."""

    async def post() -> list[int]:
        async with webhook(Inbox()) as client:
            return [(await client.post("/alerts", data=body)).status for body in bodies]

    assert set(asyncio.run(post())) <= {200, 400}


async def test_the_largest_body_is_taken() -> None:
    """A body of exactly the limit is read, one byte more is 413, with a length or in chunks."""
    limit = 2000
    inbox, counts, causes = Inbox(), Metrics("1.2.3"), list[str]()

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    limits = PayloadLimits(size=limit)
    async with webhook(inbox, limits=limits, counts=counts, causes=causes) as client:
        for body in (BODY.ljust(limit), chunks(BODY.ljust(limit))):
            assert (await client.post("/alerts", data=body)).status == 200
        for body in (BODY.ljust(limit + 1), chunks(BODY.ljust(limit + 1))):
            answer = await client.post("/alerts", data=body)
            assert (answer.status, answer.content_type) == (413, PROBLEM)
            error = problem(await answer.text(), 413)
            assert error["detail"].startswith("the body is larger than 2000 bytes; set max_alerts")
            assert (error["reason"], error["items"]) == ("too-large", [])
    assert len(inbox.groups) == 2
    assert causes == ["too-large"] * 2
    assert b'deliveries_refused_total{cause="too-large"} 2.0' in counts.expose()


async def test_too_many_alerts_are_refused_whole() -> None:
    """413 names Alertmanager's max_alerts: a part of the alerts would be lost."""
    inbox, causes = Inbox(), list[str]()
    two, three = (group(*(alert("A", host=host) for host in hosts)) for hosts in ("ab", "abc"))
    with capture_logs() as log:
        async with webhook(inbox, limits=PayloadLimits(alerts=2), causes=causes) as client:
            assert (await client.post("/alerts", json=two)).status == 200
            answer = await client.post("/alerts", json=three)
            error = problem(await answer.text(), 413)
    assert "more than 2 alerts; set max_alerts: 2 for this receiver" in error["detail"]
    assert error["reason"] == "too-many-alerts"
    assert len(inbox.groups) == 1
    assert causes == ["too-many-alerts"]
    (line,) = (line for line in log if line["event"] == "delivery refused")
    assert (line["code"], line["sender"]) == (413, "127.0.0.1")


async def test_a_body_in_chunks_is_read() -> None:
    """Chunks of a single byte make the same delivery."""

    async def bytewise() -> AsyncIterator[bytes]:
        for start in range(len(BODY)):
            yield BODY[start : start + 1]

    inbox = Inbox()
    async with webhook(inbox) as client:
        assert (await client.post("/alerts", data=bytewise())).status == 200
    assert inbox.groups[0].alerts[0].labels == {"alertname": "HostDown", "host": "a"}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("gzip", b"nothing"),
        ("gzip", gzip.compress(bytes(1_000_000)) * 100),
        ("br", BODY),
        ("rot13", BODY),
    ],
    # gzip writes the time, and every process of a test run must find the same names.
    ids=["gzip", "deflate", "not-gzip", "bomb", "br", "unknown"],
)
async def test_a_compressed_body_is_refused(encoding: str, body: bytes) -> None:
    """A compressed body is answered with 415, because it could exceed the limit."""
    inbox = Inbox()
    async with webhook(inbox) as client:
        answer = await client.post("/alerts", data=body, headers={"Content-Encoding": encoding})
        assert (answer.status, answer.content_type) == (415, PROBLEM)
        assert answer.headers["Accept-Encoding"] == "identity"
        refusal = problem(await answer.text(), 415)
        assert refusal["items"] == []
        words = f"the body is compressed (Content-Encoding: {encoding}); send it uncompressed"
        assert refusal["detail"] == words
        plain = {"Content-Encoding": "Identity"}
        assert (await client.post("/alerts", data=BODY, headers=plain)).status == 200
    assert len(inbox.groups) == 1


# Senders that lie, break off, or are slow


async def test_a_sender_that_dies_in_mid_body() -> None:
    """A body that ends too early is not delivered, whatever part of it came, and is no defect."""
    inbox = Inbox()
    whole = json.dumps({"status": "firing", "labels": {"alertname": "A"}}).encode()
    with capture_logs() as log:
        async with webhook(inbox) as client:
            port = client.server.port
            assert port
            for head, body in (
                (b"Content-Length: 5000\r\n\r\n", whole),
                (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n" % (len(whole), whole)),
                (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nab"),
            ):
                assert await say(port, HEAD + head + body, end=True) == b""
    assert not inbox.groups
    assert [(line["event"], line["log_level"]) for line in log] == [
        ("client disconnected", "info")
    ] * 3


async def test_a_sender_that_never_ends_its_body() -> None:
    """A body that does not come is waited for no longer than Alertmanager waits for us: 503."""
    inbox, counts = Inbox(), Metrics("1.2.3")
    with capture_logs() as log:
        async with webhook(inbox, counts=counts, patience=0.3) as client:
            port = client.server.port
            assert port
            answer = await say(port, HEAD + b"Content-Length: 5000\r\n\r\n" + BODY)
    assert answer.startswith(b"HTTP/1.1 503 ")
    body = problem(answer.partition(b"\r\n\r\n")[2], 503)
    assert body["detail"] == "the delivery was not processed within 0.3 s; repeat it"
    assert body["items"] == []
    assert not inbox.groups
    assert [line["event"] for line in log] == ["delivery timed out"]
    assert b'openfero_gitops_deliveries_total{code="503"} 1.0' in counts.expose()


async def test_work_that_takes_too_long_is_cut_off() -> None:
    """The sender gets 503 in time, the work is cancelled, and the log line leads to the trace."""
    inbox = Inbox(pause=60)
    traces = Mock(wraps=NO_TRACES, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    with capture_logs() as log:
        async with webhook(inbox, patience=0.2, traces=traces) as client:
            assert (await client.post("/alerts", data=BODY)).status == 503
    assert inbox.cut_off == 1
    assert [(line["event"], line["trace_id"]) for line in log] == [("delivery timed out", "a" * 32)]


def test_the_senders_patience_lasts() -> None:
    """The answer is sent within 9 s, and the submitter times out before that."""
    assert DeliveryLimits().deadline_seconds < TIMEOUT_SECONDS <= 9


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -5\r\n\r\n",
        b"Content-Length: five\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n",
    ],
)
async def test_lengths_that_make_no_sense(head: bytes) -> None:
    """Who does not say one length is refused, and the connection is closed: no request hides."""
    inbox = Inbox()
    hidden = b"POST /alerts HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    async with webhook(inbox) as client:
        port = client.server.port
        assert port
        answer = await say(port, HEAD + head + hidden)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    assert answer.count(b"HTTP/1.") == 1
    assert not inbox.groups


async def test_a_body_longer_than_it_says() -> None:
    """What comes after the stated length is no part of the body, and no request either."""
    inbox = Inbox()
    async with webhook(inbox) as client:
        port = client.server.port
        assert port
        length = b"Content-Length: %d\r\n\r\n" % len(BODY)
        answer = await say(port, HEAD + length + BODY, b'{"more": 1}\r\n\r\n')
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.0 400 " in answer
    assert len(inbox.groups) == 1


async def test_a_sender_that_asks_first() -> None:
    """`Expect: 100-continue`, as curl sends it with larger bodies, is answered."""
    async with webhook(Inbox()) as client:
        answer = await client.post("/alerts", data=BODY, expect100=True)
        assert answer.status == 200


async def test_a_slow_delivery_holds_up_no_other() -> None:
    """Deliveries are taken side by side."""
    slow, quick = Inbox(pause=0.5), Inbox()
    intake = Intake(PayloadLimits())

    def add(app: web.Application) -> None:
        add_webhook(app, slow, Metrics("1"), OPEN, intake)
        other = web.Application()
        add_webhook(other, quick, Metrics("1"), OPEN, intake)
        app.add_subapp("/quick", other)

    async with serving(add) as client:
        waiting = asyncio.create_task(client.post("/alerts", data=BODY))
        assert (await client.post("/quick/alerts", data=BODY)).status == 200
        assert not waiting.done()
        assert (await waiting).status == 200


async def test_a_sender_that_does_not_wait() -> None:
    """A delivery is completed after the client has disconnected, and this is not an error."""
    inbox = Inbox(pause=0.1)
    with capture_logs() as log:
        async with webhook(inbox) as client:
            port = client.server.port
            assert port
            length = b"Content-Length: %d\r\n\r\n" % len(BODY)
            await say(port, HEAD + length + BODY, patience=0.05)
            await until(lambda: log)
    assert (len(inbox.groups), inbox.cut_off) == (1, 0)
    assert [line["event"] for line in log] == ["delivery"]


# Who may


async def test_without_credentials_nothing_is_read(tmp_path: Path) -> None:
    """401 comes before the body is looked at, says how to log in, and no credential is logged."""
    file = tmp_path / "token"
    file.write_text("right\n")
    guard = Guard(Credentials("bearer", file), certificate=False)
    inbox, counts = Inbox(), Metrics("1.2.3")
    with capture_logs() as log:
        async with webhook(inbox, guard=guard, counts=counts) as client:
            wrong = {"Authorization": "Bearer wrong-token"}
            for path in ("/alerts", "/alert"):
                answer = await client.post(path, data=b"not json", headers=wrong)
                assert (answer.status, answer.content_type) == (401, PROBLEM)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert problem(await answer.text(), 401)["items"] == []
            assert (await client.get("/alerts")).status == 401
            assert not inbox.groups
            right = {"Authorization": "Bearer right"}
            assert (await client.post("/alerts", data=BODY, headers=right)).status == 200
            assert (await client.get("/alerts", headers=right)).status == 200
    assert [line["event"] for line in log] == ["delivery refused"] * 2 + ["delivery"]
    assert "wrong-token" not in str(log)
    assert b'openfero_gitops_deliveries_total{code="401"} 2.0' in counts.expose()


# Defects


async def test_a_defect_of_ours_is_500_and_says_nothing() -> None:
    """What went wrong inside is in the log with its traceback, and not in the answer."""
    with capture_logs() as log:
        async with webhook(Inbox(failure=KeyError("s3cret"))) as client:
            answer = await client.post("/alerts", data=BODY)
            assert (answer.status, answer.content_type) == (500, PROBLEM)
            assert "s3cret" not in await answer.text()
    assert [(line["event"], line["log_level"]) for line in log] == [("internal error", "error")]
    assert log[0]["exc_info"]


async def test_a_broken_connection_of_ours_is_a_defect_too() -> None:
    """An error of a connection that is not the caller's is not taken for the caller's end."""
    with capture_logs() as log:
        async with webhook(Inbox(failure=ConnectionResetError("elsewhere"))) as client:
            assert (await client.post("/alerts", data=BODY)).status == 500
    assert [line["event"] for line in log] == ["internal error"]


async def test_each_delivery_is_one_log_line() -> None:
    """The log counts the outcomes of a delivery and names its status."""

    def tell(alert: Alert) -> Item:
        return created(alert) if "host" in alert.labels else Item(alert, Outcome.NO_MATCH)

    with capture_logs() as log:
        async with webhook(Inbox(tell)) as client:
            await client.post("/alerts", json=group(alert("A", host="a"), alert("B"), alert("C")))
    (line,) = log
    assert line.pop("seconds") < 60
    assert line == {
        "event": "delivery",
        "log_level": "info",
        "code": 200,
        "alerts": 3,
        "created": 1,
        "no-match": 2,
    }

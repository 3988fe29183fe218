"""Requests that reach no handler, above all deliveries to a wrong path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from yarl import URL

from openfero_gitops.metrics import Metrics
from openfero_gitops.web.auth import Credentials, Guard
from openfero_gitops.web.server import Address
from tests.support.replica import alert, group
from tests.support.serving import Inbox, local_server, problem

if TYPE_CHECKING:
    from pathlib import Path

    from openfero_gitops.web.server import Server

HINT = (
    "; Alertmanager must send its deliveries to /alerts, and a forge its push hooks to /hooks/git, "
    "both on the address of --listen"
)
BODY = group(alert("HostDown"))
LOOPBACK = Address("127.0.0.1", 0)


async def post(server: Server, *paths: str, listener: int = 0, **options: Any) -> list[Any]:
    """Start a server, POST a delivery to each path, and return its answers as problems."""
    await server.start()
    answers = []
    try:
        base = f"http://127.0.0.1:{server.bound[listener].port}"
        options = {"json": BODY, "method": "POST", **options}
        async with aiohttp.ClientSession() as client:
            for path in paths:
                url = URL(base + path, encoded=True)
                async with client.request(url=url, **options) as answer:
                    text = await answer.text()
                    answers.append(problem(text, answer.status))
    finally:
        await server.stop()
    return answers


def refusals(log: list[Any]) -> list[tuple[int, str]]:
    """Return code and path of the refusals that were logged."""
    return [(entry["code"], entry["path"]) for entry in log if entry["event"] == "delivery refused"]


def counted(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the number of refused requests by path and code."""
    return {
        (sample.labels["path"], sample.labels["code"]): sample.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
        if sample.name == "openfero_gitops_requests_refused_total"
    }


@pytest.mark.parametrize(
    ("path", "code", "detail"),
    [
        ("/webhook", 404, "there is no /webhook"),
        ("/api/v1/alerts", 404, "there is no /api/v1/alerts"),
        ("/Alerts", 404, "there is no /Alerts"),
        ("//alerts", 404, "there is no //alerts"),
        ("/alerts/x", 404, "there is no /alerts/x"),
        ("/hooks/github", 404, "there is no /hooks/github"),
        ("/", 405, "/ does not support POST; use GET, HEAD"),
        ("/readyz", 405, "/readyz does not support POST; use GET, HEAD"),
        ("/%0Ainfo%1b[31m", 404, "there is no /\\ninfo\\x1b[31m"),
        ("/%E2%80%AE", 404, "there is no /\\u202e"),
    ],
)
async def test_a_delivery_to_a_wrong_path_is_logged_and_counted(
    path: str, code: int, detail: str
) -> None:
    """The answer and the log entry say where deliveries go; the metric names the path."""
    inbox, metrics = Inbox(), Metrics("1.2.3")
    with capture_logs() as log:
        (answer,) = await post(local_server(deliveries=inbox, exposition=metrics), path)
    assert (answer["status"], answer["detail"]) == (code, detail + HINT)
    (entry,) = [entry for entry in log if entry["event"] == "delivery refused"]
    assert entry["error"] == detail + HINT
    assert (entry["code"], entry["sender"], entry["log_level"]) == (code, "127.0.0.1", "warning")
    assert "\n" not in entry["path"]
    assert counted(metrics) == {(entry["path"], str(code)): 1}
    assert not inbox.groups


async def test_a_delivery_to_the_pages_is_logged_and_counted() -> None:
    """The port of the pages is a likely mistake."""
    metrics = Metrics("1.2.3")
    with capture_logs() as log:
        server = local_server(exposition=metrics, web_listen=LOOPBACK)
        (answer,) = await post(server, "/alerts", listener=1)
    assert answer["detail"] == "/alerts does not support POST; use GET, HEAD" + HINT
    assert refusals(log) == [(405, "/alerts")]
    assert counted(metrics) == {("/alerts", "405"): 1}


async def test_a_refusal_of_the_webhook_is_counted_with_its_path(tmp_path: Path) -> None:
    """It is logged once, by the webhook."""
    metrics = Metrics("1.2.3")
    (tmp_path / "token").write_text("a-secret-token")
    guard = Guard(Credentials("bearer", tmp_path / "token"), certificate=False)
    with capture_logs() as log:
        server = local_server(exposition=metrics, webhook_guard=guard)
        await post(server, "/alerts", "/alert/")
    assert refusals(log) == [(401, "/alerts"), (401, "/alert/")]
    assert counted(metrics) == {("/alerts", "401"): 1, ("/alert/", "401"): 1}


async def test_a_delivery_that_is_refused_for_its_host_is_logged() -> None:
    """Nothing but the log shows that a listener on loopback accepts no other name."""
    metrics = Metrics("1.2.3")
    with capture_logs() as log:
        server = local_server(exposition=metrics)
        (answer,) = await post(server, "/alerts", headers={"Host": "openfero.example.com"})
    assert answer["status"] == 403
    assert refusals(log) == [(403, "/alerts")]
    assert counted(metrics) == {("/alerts", "403"): 1}


async def test_a_path_is_logged_once_a_minute() -> None:
    """Alertmanager delivers to the wrong path for as long as nobody corrects it."""
    metrics = Metrics("1.2.3")
    with capture_logs() as log:
        server = local_server(exposition=metrics)
        await post(server, "/webhook", "/webhook", "/other", "/webhook")
    assert refusals(log) == [(404, "/webhook"), (404, "/other")]
    assert counted(metrics)["/webhook", "404"] == 3


async def test_a_scanner_fills_neither_log_nor_metrics() -> None:
    """Beyond some different paths, all others are one, and long paths are cut."""
    metrics = Metrics("1.2.3")
    paths = [f"/{number}" for number in range(100)] + ["/" + "x" * 4000]
    with capture_logs() as log:
        await post(local_server(exposition=metrics), *paths)
    assert len(refusals(log)) == 21
    numbers = counted(metrics)
    assert len(numbers) == 21
    assert numbers["other", "404"] == 81
    assert sum(numbers.values()) == 101
    assert len(json.dumps(log)) < 21 * 1000


async def test_reading_is_not_counted() -> None:
    """A GET is no delivery: a browser that asks for an icon is not reported."""
    metrics = Metrics("1.2.3")
    with capture_logs() as log:
        server = local_server(exposition=metrics)
        await post(server, "/favicon.ico", method="GET", json=None)
    assert refusals(log) == []
    assert counted(metrics) == {}

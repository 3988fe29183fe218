"""Traces as a collector receives them."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.baggage import get_all
from structlog.testing import capture_logs

from openfero_gitops.otel import OpenTelemetryTraces
from tests.support.otlp import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
NOT_SAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Receive the spans of this process."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


async def exported(collector: Collector, traces: OpenTelemetryTraces) -> dict[str, Any]:
    """Stop the traces and return the spans by name."""
    await traces.stop()
    return {span.name: span for span in collector.spans}


async def test_steps_are_nested(collector: Collector) -> None:
    """A step belongs to the step of its task; each has its attributes, a failure its message."""
    traces = OpenTelemetryTraces("replica-a", "1.2.3")
    with traces.delivery("POST", "/alerts", {}) as delivery:
        delivery.set({"http.response.status_code": 503})
        delivery.fail("repeat")
        with (
            pytest.raises(ValueError, match="wrong"),
            traces.step("match", {"openfero.alert": "A"}),
        ):
            raise ValueError("wrong")

        async def wait() -> None:
            with traces.step("create"):
                await asyncio.sleep(3600)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    spans = await exported(collector, traces)
    root = spans["POST /alerts"]
    assert (root.kind, root.parent, root.failure) == ("SERVER", "", "repeat")
    assert root.attributes == {
        "http.request.method": "POST",
        "url.path": "/alerts",
        "http.response.status_code": 503,
    }
    assert {spans[name].parent for name in ("match", "create")} == {root.id}
    assert {span.trace for span in spans.values()} == {root.trace}
    assert spans["match"].failure == "ValueError: wrong"
    assert spans["match"].attributes == {"openfero.alert": "A"}
    assert spans["create"].failure == "cancelled"
    names = ("service.name", "service.version", "service.instance.id")
    assert [root.resource[name] for name in names] == ["openfero-gitops", "1.2.3", "replica-a"]


async def test_a_trace_is_continued(collector: Collector) -> None:
    """A request's header, and what a Job carries, continue their trace; links lead to others."""
    traces = OpenTelemetryTraces("replica-a", "1")
    with traces.delivery("POST", "/alerts", {"traceparent": SAMPLED}):
        carried = traces.traceparent
    assert traces.traceparent == ""
    with traces.step("admit", {}, after=carried):
        pass
    traces.past(
        "run", NOON, NOON + timedelta(seconds=2, microseconds=1), {}, after=carried, failure="no"
    )
    with traces.delivery("POST", "/alert", {}) as repeated:
        repeated.link(carried)
        repeated.link("")
        repeated.link("garbage")
    spans = await exported(collector, traces)
    root = spans["POST /alerts"]
    assert (root.trace, root.parent) == (TRACE, "b7ad6b7169203331")
    assert carried == f"00-{TRACE}-{root.id}-01"
    assert {spans[name].parent for name in ("admit", "run")} == {root.id}
    assert spans["run"].end - spans["run"].start == 2_000_001_000
    assert spans["run"].start == int(NOON.timestamp()) * 10**9
    assert spans["run"].failure == "no"
    assert spans["POST /alert"].links == [TRACE]
    assert spans["POST /alert"].trace != TRACE


@pytest.mark.parametrize("carried", ["", "garbage", NOT_SAMPLED, "00-" + "0" * 32 + "-1-01"])
async def test_a_job_without_a_sampled_trace_is_not_traced(
    collector: Collector, carried: str
) -> None:
    """What happens to it begins no trace of its own."""
    traces = OpenTelemetryTraces("replica-a", "1")
    with traces.step("admit", {}, after=carried):
        assert traces.traceparent == ""
    traces.past("run", NOON, NOON, {}, after=carried)
    await traces.stop()
    assert collector.requests == 0


async def test_a_sender_that_does_not_sample(collector: Collector) -> None:
    """Its deliveries are not traced, and their Jobs carry no trace."""
    traces = OpenTelemetryTraces("replica-a", "1")
    with traces.delivery("POST", "/alerts", {"traceparent": NOT_SAMPLED}), traces.step("submit"):
        assert traces.traceparent == ""
    await traces.stop()
    assert collector.requests == 0


@pytest.mark.parametrize(
    "header",
    [
        {"baggage": "not,a=b;=;baggage " * 9},
        {"traceparent": SAMPLED * 50},
        {"tracestate": "not a=state"},
        {"tracestate": "a=" + "b" * 9000},
        {"tracestate": ",".join(f"key{number}=a" for number in range(40))},
    ],
    ids=["baggage", "long parent", "state", "long state", "many states"],
)
async def test_malformed_headers_of_a_sender_are_not_logged(
    collector: Collector, caplog: pytest.LogCaptureFixture, header: dict[str, str]
) -> None:
    """It could fill the log; the delivery is traced nevertheless, without any baggage."""
    traces = OpenTelemetryTraces("replica-a", "1")
    with traces.delivery("POST", "/alerts", {"traceparent": SAMPLED, **header}):
        assert get_all() == {}
    span = (await exported(collector, traces))["POST /alerts"]
    assert (span.trace == TRACE) == ("traceparent" not in header)
    assert caplog.text == ""


async def test_the_environment_names_the_service(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of the SDK take precedence over what the controller sets."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "healer")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    traces = OpenTelemetryTraces("replica-a", "1")
    with traces.delivery("POST", "/alerts", {}):
        pass
    span = (await exported(collector, traces))["POST /alerts"]
    assert span.resource["service.name"] == "healer"
    assert span.resource["service.instance.id"] == "replica-a"
    assert span.resource["deployment.environment.name"] == "test"


async def test_a_collector_that_refuses_spans(collector: Collector) -> None:
    """That is logged when it begins, not for each batch of spans."""
    traces = OpenTelemetryTraces("replica-a", "1")
    with capture_logs() as log:
        for status in (400, 400, 401, 200, 401):
            collector.status = status
            with traces.delivery("POST", "/alerts", {}):
                pass
            traces._provider.force_flush()
    await traces.stop()
    assert collector.requests == 5
    assert [(line["event"], line["error"]) for line in log] == [
        ("traces cannot be exported", f"Failed to export spans batch code: {code}, reason: {why}")
        for code, why in ((400, "Bad Request"), (401, "Unauthorized"), (401, "Unauthorized"))
    ]


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        (
            {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization: Bearer s3cr3t"},
            [{"variable": "OTEL_EXPORTER_OTLP_HEADERS"}],
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=other",
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=b,s3cr3t",
            },
            [{"variable": "OTEL_EXPORTER_OTLP_TRACES_HEADERS"}],
        ),
        (
            {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20s3%0Acr3t"},
            [
                {
                    "error": "Failed to export spans batch code: None, reason: Invalid leading "
                    "whitespace, reserved character(s), or return character(s)"
                }
            ],
        ),
    ],
)
async def test_an_invalid_header_is_logged_without_its_value(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    lines: list[dict[str, str]],
) -> None:
    """It may be the token for the collector; the line names the variable."""
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    logging.getLogger("opentelemetry.util.re").propagate = True
    with capture_logs() as log:
        traces = OpenTelemetryTraces("replica-a", "1")
        with traces.delivery("POST", "/alerts", {}):
            pass
        traces._provider.force_flush()
    await traces.stop()
    assert collector.requests == ("error" not in lines[0])
    kept = [{k: v for k, v in line.items() if k in {"variable", "error"}} for line in log]
    assert kept == lines
    assert caplog.text == ""


async def test_a_collector_that_does_not_answer(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that stops waits for it only so long; what is still being sent may be lost."""
    monkeypatch.setattr("openfero_gitops.otel._STOP_SECONDS", 0.1)
    collector.answering.clear()
    traces = OpenTelemetryTraces("replica-a", "1")
    with traces.delivery("POST", "/alerts", {}):
        pass
    await traces.stop()
    [sending] = [each for each in threading.enumerate() if each.name == "stop exporting traces"]
    assert sending.daemon
    assert collector.spans == []
    collector.answering.set()
    await asyncio.to_thread(sending.join)

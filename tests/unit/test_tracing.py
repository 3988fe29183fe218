"""When traces are exported, and that nothing is loaded otherwise."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from openfero_gitops.otel import OpenTelemetryTraces
from openfero_gitops.tracing import NO_TRACES, start_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

URL = "http://127.0.0.1:9"  # nobody listens; no span is made


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "openfero"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_traces_are_off(environment: Mapping[str, str]) -> None:
    """Without an endpoint, or if the environment says so, nothing is exported or logged."""
    with capture_logs() as log:
        assert start_tracing(environment, "replica-a", "1") is NO_TRACES
    assert log == []


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": URL,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        },
    ],
)
async def test_traces_are_on(environment: Mapping[str, str]) -> None:
    """An endpoint, or the exporter otlp, switches traces on."""
    with capture_logs() as log:
        traces = start_tracing(environment, "replica-a", "1")
    await traces.stop()
    assert isinstance(traces, OpenTelemetryTraces)
    assert [line["event"] for line in log] == ["traces are exported"]


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            'OTEL_TRACES_EXPORTER is "zipkin"; supported are otlp and none',
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            'OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"; use http/protobuf',
        ),
    ],
)
def test_what_is_not_supported_is_logged(environment: Mapping[str, str], error: str) -> None:
    """A replica starts without traces: remediations do not depend on them."""
    with capture_logs() as log:
        assert start_tracing(environment, "replica-a", "1") is NO_TRACES
    assert [(line["event"], line["error"]) for line in log] == [("traces are not exported", error)]


@pytest.mark.parametrize(
    ("preparation", "environment", "error"),
    [
        (
            "sys.modules['opentelemetry'] = None",
            {},
            "import of opentelemetry halted; None in sys.modules; install openfero-gitops[otel]",
        ),
        (
            "",
            {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER": "smoke"},
            "Requested component 'smoke' not found",
        ),
    ],
)
def test_the_sdk_cannot_be_loaded(
    preparation: str, environment: Mapping[str, str], error: str
) -> None:
    """Without the extra, or with a variable that the SDK refuses, the log says what to do."""
    script = (
        f"import os, sys; {preparation}\n"
        "from openfero_gitops.tracing import NO_TRACES, start_tracing\n"
        "assert start_tracing(os.environ, 'replica-a', '1') is NO_TRACES"
    )
    environment = {"OTEL_TRACES_EXPORTER": "otlp", **environment}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "traces are not exported" in ran.stdout
    assert error in ran.stdout


def test_nothing_is_imported_while_traces_are_off() -> None:
    """A replica whose environment has no endpoint loads nothing of OpenTelemetry and protobuf."""
    script = (
        "import sys, openfero_gitops.app\n"
        "from openfero_gitops.tracing import start_tracing\n"
        "start_tracing({}, 'replica-a', '1')\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'google.protobuf'))])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"


async def test_steps_that_are_not_traced() -> None:
    """Every step is the same object, which does nothing, so that it costs next to nothing."""
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    steps = [
        NO_TRACES.delivery("POST", "/alerts", {}),
        NO_TRACES.step("match", {"openfero.alert": "A"}),
        NO_TRACES.step("admit", after="00-" + "1" * 32 + "-" + "2" * 16 + "-01"),
    ]
    assert len({id(step) for step in steps}) == 1
    with steps[0] as step:
        step.set({"openfero.reason": "matchers"})
        step.link("")
        step.fail("failed")
        assert NO_TRACES.traceparent == ""
    NO_TRACES.past("run", moment, moment, {}, after="")
    await NO_TRACES.stop()

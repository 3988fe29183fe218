"""Exports traces with the OpenTelemetry SDK, as OTLP over HTTP.

Only `tracing` imports this module, and only if traces are wanted: the SDK is an extra. The SDK
itself reads its variables: where to send traces, which of them, and as which service.

Spans are sent by a thread of the SDK. If it falls behind, they are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_EXPORTER_OTLP_TRACES_HEADERS,
)
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from openfero_gitops.background import OnChange
from openfero_gitops.tracing import NO_SPAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan

    from openfero_gitops.ports import Attributes, Span

_log = structlog.get_logger(__name__)

_SERVICE: Final = "openfero-gitops"
#: To send the last spans when a replica stops.
_STOP_SECONDS: Final = 3.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: The format of the annotation on Jobs and of requests. The SDK also reads a request's `baggage` by
#: default, which is of no use here, and logs each one that is malformed.
_TRACE_CONTEXT: Final = TraceContextTextMapPropagator()
_TRACEPARENT: Final = "traceparent"
#: Of these, the exporter reads the first that is set.
_HEADERS: Final = (OTEL_EXPORTER_OTLP_TRACES_HEADERS, OTEL_EXPORTER_OTLP_HEADERS)
#: Requests names the value of a header that it does not send.
_HEADER_VALUE: Final = " in header value: "


class _Exporter(OTLPSpanExporter):
    """Exports spans, and logs an error once; the SDK would log several lines for each batch."""

    def __init__(self) -> None:
        _InvalidHeaders()
        super().__init__()
        self._causes = _Causes()
        self._error = OnChange(_log.warning, "traces cannot be exported")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans to the collector."""
        self._causes.first = ""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self._error.clear()
        else:
            self._error.set(self._causes.first)
        return result


class _InvalidHeaders(logging.Handler):
    """Logs that a header for the collector is invalid; the SDK would log its value, a token."""

    def __init__(self) -> None:
        super().__init__()
        _take_over(logging.getLogger(parse_env_headers.__module__), self)

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - it has the value
        """Name the variable that the exporter reads."""
        variable = next(
            (name for name in _HEADERS if os.environ.get(name)), OTEL_EXPORTER_OTLP_HEADERS
        )
        _log.warning("invalid header ignored; write NAME=VALUE", variable=variable)


class _Causes(logging.Handler):
    """Reads why an export failed, which the exporter only logs.

    The first line of an export says that; the last one may be that there were too many attempts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = ""
        _take_over(logging.getLogger(OTLPSpanExporter.__module__), self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line without the time until the next attempt, which is another each time.

        The value of an invalid header is left out, too: it may be a token.
        """
        line = record.getMessage().partition(", retrying in ")[0]
        self.first = self.first or line.partition(_HEADER_VALUE)[0]


def _take_over(logger: logging.Logger, handler: logging.Handler) -> None:
    """Pass what a logger of the SDK logs to this handler alone."""
    logger.handlers = [handler]
    logger.propagate = False


class _Step:
    """A span of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def link(self, traceparent: str) -> None:
        """Refer to a span of another trace."""
        context = trace.get_current_span(_context(traceparent)).get_span_context()
        if context.is_valid:
            self._span.add_link(context)

    def fail(self, message: str) -> None:
        """Mark the span as failed."""
        self._span.set_status(StatusCode.ERROR, message)


class OpenTelemetryTraces:
    """Traces that are exported to an OpenTelemetry collector."""

    def __init__(self, identity: str, version: str) -> None:
        """Start the thread that exports spans; `identity` names the replica."""
        for parser in (TraceContextTextMapPropagator, TraceState):
            # They warn of malformed headers, with the sender's text, at every delivery.
            logging.getLogger(parser.__module__).setLevel(logging.ERROR)
        ours = {
            SERVICE_NAME: _SERVICE,
            SERVICE_VERSION: version,
            SERVICE_INSTANCE_ID: identity,
        }
        # The environment takes precedence.
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())
        # (Stopped by `stop`: the SDK itself would wait for its collector at the exit, for 30 s.)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        self._tracer = self._provider.get_tracer(_SERVICE, version)

    @property
    def traceparent(self) -> str:
        """The current span as W3C Trace Context writes it; empty if it is not sampled."""
        if not trace.get_current_span().get_span_context().trace_flags.sampled:
            return ""
        carrier: dict[str, str] = {}
        _TRACE_CONTEXT.inject(carrier)
        return carrier.get(_TRACEPARENT, "")

    def delivery(
        self, method: str, path: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """Begin the trace of a request, or continue that of its headers."""
        attributes = {"http.request.method": method, "url.path": path}
        context = _TRACE_CONTEXT.extract(headers)
        return self._span(f"{method} {path}", attributes, context, SpanKind.SERVER)

    def step(
        self, name: str, attributes: Attributes | None = None, *, after: str | None = None
    ) -> AbstractContextManager[Span]:
        """Trace a step."""
        if after is None:
            return self._span(name, attributes)
        if not _is_sampled(context := _context(after)):
            return NO_SPAN
        return self._span(name, attributes, context)

    def past(
        self,
        name: str,
        start: datetime,
        end: datetime,
        attributes: Attributes,
        *,
        after: str,
        failure: str = "",
    ) -> None:
        """Add a step that has ended."""
        if not _is_sampled(context := _context(after)):
            return
        span = self._tracer.start_span(
            name, context, attributes=attributes, start_time=_nanoseconds(start)
        )
        if failure:
            span.set_status(StatusCode.ERROR, failure)
        span.end(_nanoseconds(end))

    async def stop(self) -> None:
        """Send the last spans."""
        thread = threading.Thread(
            target=self._provider.shutdown, name="stop exporting traces", daemon=True
        )
        thread.start()
        await asyncio.to_thread(thread.join, _STOP_SECONDS)

    @contextmanager
    def _span(
        self,
        name: str,
        attributes: Attributes | None,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(name, context, kind, attributes) as span:
            try:
                yield _Step(span)
            except asyncio.CancelledError:
                span.set_status(StatusCode.ERROR, "cancelled")
                raise


def _context(traceparent: str) -> Context:
    return _TRACE_CONTEXT.extract({_TRACEPARENT: traceparent})


def _is_sampled(context: Context) -> bool:
    span = trace.get_current_span(context).get_span_context()
    return span.is_valid and span.trace_flags.sampled


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000

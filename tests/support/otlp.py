"""A collector of OpenTelemetry traces: it receives OTLP over HTTP, as protobuf."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PATIENCE_SECONDS = 180.0


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it was received; ids are in hexadecimal, times in nanoseconds."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    attributes: dict[str, Any]
    start: int
    end: int
    failure: str | None
    links: list[str]
    resource: dict[str, Any]


class Collector:
    """Receives spans on a loopback port while it is used as a context manager.

    It answers while `answering` is set, with an error while `status` is one.
    """

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.requests = 0
        self.status = 200
        self.answering = threading.Event()
        self.answering.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """The address for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, name: str) -> None:
        """Wait until a span of this name has arrived."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while name not in {span.name for span in self.spans}:
            if time.monotonic() > deadline:
                raise AssertionError(f"only {[span.name for span in self.spans]} arrived")
            time.sleep(0.05)

    def in_order(self) -> list[ReceivedSpan]:
        """Return all spans in order of their start."""
        return sorted(self.spans, key=lambda span: span.start)

    def _handler(collector: Collector) -> Callable[..., BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests += 1
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.answering.wait()
                if collector.status == 200:
                    collector.spans += _read(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Be silent."""

        return Handler


def _read(request: ExportTraceServiceRequest) -> Iterable[ReceivedSpan]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
                yield ReceivedSpan(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    attributes=_attributes(span.attributes),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    failure=span.status.message if failed else None,
                    links=[link.trace_id.hex() for link in span.links],
                    resource=resource,
                )


def _attributes(attributes: Iterable[Any]) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in attributes
    }

"""Starts OpenTelemetry traces if the environment asks for them, and otherwise does nothing.

What is traced, and when, is decided by the variables of the OpenTelemetry specification; the
controller has no settings of its own for it. Without them nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.ports import Attributes, Span, Traces

_log = structlog.get_logger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"


def start_tracing(environment: Mapping[str, str], identity: str, version: str) -> Traces:
    """Start to trace if the environment asks for it.

    A wrong variable is logged and switches traces off: it must not stop remediations.

    Args:
        environment: the environment variables.
        identity: the name of this replica.
        version: the controller's.
    """
    if not _is_asked_for(environment):
        return NO_TRACES
    obstacle = _unsupported(environment)
    if not obstacle:
        try:
            from openfero_gitops.otel import OpenTelemetryTraces  # noqa: PLC0415 - only if wanted

            traces = OpenTelemetryTraces(identity, version)
        except ModuleNotFoundError as error:
            obstacle = f"{error}; install openfero-gitops[otel]"
        except Exception as error:  # noqa: BLE001 - the SDK reads files and names of plugins
            obstacle = str(error) or repr(error)
        else:
            _log.info("traces are exported")
            return traces
    _log.warning("traces are not exported", error=obstacle)
    return NO_TRACES


def _is_asked_for(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return exporter != "none"
    return any(environment.get(name) for name in _ENDPOINTS)


def _unsupported(environment: Mapping[str, str]) -> str:
    """Return what the environment asks for and the controller cannot do; empty if nothing."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        return f'OTEL_TRACES_EXPORTER is "{exporter}"; supported are otlp and none'
    for name in _PROTOCOLS:
        protocol = environment.get(name, "").strip()
        if protocol:
            return "" if protocol == _PROTOCOL else f'{name} is "{protocol}"; use {_PROTOCOL}'
    return ""


def job_attributes(job: Remediation) -> Attributes:
    """Return the attributes of a step that is about a Job."""
    return {
        "openfero.alert": job.alertname,
        "openfero.operario": job.operario,
        "openfero.commit": job.commit,
        "k8s.namespace.name": job.key.namespace,
        "k8s.job.name": job.key.name,
    }


class _NoSpan:
    """A step that is not traced."""

    def set(self, attributes: Attributes) -> None:
        """Do nothing."""

    def link(self, traceparent: str) -> None:
        """Do nothing."""

    def fail(self, message: str) -> None:
        """Do nothing."""


class _NoTraces:
    """Traces nothing."""

    traceparent = ""

    def delivery(
        self,
        method: str,  # noqa: ARG002 - of the protocol; so are the others below
        path: str,  # noqa: ARG002
        headers: Mapping[str, str],  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Return a step that is not traced."""
        return NO_SPAN

    def step(
        self,
        name: str,  # noqa: ARG002
        attributes: Attributes | None = None,  # noqa: ARG002
        *,
        after: str | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Return a step that is not traced."""
        return NO_SPAN

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
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


NO_SPAN: Final[AbstractContextManager[Span]] = nullcontext(_NoSpan())
NO_TRACES: Final[Traces] = _NoTraces()

"""The log line of a decision: one event with the same fields, whichever part decides."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import JobKey, Remediation

_log = structlog.get_logger(__name__)

_EVENT: Final = "decision"


class Decided(StrEnum):
    """What was decided about an alert or its Job; the page "Logs and traces" lists them."""

    CREATED = "created"
    NOT_CREATED = "not-created"
    ADMITTED = "admitted"
    REFUSED = "refused"
    CANCELLED = "cancelled"


def log_decision(
    decision: Decided,
    *,
    alert: str,
    operario: str,
    job: JobKey,
    commit: str,
    reason: str,
    traceparent: str = "",
    **details: str,
) -> None:
    """Log one decision.

    Args:
        decision: what was decided.
        alert: the name of the alert.
        operario: the operario that matches it.
        job: the Job of the alert.
        commit: that of the operario.
        reason: why, as in `docs/reference/reasons.md`; empty for a Job that was created to run.
        traceparent: of the trace that the decision belongs to, if it is traced.
        details: fields that only some decisions have; empty ones are left out.
    """
    fields: dict[str, Any] = {name: value for name, value in details.items() if value}
    log = _log.warning if decision is Decided.NOT_CREATED else _log.info
    log(
        _EVENT,
        decision=decision.value,
        alert=alert,
        operario=operario,
        job=str(job),
        commit=commit,
        reason=reason,
        **fields,
        **trace_fields(traceparent),
    )


def log_decision_about(job: Remediation, decision: Decided, reason: str, **details: str) -> None:
    """Log a decision about an existing Job."""
    log_decision(
        decision,
        alert=job.alertname,
        operario=job.operario,
        job=job.key,
        commit=job.commit,
        reason=reason,
        traceparent=job.traceparent,
        **details,
    )


def trace_fields(traceparent: str) -> dict[str, str]:
    """Return the field that leads from a log line to its trace; none if there is no trace."""
    # VERSION-TRACE ID-SPAN ID-FLAGS, as W3C Trace Context defines it.
    _, _, rest = traceparent.partition("-")
    trace_id = rest.partition("-")[0]
    return {"trace_id": trace_id} if trace_id else {}

"""Why Kueue has not started a Job, as the conditions of its Workload say.

Kueue creates a Workload for each Job that is passed to it, and writes there whether the Job has
quota, was evicted, or cannot be admitted. Source: Kueue's apis/kueue/v1beta2/workload_types.go;
v1beta1 has the same conditions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from openfero_gitops.domain.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openfero_gitops.domain.remediation import Remediation

#: The reason of a Job that Kueue has no Workload for.
NO_WORKLOAD: Final = "NoWorkload"
#: Kueue's reason while a queue is missing or stopped.
_INADMISSIBLE: Final = "Inadmissible"
#: Kueue's reason while a Workload does not fit, now or ever; its message says which.
_PENDING: Final = "Pending"
#: In the message about a flavor that a Workload does not fit in, however little of it is used.
#: Source: Kueue's pkg/scheduler/flavorassigner and pkg/scheduler/scheduler.go.
_NEVER_FITS: Final = re.compile(
    r"> maximum capacity \(|unavailable in ClusterQueue|untolerated taint|"
    r"doesn't match (?:node affinity|ClusterQueue selector)"
)
#: In the message about a flavor that a Workload fits in once other ones have ended.
_MAY_FIT: Final = "insufficient unused quota"
#: How the reason of an eviction begins if Kueue does not start the Job again.
_DEACTIVATED: Final = "Deactivated"
_MAX_REASON: Final = 100
_MAX_MESSAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Why Kueue has not started a Job: the reason and message of a condition of its Workload."""

    reason: str
    message: str


def is_stuck(reason: str, message: str) -> bool:
    """Whether Kueue starts a Job with this status only after somebody has changed something."""
    if reason == _PENDING:
        return _MAY_FIT not in message and _NEVER_FITS.search(message) is not None
    return reason in (NO_WORKLOAD, _INADMISSIBLE) or reason.startswith(_DEACTIVATED)


def read_workload(workload: Mapping[str, Any]) -> tuple[str, QueueStatus | None] | None:
    """Return the uid of a Workload's Job, and its status; None if it has no Job, or no status."""
    metadata = workload.get("metadata") or {}
    owners = metadata.get("ownerReferences") or ()
    job = next((owner.get("uid") for owner in owners if owner.get("kind") == "Job"), None)
    if not job:
        return None
    for reason, message in _telling_conditions(workload.get("status") or {}):
        short = QueueStatus(printable(reason, _MAX_REASON), printable(message, _MAX_MESSAGE))
        return str(job), short
    return str(job), None


def without_workload(namespace: str) -> QueueStatus:
    """The status of a Job that was passed to Kueue, which has not noticed it."""
    return QueueStatus(
        NO_WORKLOAD,
        "Kueue has not created a Workload for this Job: check that Kueue is running and manages "
        f"Jobs in namespace {namespace}, and that the PriorityClass of the Job exists",
    )


def with_queue_status(remediation: Remediation, status: QueueStatus) -> Remediation:
    """Return a queued remediation with the reason and message that Kueue gives."""
    message = "; ".join(filter(None, (status.message, remediation.message)))
    return replace(remediation, reason=status.reason, message=message)


def _telling_conditions(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what keeps a Job from its start, the most important first, as reason and message."""
    conditions = {
        condition.get("type"): (
            condition.get("status") == "True",
            str(condition.get("reason") or ""),
            str(condition.get("message") or ""),
        )
        for condition in status.get("conditions") or ()
    }
    none = (None, "", "")
    evicted, eviction, why_evicted = conditions.get("Evicted", none)
    if evicted and eviction.startswith(_DEACTIVATED):
        yield eviction, why_evicted
    has_quota, reason, message = conditions.get("QuotaReserved", none)
    if has_quota is False:
        yield reason, message
    if has_quota:
        for check in status.get("admissionChecks") or ():
            if check.get("state") not in ("Ready", None):
                text = f"admission check {check.get('name')}: {check.get('message') or 'pending'}"
                yield f"AdmissionCheck{check['state']}", text
    admitted, reason, message = conditions.get("Admitted", none)
    if admitted is False:
        yield reason, message
    if evicted:
        yield eviction, why_evicted

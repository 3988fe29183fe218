"""Whether a Job that carries the controller's label was created by the controller.

Anybody who may create Jobs in a namespace can set the label, and anybody who may change Jobs can
edit what is recorded on them. The name of a Job, its labels and its target follow from the recorded
alert, so they are computed again and compared. All of it is public: a Job that was forged with care
passes. Only an admission policy keeps others from creating such Jobs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence
from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.jobs.names import job_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.remediation import Remediation

#: Earlier releases recorded up to 64 KiB of an alert.
_MAX_RECORD_BYTES: Final = 64 * 1024
#: A replica's clock may differ from the API server's by 30 s, and so may those of two API servers.
_CLOCK_TOLERANCE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class RecordedAlert:
    """What is recorded of an alert: its labels, or only its name if they were too large."""

    labels: Mapping[str, str]
    truncated: bool = False


@cache_short_texts(max_entries=1024, max_characters=2048)
def recorded_alert(text: str) -> RecordedAlert:
    """Read the alert that is recorded on a Job; without labels if it is damaged.

    The labels are shared and must not be changed.
    """
    record = json_object(text)
    labels = record.get("labels")
    if not isinstance(labels, dict):
        return RecordedAlert({})
    texts = {str(name): str(value) for name, value in labels.items()}
    try:
        "".join((*texts, *texts.values())).encode()
    except UnicodeEncodeError:
        return RecordedAlert({})  # a lone surrogate, which cannot be hashed as UTF-8
    return RecordedAlert(texts, record.get("truncated") is True)


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; empty if the text is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def why_foreign(job: Mapping[str, Any], remediation: Remediation) -> str:
    """Why the controller cannot have created a Job, as a clause; empty if it can have.

    Args:
        job: the Job, as the API server returns it, or as it is rendered.
        remediation: what was read from it.
    """
    metadata = job["metadata"]
    created = parse_time(metadata.get("creationTimestamp"))
    if created is not None and remediation.received_at > created + _CLOCK_TOLERANCE:
        return "its alert was received after the Job was created"
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    text = annotations.get(keys.ALERT, "")
    recorded = recorded_alert(text)
    if recorded.truncated:
        return _why_truncated_is_foreign(remediation)
    if not recorded.labels:
        return "its recorded alert is missing or cannot be read"
    if len(text) * 4 > _MAX_RECORD_BYTES and len(text.encode()) > _MAX_RECORD_BYTES:
        return "its recorded alert is larger than 64 KiB"
    # An alert with startsAt does not depend on its delivery.
    delivery = "" if remediation.starts_at else annotations.get(keys.DELIVERY, "")
    expected = _identity(
        text, remediation.status, remediation.starts_at, remediation.attempt, delivery
    )
    incident = (metadata.get("labels") or {}).get(keys.INCIDENT)
    checks = (
        (remediation.occurrence == expected.occurrence, f"its label {keys.OCCURRENCE}"),
        (incident == expected.incident, f"its label {keys.INCIDENT}"),
        (remediation.key.name == expected.name, "its name"),
        (_is_target_of(remediation.target, text), f"its annotation {keys.TARGET}"),
    )
    what = next((what for holds, what in checks if not holds), "")
    return what and f"{what} does not belong to its recorded alert"


class _Identity(NamedTuple):
    """What follows from a recorded alert."""

    occurrence: str
    incident: str
    name: str


# A Job changes several times within a minute; its digests cost 30 µs.
@cache_short_texts(max_entries=1024, max_characters=2048)
def _identity(
    text: str, status: Status, starts_at: datetime | None, attempt: int, delivery: str
) -> _Identity:
    labels = recorded_alert(text).labels
    identity = str(json_object(delivery).get("id", "")) if delivery else ""
    occurrence = Occurrence(labels, status, starts_at, attempt, identity)
    return _Identity(occurrence.digest, occurrence.incident, job_name(occurrence))


@cache_short_texts(max_entries=1024, max_characters=2048)
def _is_target_of(target: str, text: str) -> bool:
    """Whether a recorded target consists of labels of the recorded alert."""
    healed = json_object(target)
    labels = recorded_alert(text).labels
    return bool(healed) and all(labels.get(name, "") == value for name, value in healed.items())


def _why_truncated_is_foreign(remediation: Remediation) -> str:
    """Check a Job whose alert was too large to be recorded: it was refused at its creation."""
    decision = remediation.decision, remediation.reason
    if remediation.started or decision != ("refused", Reason.TOO_LARGE):
        return "its alert is not recorded, but the Job was not refused for that"
    if not remediation.key.name.endswith(f"-{remediation.status}-{remediation.occurrence[:16]}"):
        return f"its name does not belong to its label {keys.OCCURRENCE}"
    return ""

"""Whether a Job that carries the controller's label was created by the controller.

Users who can create Jobs in a namespace can set the label, and users who can change Jobs can
edit what is recorded on them. The name of a Job, its labels and its target follow from the recorded
alert, so they are computed again and compared. All of it is public: a Job that was forged with care
passes. Only an admission policy keeps others from creating such Jobs.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from openfero_gitops.domain import keys
from openfero_gitops.domain.alert import Occurrence
from openfero_gitops.domain.labels import compact, without
from openfero_gitops.domain.memo import cache_short_texts
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.jobs.names import job_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.remediation import Remediation

#: Earlier releases recorded up to 64 KiB of an alert.
_MAX_RECORD_BYTES: Final = 64 * 1024
#: A replica's clock may differ from the API server's by 30 s, and so may those of two API servers.
_CLOCK_TOLERANCE: Final = timedelta(minutes=2)
#: Those of the controller have 32.
_MAX_DELIVERY_ID_CHARACTERS: Final = 64
_MAX_CACHED_CHARACTERS: Final = 2048
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class Identity(NamedTuple):
    """What follows from a recorded alert: two labels of its Job, and the Job's name."""

    occurrence: str
    incident: str
    name: str


class RecordedAlert:
    """What is recorded of an alert: its labels, or only its name if they were too large."""

    __slots__ = ("_identity", "bytes", "labels", "truncated")

    def __init__(self, text: str) -> None:
        """Parse the text of the annotation; there are no labels if it is damaged."""
        self.bytes = len(text.encode("utf-8", "surrogatepass"))
        self.labels: Mapping[str, str] = {}
        self.truncated = False
        self._identity: tuple[tuple[object, ...], Identity] | None = None
        if self.bytes > _MAX_RECORD_BYTES:
            return
        record = json_object(text)
        labels = record.get("labels")
        if not isinstance(labels, dict):
            return
        texts = {str(name): str(value) for name, value in labels.items()}
        try:
            "".join((*texts, *texts.values())).encode()
        except UnicodeEncodeError:
            return  # a lone surrogate, which cannot be hashed as UTF-8
        self.labels = compact(texts)
        self.truncated = record.get("truncated") is True

    def identity(
        self,
        status: Status,
        starts_at: datetime | None,
        attempt: int,
        delivery: str,
        replica_labels: Sequence[str],
    ) -> Identity:
        """Return what follows from the alert; computing it takes longer than parsing.

        `delivery` is the id of the delivery, if the alert has no startsAt.
        """
        key = status, starts_at, attempt, delivery, replica_labels
        if self._identity is None or self._identity[0] != key:
            labels = without(self.labels, replica_labels)
            occurrence = Occurrence(labels, status, starts_at, attempt, delivery)
            identity = Identity(occurrence.digest, occurrence.incident, job_name(occurrence))
            self._identity = key, identity
        return self._identity[1]

    def remember_identity(
        self, occurrence: Occurrence, name: str, replica_labels: tuple[str, ...]
    ) -> None:
        """Keep what follows from the alert, so that `identity` need not compute it."""
        delivery = occurrence.delivery if occurrence.starts_at is None else ""
        key = occurrence.status, occurrence.starts_at, occurrence.attempt, delivery, replica_labels
        self._identity = key, Identity(occurrence.digest, occurrence.incident, name)


# A Job changes several times within a minute.
@cache_short_texts(max_entries=1024, max_characters=_MAX_CACHED_CHARACTERS)
def recorded_alert(text: str) -> RecordedAlert:
    """Read the alert that is recorded on a Job; if the text is short, the result is shared.

    Its labels must not be changed. Its identity is only a cache.
    """
    return RecordedAlert(text)


def remember_identity(
    text: str, occurrence: Occurrence, name: str, replica_labels: tuple[str, ...]
) -> None:
    """Keep what follows from a recorded alert, of the occurrence for which its Job was rendered.

    It is kept with the shared result of `recorded_alert`, so that of a long text nothing is.
    """
    if len(text) <= _MAX_CACHED_CHARACTERS:
        recorded_alert(text).remember_identity(occurrence, name, replica_labels)


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; empty if the text is anything else."""
    try:
        return _OBJECT.decode(text)
    except (ValueError, RecursionError):
        pass  # json also reads lone surrogates
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def why_foreign(job: Mapping[str, Any], remediation: Remediation, recorded: RecordedAlert) -> str:
    """Why the controller cannot have created a Job, as a clause; empty if it can have.

    Args:
        job: the Job, as the API server returns it, or as it is rendered.
        remediation: what was read from it.
        recorded: the alert that is recorded on it.
    """
    metadata = job["metadata"]
    created = parse_time(metadata.get("creationTimestamp"))
    if created is not None and remediation.received_at > created + _CLOCK_TOLERANCE:
        return "its alert was received after the Job was created"
    if recorded.bytes > _MAX_RECORD_BYTES:
        return "its recorded alert is larger than 64 KiB"
    if recorded.truncated:
        return _why_truncated_is_foreign(remediation)
    if not recorded.labels:
        return "its recorded alert is missing or cannot be read"
    if not _are_labels(remediation.replica_labels, recorded.labels):
        return f"its annotation {keys.REPLICA_LABELS} names labels that the alert does not have"
    expected = _expected_identity(metadata, remediation, recorded)
    incident = (metadata.get("labels") or {}).get(keys.INCIDENT)
    mismatch = ""
    if remediation.occurrence != expected.occurrence:
        mismatch = f"its label {keys.OCCURRENCE}"
    elif incident != expected.incident:
        mismatch = f"its label {keys.INCIDENT}"
    elif remediation.key.name != expected.name:
        mismatch = "its name"
    elif not _is_target_of(remediation.target, recorded.labels):
        mismatch = f"its annotation {keys.TARGET}"
    return mismatch and f"{mismatch} does not belong to its recorded alert"


def _expected_identity(
    metadata: Mapping[str, Any], remediation: Remediation, recorded: RecordedAlert
) -> Identity:
    delivery = ""
    if remediation.starts_at is None:
        annotations: Mapping[str, str] = metadata.get("annotations") or {}
        text = json_object(annotations.get(keys.DELIVERY, "")).get("id", "")
        delivery = str(text)[:_MAX_DELIVERY_ID_CHARACTERS]
    return recorded.identity(
        remediation.status,
        remediation.starts_at,
        remediation.attempt,
        delivery,
        remediation.replica_labels,
    )


def _are_labels(names: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Whether replica labels can be left out of an alert: it has them, and they are not its name.

    That these are replica labels is not checked, because the setting may have been changed since.
    A forger gains nothing: an alert without these labels can be recorded as well.
    """
    return all(name in labels for name in names) and "alertname" not in names


def _is_target_of(target: str, labels: Mapping[str, str]) -> bool:
    """Whether a recorded target consists of labels of the alert."""
    healed = json_object(target)
    return bool(healed) and all(labels.get(name, "") == value for name, value in healed.items())


def _why_truncated_is_foreign(remediation: Remediation) -> str:
    """Check a Job whose alert was too large to be recorded: it was refused at its creation."""
    decision = remediation.decision, remediation.reason
    if remediation.started or decision != ("refused", Reason.TOO_LARGE):
        return "its alert is not recorded, but the Job was not refused for that"
    if not remediation.key.name.endswith(f"-{remediation.status}-{remediation.occurrence[:16]}"):
        return f"its name does not belong to its label {keys.OCCURRENCE}"
    return ""

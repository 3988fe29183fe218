"""A remediation: one alert occurrence, one operario, one revision, one Job, and its phase."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from openfero_gitops.domain.keys import SOMEBODY_ELSE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.domain.alert import Status
    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.operario import Options

#: An alert that starts at most this long after the delivery of another is the same incident: the
#: clocks of two Prometheus servers differ, and Alertmanager adds delays.
STARTS_AT_TOLERANCE: Final = timedelta(seconds=60)


class Phase(StrEnum):
    """The phase of a remediation; derived from its Job, never stored."""

    WAITING = "Waiting"
    AWAITING_APPROVAL = "AwaitingApproval"
    QUEUED = "Queued"
    RUNNING = "Running"
    HELD = "Held"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REFUSED = "Refused"
    CANCELLED = "Cancelled"


#: Phases that a remediation never leaves.
FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.REFUSED, Phase.CANCELLED})


class Outcome(StrEnum):
    """The result of one alert of a delivery."""

    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"
    NO_MATCH = "no-match"
    INVALID = "invalid"
    ERROR = "error"


class JobKey(msgspec.Struct, frozen=True, gc=False):
    """A Job's namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


#: More of them are not remembered, so that their number does not determine the memory.
MAX_FOREIGN: Final = 1000


@dataclass(frozen=True, slots=True)
class Foreign:
    """A Job that carries the controller's label, but that the controller did not create.

    It counts nowhere, and is never changed or deleted. `why` is a clause, such as `its name does
    not belong to its recorded alert`.
    """

    key: JobKey
    uid: str
    resource_version: str
    why: str


class RecordedMarks(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What the labels and annotations of a Job say, as far as its phase depends on it.

    `digest` is that of their JSON. An event with the same digest only changes what the Job's spec
    and status say. It is empty if it is unknown.

    All are equal, so that remediations are compared without them: what they say shows in the other
    fields, and an event read from JSON has a digest that the same Job read from a `dict` lacks.
    """

    digest: bytes = b""
    created_at: datetime | None = None
    admitted_at: datetime | None = None
    decision: str | None = None
    reason: str = ""
    message: str = ""
    pod_waiting: str = ""
    needs_approval: bool = False
    in_kueue: bool = False
    counts_starts: bool = False
    start_count: int = 0
    started_at: datetime | None = None

    def __eq__(self, other: object) -> bool:
        """Whether the other is of this class, too."""
        return isinstance(other, RecordedMarks)

    def __hash__(self) -> int:
        """Return the same for all."""
        return hash(RecordedMarks)


class Remediation(msgspec.Struct, frozen=True, gc=False):
    """A Job of this controller, with everything read from the Job itself.

    Times are UTC. `started` says whether Pods of it may ever have existed, `active` counts those
    that exist. `pods_ready` says that none of these waits; `pod_waiting` why one does, as recorded.
    `options` were recorded when the Job was rendered, so that a decision about it does
    not depend on the revision that a replica has. `incident` is empty if the alert's labels were
    too large to be recorded: such a Job counts for its own occurrence alone. `replica_labels` names
    the labels that the incident does not depend on. `starts` counts how often Kubernetes began to
    create Pods. Of a Job that may be stopped and started again, `recorded_starts` are recorded on
    it, and `unrecorded_start` is the time of one that must be.
    `still_firing_at` is when the alert was first heard firing after it should have been resolved.
    `effect`, `effect_at` and `effect_message` are as the leader settled them, else None or empty.
    `active_digest` is the spec digest of the operario in the active catalog, where that is another
    one than the Job's; only admission's requirements set it. `traceparent` is the span in which
    the Job was created, if it is traced.
    `suspended_at` is when Kubernetes last stopped the Job, or saw that it must not start yet; None
    unless it is suspended. `record` serves to read the Job's next event.
    """

    key: JobKey
    uid: str
    resource_version: str
    phase: Phase
    reason: str
    message: str
    operario: str
    alertname: str
    status: Status
    labels: Mapping[str, str]
    occurrence: str
    incident: str
    attempt: int
    fingerprint: str
    starts_at: datetime | None
    received_at: datetime
    delivered_at: datetime
    resolved_at: datetime | None
    admitted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    started: bool
    finished: bool
    has_message: bool
    deleting: bool
    suspended: bool
    active: int
    term: str | None
    decision: str | None
    approved_by: str | None
    queue: str | None
    target: str
    options: Options
    ttl_seconds: int | None
    repository: str
    ref: str
    commit: str
    path: str
    verified_signer: str = ""
    approval_reason: str = ""
    admitted_by: str = ""
    replica_labels: tuple[str, ...] = ()
    starts: int = 0
    recorded_starts: int = 0
    unrecorded_start: datetime | None = None
    suspended_at: datetime | None = None
    pods_ready: bool = False
    pod_waiting: str = ""
    spec_digest: str = ""
    still_firing_at: datetime | None = None
    effect: Effect | None = None
    effect_at: datetime | None = None
    effect_message: str = ""
    active_digest: str = ""
    traceparent: str = ""
    record: RecordedMarks = RecordedMarks()

    @property
    def waiting(self) -> bool:
        """Whether admission decides about it: suspended, neither admitted nor decided."""
        return self.phase in (Phase.WAITING, Phase.AWAITING_APPROVAL)

    @property
    def has_run(self) -> bool:
        """Whether the Job started: one that Kueue has never started only waits."""
        return self.started and (self.queue is None or self.starts > 0)

    @property
    def target_labels(self) -> dict[str, str]:
        """The labels that identify what is remediated; empty if the record is damaged."""
        try:
            value = json.loads(self.target)
        except (ValueError, RecursionError):
            return {}
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}

    @property
    def started_by_other(self) -> bool:
        """Whether a person or another controller started it, without a check of the limits."""
        if self.admitted_at is None:
            return self.started
        return self.admitted_by == SOMEBODY_ELSE

    @property
    def has_unrecorded_start(self) -> bool:
        """Whether it has started, and nothing will show that once it is suspended."""
        return (
            self.started
            and self.admitted_at is None
            and self.decision is None
            and not self.finished
            and not self.deleting
        )

    @property
    def occupying(self) -> bool:
        """Whether Pods of it exist, or may be created at any moment.

        This depends on the Job's own fields only: if a person started the Job in spite of a
        decision, the decision does not delete its Pods.
        """
        if self.finished:
            return False
        return not self.suspended or self.active > 0 or self.phase is Phase.QUEUED

    @property
    def order(self) -> tuple[datetime, str, str]:
        """Sort key: by time of arrival, then name."""
        return (self.received_at, self.key.name, self.key.namespace)


def same_incident(remediation: Remediation, other: Remediation) -> bool:
    """Whether a Job is for the incident that `other` was created for, in spite of its startsAt."""
    if remediation.starts_at is None or other.starts_at is None:
        return False
    if other.resolved_at is not None and remediation.starts_at > other.resolved_at:
        return False
    return remediation.starts_at <= other.received_at + STARTS_AT_TOLERANCE

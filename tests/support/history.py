"""A history of Jobs: what happened, and the state of a Job after each write.

From the controller it takes nothing but the names of labels and annotations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.duration import parse_duration
from tests.support.effects import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COUNTED: Final = ("startTime", "active", "terminating", "succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch reported: `kind` is ADDED, MODIFIED or DELETED, `moment` when it happened.

    `job` is the whole object in the API's own shape. `known` returns the resourceVersion of the Job
    with a uid that its writer must have known when it decided on the change (0: no version of it);
    None if nobody recorded what the writer was sent.
    """

    moment: datetime
    kind: str
    job: Mapping[str, Any]
    known: Callable[[str], int] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """One alert of a delivery that was answered with 200.

    `sent` and `answered` are when the delivery was sent, and its answer read; `job` is the Job
    (namespace, name) that the answer names, None where no operario matched.
    """

    sent: datetime
    answered: datetime
    labels: Mapping[str, str]
    status: str
    starts_at: datetime | None
    ends_at: datetime | None = None
    job: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Admission was paused: from when that was acknowledged, until a request to resume."""

    acknowledged: datetime
    resumed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: `rule` names it, `words` tell how."""

    moment: datetime
    rule: str
    words: str

    def __str__(self) -> str:
        """Give one line."""
        return f"{self.moment:%H:%M:%S.%f} {self.rule}: {self.words}"


@dataclass(slots=True)
class JobState:
    """The current state of a Job, and facts from its history."""

    uid: str
    key: tuple[str, str]
    occurrence: str
    incident: str
    operario: str
    target: str
    status: str
    labels: tuple[tuple[str, str], ...]
    attempt: str
    starts_at: datetime | None
    received_at: datetime
    delivered_at: datetime
    options: _Options
    resolved_at: datetime | None
    admitted_at: str | None
    term: str | None
    decision: str | None
    reason: str | None
    approved: bool
    suspended: bool
    queued: bool
    active: int
    ran: bool
    finished_at: datetime | None
    succeeded: bool
    ttl: int | None
    leaving: bool
    digest: str
    commit: str
    path: str
    started_at: datetime | None
    still_firing_at: datetime | None
    effect: str | None
    effect_at: datetime | None
    effect_message: str | None
    version: int
    created: datetime
    seen: datetime  # when this state was written
    admitted: datetime | None = None  # when the admission was written
    by_hand: datetime | None = None  # when a person started it, or started it again
    touched: bool = False  # a person ever did
    gone: datetime | None = None
    starts: tuple[datetime, ...] = ()  # every moment that can count as its start

    @property
    def name(self) -> str:
        """NAMESPACE/NAME."""
        return "/".join(self.key)

    @property
    def started(self) -> bool:
        """Whether a leader or a person started it."""
        return self.admitted is not None or self.by_hand is not None

    @property
    def occupying(self) -> bool:
        """Whether Pods of it exist, or may be created at any moment."""
        if self.finished_at is not None or self.gone is not None:
            return False
        queued = self.queued and self.decision is None and self.admitted_at is not None
        return not self.suspended or self.active > 0 or queued

    @property
    def waiting(self) -> bool:
        """Whether nothing was decided about it."""
        return (
            self.suspended
            and not self.ran
            and self.admitted_at is None
            and self.decision is None
            and self.finished_at is None
            and self.gone is None
        )

    @property
    def dry_run(self) -> bool:
        """Whether it never ran because its mode is dry-run."""
        return self.decision == "refused" and self.reason == "dry-run" and not self.starts

    @property
    def run(self) -> Run:
        """Return what decides about its effect."""
        received, starts = self.received_at, self.starts
        return Run(
            starts_at=self.starts_at,
            received_at=received,
            delivered_at=self.delivered_at,
            first_start=received if self.dry_run else min(starts, default=None),
            last_start=received if self.dry_run else max(starts, default=None),
            end=received if self.dry_run else self.finished_at,
            heals_within=self.options.heals_within,
            resolved_at=self.resolved_at,
            still_firing=self.still_firing_at is not None,
            settled=self.effect,
            dry_run=self.dry_run,
        )

    @property
    def phase(self) -> str:
        """Its phase, as it is documented."""
        states = (
            (self.decision == "cancelled", "Cancelled"),
            (self.decision is not None, "Refused"),
            (self.succeeded, "Succeeded"),
            (self.finished_at is not None, "Failed"),
            (self.suspended and self.admitted_at is not None and self.queued, "Queued"),
            (self.suspended and (self.ran or self.admitted_at is not None), "Held"),
            (not self.suspended, "Running"),
            (self.options.approval and not self.approved, "AwaitingApproval"),
        )
        return next((phase for holds, phase in states if holds), "Waiting")


def read_state(job: Mapping[str, Any], previous: JobState | None) -> JobState:
    """Read a Job in the API's own shape; what was noted before is kept."""
    metadata, spec, status = job["metadata"], job["spec"], job.get("status") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    labels: Mapping[str, str] = metadata.get("labels") or {}
    conditions = {
        condition["type"]: condition
        for condition in status.get("conditions") or ()
        if condition["status"] == "True"
    }
    end = conditions.get("Complete") or conditions.get("Failed")
    received = parse_moment(annotations.get(keys.RECEIVED_AT)) or datetime.min.replace(tzinfo=UTC)
    return JobState(
        uid=metadata["uid"],
        key=(metadata["namespace"], metadata["name"]),
        occurrence=labels.get(keys.OCCURRENCE, ""),
        incident=labels.get(keys.INCIDENT, ""),
        operario=annotations.get(keys.OPERARIUS) or labels.get(keys.OPERARIUS, ""),
        target=annotations.get(keys.TARGET, ""),
        status=labels.get(keys.STATUS, ""),
        labels=_alert_labels(annotations.get(keys.ALERT, "{}")),
        attempt=annotations.get(keys.ATTEMPT, "1"),
        starts_at=parse_moment(annotations.get(keys.STARTS_AT)),
        received_at=received,
        delivered_at=parse_moment(annotations.get(keys.LAST_DELIVERED_AT)) or received,
        options=_options(annotations.get(keys.OPTIONS, "{}")),
        resolved_at=parse_moment(annotations.get(keys.RESOLVED_AT)),
        admitted_at=annotations.get(keys.ADMITTED_AT),
        term=annotations.get(keys.TERM),
        decision=annotations.get(keys.DECISION),
        reason=annotations.get(keys.REASON),
        approved=bool(annotations.get(keys.APPROVED_BY)),
        suspended=spec.get("suspend") is True,
        queued=keys.KUEUE_QUEUE in labels,
        active=(status.get("active") or 0) + (status.get("terminating") or 0),
        ran=any(status.get(kind) for kind in _COUNTED),
        # (As it is shown: a busy Job controller writes the condition seconds after the end.)
        finished_at=parse_moment(status.get("completionTime") or end["lastTransitionTime"])
        if end
        else None,
        succeeded="Complete" in conditions,
        ttl=spec.get("ttlSecondsAfterFinished"),
        leaving="deletionTimestamp" in metadata,
        digest=annotations.get(keys.SPEC_DIGEST, ""),
        commit=annotations.get(keys.COMMIT, ""),
        path=annotations.get(keys.PATH, ""),
        started_at=parse_moment(status.get("startTime")),
        still_firing_at=parse_moment(annotations.get(keys.STILL_FIRING_AT)),
        effect=annotations.get(keys.EFFECT),
        effect_at=parse_moment(annotations.get(keys.EFFECT_AT)),
        effect_message=annotations.get(keys.EFFECT_MESSAGE),
        version=int(metadata.get("resourceVersion") or 0),
        created=previous.created if previous else received,
        seen=previous.seen if previous else received,
        admitted=previous.admitted if previous else None,
        by_hand=previous.by_hand if previous else None,
        touched=previous is not None and previous.touched,
        starts=previous.starts if previous else (),
    )


def starts_of(previous: JobState | None, now: JobState) -> tuple[datetime, ...]:
    """Every moment at which a Job can be said to have started, so far."""
    moments = (parse_moment(now.admitted_at), now.admitted, now.by_hand, now.started_at)
    before = previous.starts if previous else ()
    return tuple(sorted({*before, *(moment for moment in moments if moment is not None)}))


def has_effect(job: JobState) -> bool:
    """Whether it has an effect: a Job of a firing alert that started, or a dry run."""
    return job.status == "firing" and (job.dry_run or bool(job.starts))


@dataclass(frozen=True, slots=True)
class _Options:
    approval: bool
    dry_run: bool
    keeps: bool
    cooldown: timedelta
    max_concurrent: int
    max_per_hour: int
    resolve_delay: timedelta
    priority: int
    heals_within: timedelta
    stop_after_not_healed: int | None


@lru_cache(maxsize=8192)
def parse_moment(text: str | None) -> datetime | None:
    """Parse a time of Kubernetes, or of an annotation."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


@lru_cache(maxsize=8192)
def _alert_labels(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(json.loads(text).get("labels", {}).items()))


@lru_cache(maxsize=1024)
def _options(text: str) -> _Options:
    raw = json.loads(text)
    stop_after = raw.get("stop-after-not-healed", 3)
    return _Options(
        approval=raw.get("approval") is True,
        dry_run=raw.get("mode") == "dry-run",
        keeps=raw.get("on-resolve") == "keep",
        cooldown=parse_duration(raw.get("cooldown", "10m")),
        max_concurrent=raw.get("max-concurrent", 5),
        max_per_hour=raw.get("max-per-hour", 30),
        resolve_delay=parse_duration(raw.get("resolve-delay", "1m")),
        priority=raw.get("priority", 0),
        heals_within=parse_duration(raw.get("heals-within", "15m")),
        stop_after_not_healed=None if stop_after == "off" else stop_after,
    )

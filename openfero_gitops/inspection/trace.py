"""One remediation from its alert to its effect, as a timeline.

Most of it is recorded on the Job and stays as long as the Job. Pods and Events are shown while they
exist: Kubernetes deletes Events after an hour, unless the cluster is set up otherwise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.domain import keys
from openfero_gitops.domain.duration import format_age
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import parse_time
from openfero_gitops.effects.assess import assess
from openfero_gitops.jobs.managed_fields import annotation_written_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.admission.decide import Wait
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.assess import Assessment

    Object = Mapping[str, Any]

_SECOND: Final = timedelta(seconds=1)
#: The controller's name in its Events.
CONTROLLER: Final = f"{keys.PREFIX}{keys.MANAGER}"
#: Events that say the same as something that is recorded on the Job.
_REDUNDANT: Final = frozenset(
    {
        "Admitted",
        "BackoffLimitExceeded",
        "Completed",
        "EffectUnknown",
        "Failed",
        "Healed",
        "NotHealed",
        "Resumed",
        "Suspended",
    }
)
#: The reason of the Event for an approval.
_APPROVED: Final = "Approved"


class Step(IntEnum):
    """The order of what happens within one second; Kubernetes' times have no fractions."""

    FIRING = 0
    RECEIVED = 1
    DECIDED = 2
    ADMITTED = 3
    STARTED = 4
    CLUSTER_EVENT = 5
    CONTAINER_STARTED = 6
    CONTAINER_ENDED = 7
    ENDED = 8
    RESOLVED = 9
    EFFECT = 10


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a remediation at a time (UTC)."""

    at: datetime
    step: Step
    text: str


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container of a Pod: `state` is `waiting`, `running` or `terminated`.

    `exit_code` is None unless it has terminated.
    """

    name: str
    state: str
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PodState:
    """A Pod of the Job that still exists."""

    name: str
    phase: str
    created_at: datetime | None
    containers: tuple[ContainerState, ...]


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """An Event about the Job or one of its Pods; `is_ours` is whether the controller sent it."""

    at: datetime | None
    about: str
    reason: str
    note: str
    warning: bool
    count: int
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that is known of a remediation.

    `alert` is the alert as it was recorded, empty if that cannot be read. `approval_verified` says
    whether the API server checked the approver's name; None if that is not known. `approved_at` is
    None if the API server has not recorded it. `wait` is why a
    Job does not start; for one that is Waiting without it, `instead_of_wait` says what is known.
    """

    at: datetime
    remediation: Remediation
    annotations: Mapping[str, str]
    alert: Mapping[str, Any]
    assessment: Assessment | None
    approval_verified: bool | None
    approved_at: datetime | None
    wait: Wait | None
    instead_of_wait: str
    pods: tuple[PodState, ...]
    events: tuple[ShownEvent, ...]
    timeline: tuple[Moment, ...]

    def annotation(self, key: str) -> str:
        """An annotation of the Job; empty if it is absent."""
        return self.annotations.get(key) or ""

    @property
    def waited(self) -> timedelta | None:
        """How long the Job waited to be admitted; None if it was not."""
        admitted = self.remediation.admitted_at
        return None if admitted is None else admitted - self.remediation.received_at

    @property
    def ran(self) -> timedelta | None:
        """How long the Job ran; None if it did not start, or has not ended."""
        remediation = self.remediation
        started, finished = remediation.started_at, remediation.finished_at
        if not remediation.has_run or started is None or finished is None:
            return None
        return finished - started

    @property
    def queued(self) -> timedelta | None:
        """How long it has been in its Kueue queue since it was last put there; else None."""
        remediation = self.remediation
        if remediation.phase is not Phase.QUEUED or remediation.admitted_at is None:
            return None
        since = max(remediation.admitted_at, remediation.suspended_at or remediation.admitted_at)
        return max(self.at - since, timedelta(0))


def trace(
    remediation: Remediation,
    job: Object,
    *,
    incident: Iterable[Remediation],
    pods: Iterable[Object],
    events: Iterable[Object],
    approval_verified: bool | None,
    now: datetime,
    wait: Wait | None = None,
    instead_of_wait: str = "",
) -> Trace:
    """Collect what is known of a remediation.

    Args:
        remediation: what `observe` reads from the Job.
        job: the Job itself.
        incident: the Jobs of the same incident, on which the effect depends.
        pods: those of the Job that still exist.
        events: those about the Job and its Pods that still exist.
        approval_verified: see `Trace`.
        now: the current time, UTC.
        wait: see `Trace`.
        instead_of_wait: see `Trace`.
    """
    annotations: Mapping[str, str] = job["metadata"].get("annotations") or {}
    pod_states = tuple(sorted(map(_pod, pods), key=lambda pod: (pod.created_at or now, pod.name)))
    shown = sorted(map(_event, events), key=lambda event: (event.at or now, event.about))
    assessment = assess(remediation, incident, now)
    approved_at = annotation_written_at(job, keys.APPROVED_BY) if remediation.approved_by else None
    moments = [
        *_moments_of_job(remediation, annotations),
        *_moments_of_approval(remediation, approved_at),
        *_moments_of_effect(assessment),
        *(moment for pod in pod_states for moment in _moments_of_pod(pod)),
        *_moments_of_events(shown, remediation.admitted_at, approved=approved_at is not None),
    ]
    moments.sort(key=lambda moment: (moment.at.replace(microsecond=0), moment.step))
    return Trace(
        at=now,
        remediation=remediation,
        annotations=annotations,
        alert=_alert(annotations),
        assessment=assessment,
        approval_verified=approval_verified if remediation.approved_by else None,
        approved_at=approved_at,
        wait=wait,
        instead_of_wait=instead_of_wait,
        pods=pod_states,
        events=tuple(shown),
        timeline=tuple(moments),
    )


def newest(pods: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort Pods, the newest first."""
    return sorted(
        pods,
        key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]),
        reverse=True,
    )


def _alert(annotations: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        alert = json.loads(annotations.get(keys.ALERT) or "{}")
    except (ValueError, RecursionError):
        return {}
    return alert if isinstance(alert, dict) else {}


def _moments_of_job(remediation: Remediation, annotations: Mapping[str, str]) -> Iterator[Moment]:
    received = remediation.received_at
    if remediation.starts_at:
        yield Moment(remediation.starts_at, Step.FIRING, "the alert started firing")
    by = annotations.get(keys.RECEIVED_BY) or "a replica"
    attempt = f", attempt {remediation.attempt}" if remediation.attempt > 1 else ""
    yield Moment(received, Step.RECEIVED, f"received by {by}: Job created{attempt}")
    if remediation.delivered_at > received + _SECOND:
        yield Moment(remediation.delivered_at, Step.RESOLVED, "the alert was delivered again")
    if remediation.admitted_at:
        yield Moment(remediation.admitted_at, Step.ADMITTED, _admission(remediation))
    if (
        remediation.started
        and remediation.started_at
        and remediation.started_at != (remediation.admitted_at)
    ):
        text = "the Job started"
        if remediation.starts > 1:
            text = f"the Job was started again (start {remediation.starts})"
        yield Moment(remediation.started_at, Step.STARTED, text)
    if remediation.finished_at:
        yield Moment(remediation.finished_at, Step.ENDED, _end(remediation))
    if remediation.still_firing_at:
        text = "the alert was delivered, still firing"
        yield Moment(remediation.still_firing_at, Step.RESOLVED, text)
    if remediation.resolved_at:
        yield Moment(remediation.resolved_at, Step.RESOLVED, "the alert was resolved")


def _admission(remediation: Remediation) -> str:
    if remediation.started_by_other:
        return "started by someone other than the controller"
    admitted = remediation.admitted_at or remediation.received_at
    waited = format_age(admitted - remediation.received_at)
    how = f"passed to Kueue queue {remediation.queue}" if remediation.queue else "admitted"
    return f"{how} by {remediation.admitted_by or 'the leader'}, after waiting {waited}"


def _end(remediation: Remediation) -> str:
    ran = ""
    if remediation.started_at and remediation.finished_at:
        ran = f" after {format_age(remediation.finished_at - remediation.started_at)}"
    if remediation.phase is Phase.SUCCEEDED:
        return f"the Job succeeded{ran}"
    if remediation.phase is Phase.FAILED:
        return f"the Job failed{ran}: {remediation.message or remediation.reason}"
    return f"the Job ended{ran}"


def _moments_of_effect(assessment: Assessment | None) -> Iterator[Moment]:
    if assessment is not None and assessment.at is not None:
        text = f"effect: {assessment.effect}, {assessment.message}"
        yield Moment(assessment.at, Step.EFFECT, text)


def _moments_of_pod(pod: PodState) -> Iterator[Moment]:
    for container in pod.containers:
        name = f"container {container.name} of Pod {pod.name}"
        if container.started_at:
            yield Moment(container.started_at, Step.CONTAINER_STARTED, f"{name} started")
        if container.finished_at:
            text = f"{name} {exit_text(container)}"
            yield Moment(container.finished_at, Step.CONTAINER_ENDED, text)


def exit_text(container: ContainerState) -> str:
    """How a container ended: `exited with code 3 (Error): no disk`."""
    reason = f" ({container.reason})" if container.reason else ""
    message = f": {container.message}" if container.message else ""
    return f"exited with code {container.exit_code}{reason}{message}"


def _moments_of_approval(
    remediation: Remediation, approved_at: datetime | None
) -> Iterator[Moment]:
    if approved_at is not None:
        reason = f": {remediation.approval_reason}" if remediation.approval_reason else ""
        text = f"approved by {remediation.approved_by}{reason}"
        yield Moment(approved_at, Step.DECIDED, text)


def _moments_of_events(
    events: Sequence[ShownEvent], admitted_at: datetime | None, *, approved: bool
) -> Iterator[Moment]:
    """Return the Events that say something else; `approved` is whether the approval is shown."""
    for event in events:
        if event.is_ours and event.reason == _APPROVED and approved:
            continue
        if event.at is not None and event.reason not in _REDUNDANT:
            times = f" ({event.count} times)" if event.count > 1 else ""
            step = Step.DECIDED if event.is_ours else Step.CLUSTER_EVENT
            at = event.at
            if admitted_at is not None and event.is_ours and event.reason == _APPROVED:
                # The leader announces an approval after it has seen it, which may be after it
                # admitted the Job. An approval is never after the admission that needed it.
                at = min(at, admitted_at)
            yield Moment(at, step, f"{event.reason}: {event.note}{times}")


def _pod(pod: Object) -> PodState:
    status = pod.get("status") or {}
    metadata = pod["metadata"]
    return PodState(
        metadata["name"],
        status.get("phase") or "Unknown",
        parse_time(metadata.get("creationTimestamp")),
        tuple(
            _container(container)
            for kind in ("initContainerStatuses", "containerStatuses")
            for container in status.get(kind) or ()
        ),
    )


def _container(status: Object) -> ContainerState:
    name = str(status.get("name") or "")
    states = status.get("state") or {}
    kind = next((kind for kind in ("terminated", "running", "waiting") if states.get(kind)), "")
    state = states.get(kind) or {}
    return ContainerState(
        name,
        kind or "waiting",
        state.get("exitCode") if kind == "terminated" else None,
        str(state.get("reason") or ""),
        str(state.get("message") or "").strip(),
        parse_time(state.get("startedAt")),
        parse_time(state.get("finishedAt")),
    )


def _event(event: Object) -> ShownEvent:
    series = event.get("series") or {}
    times = (
        event.get("eventTime"),
        event.get("deprecatedFirstTimestamp"),
        series.get("lastObservedTime"),
        event["metadata"].get("creationTimestamp"),
    )
    about = event.get("regarding") or {}
    return ShownEvent(
        next(filter(None, map(parse_time, times)), None),
        f"{about.get('kind')}/{about.get('name')}",
        str(event.get("reason") or ""),
        str(event.get("note") or ""),
        event.get("type") == "Warning",
        int(series.get("count") or event.get("deprecatedCount") or 1),
        event.get("reportingController") == CONTROLLER,
    )

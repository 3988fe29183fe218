"""The state of a controller on one screen: what runs, what fails, and which actions are needed.

It is computed from what is recorded in the API server, so that it needs no replica.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.decide import decide
from openfero_gitops.admission.not_helping import list_not_helping
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sync_report import SyncReport
from openfero_gitops.domain.text import labels, listed, plural, printable
from openfero_gitops.domain.watchdog import overdue, read_delivery
from openfero_gitops.effects.assess import assess, index_incidents
from openfero_gitops.effects.incident import Incident
from openfero_gitops.effects.unresolved import list_unresolved
from openfero_gitops.jobs.workload import is_stuck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.not_helping import NotHelping
    from openfero_gitops.domain.catalog import Catalog, Revision
    from openfero_gitops.domain.effect import Effect
    from openfero_gitops.domain.lease import LeaseRecord
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.remediation import Foreign, JobKey, Remediation
    from openfero_gitops.domain.sync import RefusedRevision
    from openfero_gitops.domain.watchdog import Watchdog

#: Results older than this are not counted.
RECENT: Final = timedelta(hours=24)
#: A Lease that was not renewed for its duration and this time has no holder any more. The user's
#: clock may differ from the leader's.
_LEASE_TOLERANCE: Final = timedelta(minutes=1)
_COMMIT_CHARACTERS: Final = 12
_MAX_FOREIGN_SHOWN: Final = 3
#: Of the labels in one line, and of each of their values.
_MAX_LABELS: Final = 3
_MAX_LABEL_CHARACTERS: Final = 60


class Topic(StrEnum):
    """What an action is about, in the order in which actions are listed."""

    LEADER = "leader"
    CATALOG = "catalog"
    SYNC = "sync"
    REVISION_REFUSED = "revision-refused"
    WATCHDOG = "watchdog"
    QUARANTINED = "quarantined"
    FOREIGN_JOBS = "foreign-jobs"
    APPROVAL = "approval"
    NOT_HELPING = "not-helping"
    FAILED = "failed"
    NOT_HEALED = "not-healed"
    POD_WAITING = "pod-waiting"
    HELD = "held"
    STUCK_IN_QUEUE = "stuck-in-queue"


@dataclass(frozen=True, slots=True)
class Action:
    """An action that is needed: since when, what it is about, and a command to act or see more."""

    topic: Topic
    message: str
    since: datetime | None = None
    command: str = ""
    remediation: Remediation | None = None


@dataclass(frozen=True, slots=True)
class Records:
    """What was read from the API server.

    `catalog` is that of the mirror; None if there is no mirror, or if `mirror_error` says why it
    cannot be used. `active_since` is when the leader activated its revision. `watchdog` is the
    record of the last delivery of the watchdog's alert, see `domain.watchdog`. `queue_error` is why
    Kueue's reasons of the queued Jobs cannot be read.
    """

    namespace: str
    jobs: Sequence[Remediation]
    foreign: Sequence[Foreign] = ()
    lease: LeaseRecord | None = None
    revision: Revision | None = None
    active_since: datetime | None = None
    refused: RefusedRevision | None = None
    report: SyncReport = field(default_factory=SyncReport)
    catalog: Catalog | None = None
    mirror_error: str = ""
    pause: Pause | None = None
    watchdog: str = ""
    queue_error: str = ""

    @property
    def expected_watchdog(self) -> Watchdog | None:
        """The watchdog of the active openfero.yaml."""
        return self.catalog.envelope.watchdog if self.catalog else None

    @property
    def watchdog_delivered_at(self) -> datetime | None:
        """When its alert was last delivered, as far as that is recorded."""
        expected = self.expected_watchdog
        return read_delivery(self.watchdog, expected) if expected else None


@dataclass(frozen=True, slots=True)
class Recent:
    """Remediations that started in the last 24 hours, by result; dry runs are not counted."""

    started: int = 0
    phases: Mapping[Phase, int] = field(default_factory=dict)
    effects: Mapping[Effect, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControllerStatus:
    """The state of a controller at a time.

    `leader` is None if no replica leads. `waiting` counts Jobs by the reason why they wait.
    """

    at: datetime
    records: Records
    leader: LeaseRecord | None
    phases: Mapping[Phase, int]
    waiting: Mapping[str, int]
    recent: Recent
    actions: tuple[Action, ...]


def summarize(records: Records, now: datetime) -> ControllerStatus:
    """Compute the state of a controller."""
    jobs = with_requirements(records.jobs, records.catalog)
    decisions = _decide(jobs, records, now)
    waiting: Counter[str] = Counter()
    for remediation in jobs:
        if remediation.waiting:
            waiting[_reason(remediation, decisions.get(remediation.key))] += 1
    incidents = index_incidents(jobs)

    def incident_of(remediation: Remediation) -> Incident:
        return incidents.get(remediation.incident) or Incident([remediation])

    leader = _leader(records.lease, now)
    envelope = records.catalog.envelope if records.catalog else Envelope()
    actions = [
        *_actions_of_controller(records, leader),
        *_actions_of_watchdog(records, now),
        *_actions_of_jobs(jobs, list_not_helping(jobs, records.catalog, now)),
        *_actions_of_results(jobs, incident_of, envelope.remember, now),
    ]
    topics = list(Topic)
    actions.sort(key=lambda action: (topics.index(action.topic), action.since or now))
    return ControllerStatus(
        at=now,
        records=records,
        leader=leader,
        phases=Counter(remediation.phase for remediation in jobs),
        waiting=dict(waiting.most_common()),
        recent=_recent(jobs, incident_of, now),
        actions=tuple(actions),
    )


def decisions_on(records: Records, now: datetime) -> Mapping[JobKey, Decision]:
    """Decide on the waiting Jobs as the leader does; empty if the limits are not known."""
    return _decide(with_requirements(records.jobs, records.catalog), records, now)


def why_no_catalog(records: Records) -> str:
    """Why the active catalog cannot be read; empty if it can."""
    if records.mirror_error or records.revision is not None:
        return records.mirror_error
    return "no commit has become active yet: see the log of the controller"


def _decide(
    jobs: Sequence[Remediation], records: Records, now: datetime
) -> Mapping[JobKey, Decision]:
    """Decide as the leader does; empty without a catalog, since the limits are not known then."""
    if records.catalog is None:
        return {}
    pairs = decide(jobs, records.catalog.envelope, pause=records.pause, now=now)
    return {remediation.key: decision for remediation, decision in pairs}


def _reason(remediation: Remediation, decision: Decision | None) -> str:
    if decision is not None:
        return decision.reason.value
    return Reason.APPROVAL.value if remediation.phase is Phase.AWAITING_APPROVAL else "unknown"


def _leader(lease: LeaseRecord | None, now: datetime) -> LeaseRecord | None:
    if lease is None or not lease.holder or lease.renewed_at is None:
        return None
    expires = lease.renewed_at + timedelta(seconds=lease.duration) + _LEASE_TOLERANCE
    return lease if now <= expires else None


def _actions_of_controller(records: Records, leader: LeaseRecord | None) -> Iterator[Action]:
    if leader is None:
        lost = records.lease.renewed_at if records.lease else None
        message = (
            "no replica leads, so no Job starts: check the controller's Pods in namespace "
            f'"{records.namespace}"'
        )
        command = f"kubectl -n {records.namespace} get pods"
        yield Action(Topic.LEADER, message, lost, command)
    if message := why_no_catalog(records):
        yield Action(Topic.CATALOG, message)
    report, refused = records.report, records.refused
    if report.error and refused is not None and refused.reason == report.error:
        commit = refused.commit[:_COMMIT_CHARACTERS]
        message = f"commit {commit} was refused: {refused.reason}"
        yield Action(Topic.REVISION_REFUSED, message, report.failing_since)
    elif report.error:
        yield Action(Topic.SYNC, f"the sync fails: {report.error}", report.failing_since)
    if report.quarantined_files:
        count = plural(report.quarantined_files, "file")
        verbs = "has errors and is" if report.quarantined_files == 1 else "have errors and are"
        message = f"{count} {verbs} quarantined"
        yield Action(Topic.QUARANTINED, message)
    if records.foreign:
        names = listed((str(job.key) for job in records.foreign), _MAX_FOREIGN_SHOWN)
        verb = "has" if len(records.foreign) == 1 else "have"
        pronoun = "it" if len(records.foreign) == 1 else "them"
        message = (
            f"{plural(len(records.foreign), 'Job')} {verb} the controller's label, but the "
            f"controller did not create {pronoun}: {names}"
        )
        yield Action(Topic.FOREIGN_JOBS, message, command="openfero-gitops audit")


def _actions_of_watchdog(records: Records, now: datetime) -> Iterator[Action]:
    watchdog = records.expected_watchdog
    if watchdog is None or records.active_since is None:
        return
    # (Each commit has an `active_since` of its own, so it only counts without a delivery.)
    delivered_at = records.watchdog_delivered_at
    since = delivered_at or records.active_since
    if message := overdue(watchdog, delivered_at, since, now):
        yield Action(Topic.WATCHDOG, message, since)


def _actions_of_jobs(
    jobs: Iterable[Remediation], not_helping: Mapping[JobKey, NotHelping]
) -> Iterator[Action]:
    """What waits for a person, and what runs but makes no progress."""
    for remediation in jobs:
        job, about = remediation.key, alert_text(remediation)
        if remediation.waiting and remediation.deleting:
            continue
        if (state := not_helping.get(job)) is not None:
            verb = "approve" if remediation.waiting else "trace"
            yield Action(
                Topic.NOT_HELPING,
                f"{about}: {state.message}",
                state.since,
                f"openfero-gitops {verb} {job}",
                remediation,
            )
        elif remediation.phase is Phase.AWAITING_APPROVAL:
            yield Action(
                Topic.APPROVAL,
                f"{about}: {remediation.message or Reason.APPROVAL.text}",
                remediation.received_at,
                f"openfero-gitops approve {job}",
                remediation,
            )
        elif remediation.phase is Phase.HELD:
            yield Action(
                Topic.HELD,
                f"{about}: somebody suspended the Job after it started; cancel it, or delete it so "
                "that the next delivery of its alert creates a new one",
                remediation.suspended_at or remediation.started_at,
                f"openfero-gitops cancel {job}",
                remediation,
            )
        elif remediation.phase is Phase.QUEUED and is_stuck(
            remediation.reason, remediation.message
        ):
            yield Action(
                Topic.STUCK_IN_QUEUE,
                f"{about}: Kueue does not start it: {remediation.message}",
                remediation.admitted_at,
                f"openfero-gitops trace {job}",
                remediation,
            )
        elif remediation.phase is Phase.RUNNING and remediation.pod_waiting:
            yield Action(
                Topic.POD_WAITING,
                f"{about}: {remediation.pod_waiting}",
                remediation.started_at,
                f"openfero-gitops trace {job}",
                remediation,
            )


def _actions_of_results(
    jobs: Iterable[Remediation],
    incident_of: Callable[[Remediation], Incident],
    remember: timedelta,
    now: datetime,
) -> Iterator[Action]:
    """The newest Job of each incident that failed or did not heal, while its alert fires."""
    for unresolved in list_unresolved(jobs, incident_of, remember, now):
        last = unresolved.remediation
        yield Action(
            Topic.FAILED if unresolved.failed else Topic.NOT_HEALED,
            f"{alert_text(last)}: {unresolved.message}",
            unresolved.since,
            f"openfero-gitops trace {last.key}",
            last,
        )


def _recent(
    jobs: Iterable[Remediation], incident_of: Callable[[Remediation], Incident], now: datetime
) -> Recent:
    phases: Counter[Phase] = Counter()
    effects: Counter[Effect] = Counter()
    started = 0
    for remediation in jobs:
        start = remediation.started_at
        if not remediation.has_run or start is None or start < now - RECENT:
            continue
        started += 1
        phases[remediation.phase] += 1
        assessment = assess(remediation, incident_of(remediation), now)
        if assessment is not None:
            effects[assessment.effect] += 1
    return Recent(started, phases, effects)


def alert_text(remediation: Remediation) -> str:
    """The alert of a remediation in a few words: its name, and the labels of its target."""
    name = printable(remediation.alertname or remediation.operario)
    status = "" if remediation.status is Status.FIRING else f" ({remediation.status})"
    target = dict(list(remediation.target_labels.items())[:_MAX_LABELS])
    return f"{name}{status} {labels(target, _MAX_LABEL_CHARACTERS)}".rstrip()

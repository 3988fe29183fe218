"""The state of a replica for pages, API and probes.

`State` reads the parts of the controller; its methods are fast and do no I/O. Only decisions are
expensive: they are computed for every waiting Job, on the event loop. `DecisionCache` limits the
time spent on them, however often pages are read and however fast Jobs change.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from openfero_gitops.admission.decide import decide_indexed
from openfero_gitops.admission.not_helping import list_not_helping
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.health import Condition
from openfero_gitops.domain.text import listed, plural
from openfero_gitops.effects.assess import assess
from openfero_gitops.effects.incident_index import IncidentIndex
from openfero_gitops.effects.unresolved import list_unresolved
from openfero_gitops.jobs.workload import with_queue_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.live_index import LiveIndex
    from openfero_gitops.admission.not_helping import NotHelping
    from openfero_gitops.admission.pause import Control
    from openfero_gitops.catalog.lag import LagMonitor
    from openfero_gitops.catalog.presence import Presence
    from openfero_gitops.catalog.revisions import RevisionHistory
    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.delivery.unanswered import UnansweredRecord
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.health import About
    from openfero_gitops.domain.lease import Leadership
    from openfero_gitops.domain.pause import Pause
    from openfero_gitops.domain.problem import Problem
    from openfero_gitops.domain.remediation import Foreign, JobKey, Remediation
    from openfero_gitops.domain.replica import ReplicaReport
    from openfero_gitops.domain.sync import ReplicaLag, SyncStatus
    from openfero_gitops.effects.assess import Assessment
    from openfero_gitops.effects.unresolved import Unresolved
    from openfero_gitops.jobs.view import Observer, View
    from openfero_gitops.jobs.workload import QueueStatus
    from openfero_gitops.leadership.elector import Elector

_STOPPING: Final = "this replica is stopping, but still accepts deliveries"
#: Foreign Jobs that are named in a condition.
_MAX_FOREIGN_SHOWN: Final = 4
#: Decisions depend on the time, so they are computed again after this time.
_MAX_AGE_SECONDS: Final = 1.0
#: Decisions are reused for at least this many times the time it took to compute them.
_REUSE_FACTOR: Final = 9.0


class RequiredJobs:
    """The Jobs of a view with what the active catalog requires, computed once until one changes."""

    def __init__(self, view: View) -> None:
        """Take the view; nothing is read yet."""
        self._view = view
        self._inputs: tuple[int, Catalog | None] = (-1, None)
        self._jobs: Sequence[Remediation] = ()

    def get(self, catalog: Catalog | None) -> Sequence[Remediation]:
        """Return the Jobs."""
        changes, computed_for = self._inputs
        if changes != self._view.changes or computed_for is not catalog:
            self._jobs = with_requirements(self._view, catalog)
            self._inputs = (self._view.changes, catalog)
        return self._jobs


class DecisionCache:
    """Caches the decisions on waiting Jobs."""

    def __init__(
        self,
        view: View,
        index: LiveIndex,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Cache decisions on the Jobs of a view and its index; `clock` returns seconds."""
        self._view = view
        self._index = index
        self._clock = clock
        self._decisions: Mapping[JobKey, Decision] = {}
        self._changes = -1
        self._settings: tuple[Catalog | None, Pause | None] = (None, None)
        self._not_before = self._until = clock()

    def get(
        self, catalog: Catalog | None, pause: Pause | None, *, now: datetime
    ) -> Mapping[JobKey, Decision]:
        """Return the decision on each waiting Job, computed now or a moment ago.

        Decisions by another catalog or pause are never returned.
        """
        changes, settings = self._view.changes, (catalog, pause)
        started = self._clock()
        other = self._settings[0] is not catalog or self._settings[1] != pause
        stale = started >= self._until or changes != self._changes
        if other or (stale and started >= self._not_before):
            index = self._index.get()
            pairs = decide_indexed(
                index,
                with_requirements(index.waiting.values(), catalog),
                catalog.envelope if catalog else None,
                pause=pause,
                now=now,
            )
            self._decisions = {remediation.key: decision for remediation, decision in pairs}
            self._changes, self._settings = changes, settings
            ended = self._clock()
            self._not_before = ended + (ended - started) * _REUSE_FACTOR
            self._until = ended + _MAX_AGE_SECONDS
        return self._decisions


class ClusterFindings(Protocol):
    """What dry runs in the cluster found about operarios."""

    def problems(self, catalog: Catalog) -> tuple[Problem, ...]:
        """The problems found in the cluster; the same object until they change."""
        ...

    def is_approval_verified(self, remediation: Remediation, /) -> bool:
        """Whether the cluster verified the approver's name."""
        ...

    @property
    def policy_advice(self) -> str:
        """What is missing to protect the Jobs from users; empty if nothing is known to be."""
        ...


class HealthSource(Protocol):
    """A part of the controller that reports why it does not work."""

    @property
    def trouble(self) -> str:
        """Why the part does not work; empty if it does."""
        ...


class OptionalPart(HealthSource, Protocol):
    """A part of the controller that works only where it is configured."""

    @property
    def configured(self) -> bool:
        """Whether it is."""
        ...


class Deliveries(HealthSource, Protocol):
    """What creates the Jobs of alerts."""

    @property
    def backlog(self) -> str:
        """Why no further Jobs are created; empty if they are."""
        ...


class Queue(Protocol):
    """What knows why Kueue has not started Jobs."""

    def status(self, remediation: Remediation, /) -> QueueStatus | None:
        """Return why Kueue has not started a Job; None if that is not known, or it has."""
        ...


class State:
    """The state of one replica, read from its parts."""

    def __init__(
        self,
        about: About,
        *,
        syncer: Syncer,
        lag_monitor: LagMonitor,
        elector: Elector,
        observer: Observer,
        view: View,
        index: LiveIndex,
        control: Control,
        cluster_findings: ClusterFindings,
        deliveries: Deliveries,
        queue: Queue,
        notifications: OptionalPart,
        clock: HealthSource,
        watchdog: OptionalPart,
        unanswered: Callable[[], UnansweredRecord],
        stopping: Callable[[], bool],
        next_sync: Callable[[], datetime | None],
        presence: Presence,
        now: Callable[[], datetime],
    ) -> None:
        """Read from these parts; `about` does not change while the replica runs."""
        self._about = about
        self._syncer = syncer
        self._lag_monitor = lag_monitor
        self._elector = elector
        self._observer = observer
        self._view = view
        self._incidents = IncidentIndex(view)
        self._control = control
        self._cluster_findings = cluster_findings
        self._deliveries = deliveries
        self._queue = queue
        self._notifications = notifications
        self._clock = clock
        self._watchdog = watchdog
        self._unanswered = unanswered
        self._stopping = stopping
        self._next_sync = next_sync
        self._presence = presence
        self._now = now
        self._required = RequiredJobs(view)
        self._decisions = DecisionCache(view, index)
        self._not_helping: tuple[Mapping[JobKey, Decision], Mapping[JobKey, NotHelping]] = ({}, {})
        self._unresolved: tuple[Mapping[JobKey, Decision], Sequence[Unresolved]] = ({}, ())
        self._shown: tuple[Catalog, tuple[Problem, ...], Catalog] | None = None

    def about(self) -> About:
        """Return version, name and namespaces of this replica."""
        return self._about

    def catalog(self) -> Catalog | None:
        """Return the active catalog, including the problems found by dry runs in the cluster."""
        catalog = self._syncer.catalog
        if catalog is None:
            return None
        reported = self._cluster_findings.problems(catalog)
        if self._shown is None or self._shown[0] is not catalog or self._shown[1] is not reported:
            problems = catalog.problems + reported
            shown = replace(catalog, problems=problems) if reported else catalog
            self._shown = (catalog, reported, shown)
        return self._shown[2]

    def sync(self) -> SyncStatus:
        """Return the status of the last sync."""
        return self._syncer.status

    def lag(self) -> ReplicaLag | None:
        """Compare this replica's commit with the leader's; None if unknown."""
        return self._lag_monitor.lag

    def unanswered(self) -> UnansweredRecord:
        """Return the alerts of the last day that got no Job, of all replicas."""
        return self._unanswered()

    def revisions(self) -> RevisionHistory:
        """Return when which revision was active on the leader, as it is recorded."""
        return self._lag_monitor.history

    def replicas(self) -> Sequence[ReplicaReport]:
        """Return what each replica last reported, by name."""
        return self._presence.replicas

    def next_sync(self) -> datetime | None:
        """Return when the next sync begins; None if that is not known yet."""
        return self._next_sync()

    def leadership(self) -> Leadership:
        """Return which replica leads."""
        return self._elector.status

    def remediations(self) -> Iterable[Remediation]:
        """Return all remediations, as they are shown.

        The waiting ones have what the active catalog requires, and the queued ones the reason that
        Kueue gives.
        """
        return map(self._with_queue_status, self._required.get(self._syncer.catalog))

    def remediation(self, key: JobKey) -> Remediation | None:
        """Return one remediation as `remediations` does; None if it is not known."""
        remediation = self._view.get(key)
        if remediation is None:
            return None
        (required,) = with_requirements([remediation], self._syncer.catalog)
        return self._with_queue_status(required)

    def _with_queue_status(self, remediation: Remediation) -> Remediation:
        status = self._queue.status(remediation)
        if status is None:
            return remediation
        return with_queue_status(remediation, status)

    def effect(self, remediation: Remediation) -> Assessment | None:
        """Return whether a remediation helped, as a leader would settle it now.

        None if it has no effect.
        """
        return assess(remediation, self._incidents.of(remediation), self._now())

    def unresolved(self) -> Sequence[Unresolved]:
        """Return what failed or did not heal while its alert fires: one Job of each incident.

        Computed again when the decisions are.
        """
        decisions = self.decisions()
        if self._unresolved[0] is not decisions:
            catalog = self._syncer.catalog
            remember = (catalog.envelope if catalog else Envelope()).remember
            self._unresolved = (
                decisions,
                list_unresolved(self._view, self._incidents.of, remember, self._now()),
            )
        return self._unresolved[1]

    def is_approval_verified(self, remediation: Remediation) -> bool:
        """Whether the cluster verified the approver's name."""
        return self._cluster_findings.is_approval_verified(remediation)

    def pause(self) -> Pause | None:
        """Return the pause of admission; None if there is none."""
        return self._control.pause

    def decisions(self) -> Mapping[JobKey, Decision]:
        """Return the decision on each waiting Job, as a leader would make it now."""
        return self._decisions.get(self._syncer.catalog, self._control.pause, now=self._now())

    def not_helping(self) -> Mapping[JobKey, NotHelping]:
        """Return the Jobs that do not start because their operario does not help, and why.

        Computed again when the decisions are.
        """
        decisions = self.decisions()
        if self._not_helping[0] is not decisions:
            catalog = self._syncer.catalog
            jobs = self._required.get(catalog)
            self._not_helping = decisions, list_not_helping(jobs, catalog, self._now())
        return self._not_helping[1]

    def conditions(self) -> Sequence[Condition]:
        """Check what this replica needs to work."""
        status = self._syncer.status
        catalog = self._syncer.catalog
        trouble = self._observer.trouble
        whole = self._view.complete
        return (
            Condition(
                "catalog",
                catalog is not None,
                "" if catalog else status.why_no_catalog,
            ),
            Condition(
                "jobs",
                whole and not trouble,
                "; ".join(f"{namespace}: {why}" for namespace, why in trouble.items())
                or ("" if whole else "Jobs have not been listed yet"),
                # (The other namespaces still work.)
                vital=not whole or len(trouble) == len(self._about.allowed_namespaces),
            ),
            _condition("serving", _STOPPING if self._stopping() else ""),
            _condition("deliveries", self._deliveries.trouble),
            _condition("waiting jobs", self._deliveries.backlog, vital=False),
            _condition("clock", self._clock.trouble),
            _condition("control", self._control.trouble, vital=False),
            _condition("leader", self._elector.trouble, vital=False),
            _condition("in step", self._lag_monitor.message, vital=False),
            _optional("alertmanager", self._notifications),
            _optional("watchdog", self._watchdog),
            _condition("foreign jobs", foreign_jobs_message(self._view.foreign), vital=False),
            Condition(
                "job policy",
                not (policy_advice := self._cluster_findings.policy_advice),
                policy_advice,
                vital=False,
                advice="Users can change Jobs of the controller",
            ),
        )


def foreign_jobs_message(foreign: Sequence[Foreign]) -> str:
    """What is wrong about Jobs that others created with the controller's label; empty if none."""
    if not foreign:
        return ""
    names = listed((f"{job.key} ({job.why})" for job in foreign), _MAX_FOREIGN_SHOWN)
    return (
        f"{plural(len(foreign), 'Job')} with the label {keys.MANAGED_BY}={keys.MANAGER} not "
        f"created by this controller, and ignored: {names}; find out who created or changed them, "
        "and delete them"
    )


def _optional(name: str, part: OptionalPart) -> Condition:
    trouble = part.trouble
    return Condition(name, not trouble, trouble, vital=False, configured=part.configured)


def _condition(name: str, trouble: str, *, vital: bool = True) -> Condition:
    return Condition(name, not trouble, trouble, vital=vital)

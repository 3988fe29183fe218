"""What is counted, in Prometheus' exposition format.

OpenFero's three names are kept: dashboards outlive what they watch. Those about the end of Jobs
are counted by the leader alone, so that a sum over replicas is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.domain.sync import Changes, SyncStatus

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Every counter of one process."""

    def __init__(self, version: str) -> None:
        """Register the metrics with a registry of their own."""
        self._registry = registry = CollectorRegistry()
        self._leading = False
        self._waited_for: set[Reason] = set()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._created = Counter(
            "openfero_jobs_created_total", "Jobs created for alerts", registry=registry
        )
        self._succeeded = Counter(
            "openfero_jobs_succeeded_total", "Jobs that completed", registry=registry
        )
        self._failed = Counter("openfero_jobs_failed_total", "Jobs that failed", registry=registry)
        self._alerts = Counter(
            "openfero_gitops_alerts_total",
            "Alerts delivered, by what became of them",
            ("outcome", "reason"),
            registry=registry,
        )
        self._truncated = Counter(
            "openfero_gitops_alerts_truncated_total",
            "Alerts that Alertmanager left out of its deliveries (max_alerts)",
            registry=registry,
        )
        self._deliveries = Counter(
            "openfero_gitops_deliveries_total",
            "Deliveries answered, by HTTP status",
            ("code",),
            registry=registry,
        )
        self._seconds = Histogram(
            "openfero_gitops_delivery_seconds",
            "Time from a delivery to its answer",
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 9),
        )
        self._decisions = Counter(
            "openfero_gitops_decisions_total",
            "Decisions on waiting Jobs that were carried out",
            ("reason",),
            registry=registry,
        )
        self._waiting = Gauge(
            "openfero_gitops_waiting",
            "Jobs that wait, by what stands before them, as the leader sees it",
            ("reason",),
            registry=registry,
        )
        self._transitions = Counter(
            "openfero_gitops_leader_transitions_total",
            "How often this replica began or ceased to lead",
            registry=registry,
        )
        self._events = Counter(
            "openfero_gitops_events_total",
            "Kubernetes Events written, and lost",
            ("result",),
            registry=registry,
        )
        self._leader = Gauge(
            "openfero_gitops_leader", "1 on the replica that leads", registry=registry
        )
        self._syncs = Counter(
            "openfero_gitops_syncs_total", "Syncs, by result", ("result",), registry=registry
        )
        self._sync_seconds = Gauge(
            "openfero_gitops_sync_seconds", "Time the last sync took", registry=registry
        )
        self._step_seconds = Gauge(
            "openfero_gitops_sync_step_seconds",
            "Time that each step of the last sync took",
            ("step",),
            registry=registry,
        )
        self._failing_since = Gauge(
            "openfero_gitops_sync_failing_since_timestamp_seconds",
            "Since when no sync has succeeded; 0 while the last one did",
            registry=registry,
        )
        self._changes = Counter(
            "openfero_gitops_sync_changes_total",
            "Operarios that came into force as added or changed, or went out of it",
            ("change",),
            registry=registry,
        )
        self._revision = Gauge(
            "openfero_gitops_revision_info",
            "1 for the commit in force on this replica",
            ("commit",),
            registry=registry,
        )
        self._last_success = Gauge(
            "openfero_gitops_sync_last_success_timestamp_seconds",
            "When a sync last succeeded",
            registry=registry,
        )
        self._operarios = Gauge(
            "openfero_gitops_operarios", "Operarios in force", registry=registry
        )
        self._problems = Gauge(
            "openfero_gitops_problems", "Errors in the catalog in force", registry=registry
        )
        self._dry_runs = Counter(
            "openfero_gitops_dry_runs_total",
            "Operarios tried in the cluster by the leader, by what the API server said",
            ("result",),
            registry=registry,
        )
        self._info = Gauge(
            "openfero_gitops_build_info", "Always 1", ("version",), registry=registry
        )
        self._info.labels(version).set(1)

    def delivered(self, answer: Answer, truncated: int) -> None:
        """One delivery was taken, alert by alert."""
        self._truncated.inc(truncated)
        for item in answer.items:
            reason = item.reason.value if isinstance(item.reason, Reason) else ""
            self._alerts.labels(item.outcome.value, reason).inc()
        created = answer.count(Outcome.CREATED) + answer.count(Outcome.REFUSED)
        self._created.inc(created)

    def answered(self, code: int, seconds: float) -> None:
        """A delivery was answered with an HTTP status, also one that could not be read."""
        self._deliveries.labels(str(code)).inc()
        self._seconds.observe(seconds)

    def decided(self, reason: Reason) -> None:
        """A decision was carried out."""
        self._decisions.labels(reason.value).inc()

    def ended(self, remediation: Remediation) -> None:
        """A remediation reached a phase that it never leaves."""
        if remediation.phase is Phase.SUCCEEDED:
            self._succeeded.inc()
        elif remediation.phase is Phase.FAILED:
            self._failed.inc()

    def leads(self, *, leading: bool) -> None:
        """Leadership was won or lost, or is as it was."""
        if leading is not self._leading:
            self._transitions.inc()
        self._leading = leading
        self._leader.set(leading)

    def waiting(self, reasons: Mapping[Reason, int]) -> None:
        """So many remediations wait now, by what stands before them."""
        for gone in self._waited_for - reasons.keys():
            self._waiting.labels(gone.value).set(0)
        self._waited_for |= reasons.keys()
        for reason, count in reasons.items():
            self._waiting.labels(reason.value).set(count)

    def told(self, result: str) -> None:
        """An Event was `sent`, or `lost`."""
        self._events.labels(result).inc()

    def tried(self, result: str) -> None:
        """An operario was tried: `accepted`, `warning`, `refused`; `failed`: no answer yet."""
        self._dry_runs.labels(result).inc()

    def synced(self, status: SyncStatus) -> None:
        """A sync ended, well or not."""
        self._syncs.labels("success" if status.error is None else "failure").inc()
        self._sync_seconds.set(status.seconds)
        if status.last_success is not None:
            self._last_success.set(status.last_success.timestamp())
        since = status.failing_since
        self._failing_since.set(since.timestamp() if since is not None else 0)
        for step, seconds in status.steps.items():
            self._step_seconds.labels(step).set(seconds)
        if status.revision is not None:
            self._revision.clear()
            self._revision.labels(status.revision.commit).set(1)
        self._operarios.set(status.operarios)
        self._problems.set(status.problems)

    def changed(self, changes: Changes) -> None:
        """A new catalog came into force."""
        self._changes.labels("added").inc(len(changes.added))
        self._changes.labels("changed").inc(len(changes.changed))
        self._changes.labels("removed").inc(len(changes.removed))

    def expose(self) -> bytes:
        """Everything, as Prometheus scrapes it."""
        return generate_latest(self._registry)

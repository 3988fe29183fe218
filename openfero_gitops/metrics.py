"""The Prometheus metrics of a replica.

Three metrics keep the names that OpenFero uses, so that its dashboards work. Only the leader counts
finished Jobs, so that a sum over replicas is correct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.notification import NotificationKind
from openfero_gitops.domain.remediation import Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from prometheus_client.registry import Collector

    from openfero_gitops.domain.answer import Answer
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.domain.sync import Changes, SyncStatus

disable_created_metrics()  # type: ignore[no-untyped-call]


_SETTLED: Final = tuple(effect for effect in Effect if effect is not Effect.PENDING)
#: From half a minute to six hours.
_HEALING_SECONDS: Final = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600)
#: The label of operarios that are not in the active catalog: no operario can have this name.
_REMOVED: Final = "(removed)"


class Metrics:
    """The metrics of one process."""

    def __init__(self, version: str) -> None:
        """Register all metrics with a new registry."""
        self._registry = registry = CollectorRegistry()
        self._leading = False
        self._waiting_reasons: set[Reason] = set()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._created = Counter(
            "openfero_jobs_created_total", "Jobs created for alerts", registry=registry
        )
        self._succeeded = Counter(
            "openfero_jobs_succeeded_total", "Jobs that completed successfully", registry=registry
        )
        self._failed = Counter("openfero_jobs_failed_total", "Jobs that failed", registry=registry)
        self._alerts = Counter(
            "openfero_gitops_alerts_total",
            "Alerts received, by outcome and reason",
            ("outcome", "reason"),
            registry=registry,
        )
        self._truncated = Counter(
            "openfero_gitops_alerts_truncated_total",
            "Alerts that Alertmanager left out of deliveries because of max_alerts",
            registry=registry,
        )
        self._deliveries = Counter(
            "openfero_gitops_deliveries_total",
            "Webhook deliveries answered, by HTTP status code",
            ("code",),
            registry=registry,
        )
        self._refused = Counter(
            "openfero_gitops_deliveries_refused_total",
            "Webhook deliveries that were not read, by the limit that they exceed",
            ("cause",),
            registry=registry,
        )
        self._refused_requests = Counter(
            "openfero_gitops_requests_refused_total",
            "POST requests answered with 4xx, by path and HTTP status code: a delivery to a wrong "
            "path, for example",
            ("path", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "openfero_gitops_delivery_seconds",
            "Time to answer a webhook delivery",
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 9),
        )
        self._connections = Gauge(
            "openfero_gitops_connections",
            "Open connections to this replica, including TLS handshakes",
            registry=registry,
        )
        self._connections_dropped = Counter(
            "openfero_gitops_connections_dropped_total",
            "Connections that this replica dropped or refused, by cause",
            ("cause",),
            registry=registry,
        )
        self._event_streams = Gauge(
            "openfero_gitops_event_streams",
            "Clients that listen to the event stream of this replica",
            registry=registry,
        )
        self._requests_limit = Gauge(
            "openfero_gitops_api_requests_limit",
            "Requests to the API server that may be in flight now, for deliveries and for "
            "admission on the leader",
            ("purpose",),
            registry=registry,
        )
        self._decisions = Counter(
            "openfero_gitops_decisions_total",
            "Decisions on waiting Jobs that the leader carried out, by reason",
            ("reason",),
            registry=registry,
        )
        self._effects = Counter(
            "openfero_gitops_effects_total",
            "Remediations whose effect the leader settled, without dry runs; an unknown effect "
            "that is decided later is counted again",
            ("operario", "effect"),
            registry=registry,
        )
        self._time_to_heal = Histogram(
            "openfero_gitops_time_to_heal_seconds",
            "Time from the delivery of an alert until it was resolved, of healed remediations",
            ("operario",),
            registry=registry,
            buckets=_HEALING_SECONDS,
        )
        self._waiting = Gauge(
            "openfero_gitops_waiting",
            "Waiting Jobs on the leader, by the reason they wait for",
            ("reason",),
            registry=registry,
        )
        self._max_waiting = Gauge(
            "openfero_gitops_max_waiting",
            "Limit of waiting Jobs, beyond which deliveries are answered with 503",
            registry=registry,
        )
        self._foreign = Gauge(
            "openfero_gitops_foreign_jobs",
            "Jobs with the controller's label that it did not create, and ignores; 1000 at most",
            registry=registry,
        )
        self._transitions = Counter(
            "openfero_gitops_leader_transitions_total",
            "Times this replica became leader or stopped being leader",
            registry=registry,
        )
        self._events = Counter(
            "openfero_gitops_events_total",
            "Kubernetes Events, by whether they were sent or lost",
            ("result",),
            registry=registry,
        )
        self._unauthenticated = Counter(
            "openfero_gitops_unauthenticated_requests_total",
            "Requests to the webhook or the pages that were refused for lack of authentication, by "
            "cause",
            ("door", "cause"),
            registry=registry,
        )
        self._leader = Gauge(
            "openfero_gitops_leader", "1 if this replica is the leader, else 0", registry=registry
        )
        self._syncs = Counter(
            "openfero_gitops_syncs_total",
            "Syncs with the Git repository, by result",
            ("result",),
            registry=registry,
        )
        self._sync_seconds = Gauge(
            "openfero_gitops_sync_seconds", "Duration of the last sync", registry=registry
        )
        self._step_seconds = Gauge(
            "openfero_gitops_sync_step_seconds",
            "Duration of each step of the last sync",
            ("step",),
            registry=registry,
        )
        self._failing_since = Gauge(
            "openfero_gitops_sync_failing_since_timestamp_seconds",
            "Time of the first failed sync since the last success; 0 if the last sync succeeded",
            registry=registry,
        )
        self._revision_refused = Gauge(
            "openfero_gitops_revision_refused",
            "1 while the newest commit is refused, so that an earlier one stays active; else 0",
            registry=registry,
        )
        self._changes = Counter(
            "openfero_gitops_sync_changes_total",
            "Operarios added, changed or removed by syncs",
            ("change",),
            registry=registry,
        )
        self._revision = Gauge(
            "openfero_gitops_revision_info",
            "1 for the active commit of this replica",
            ("commit",),
            registry=registry,
        )
        self._last_success = Gauge(
            "openfero_gitops_sync_last_success_timestamp_seconds",
            "Time of the last successful sync",
            registry=registry,
        )
        self._operarios = Gauge(
            "openfero_gitops_operarios", "Operarios in the active catalog", registry=registry
        )
        self._problems = Gauge(
            "openfero_gitops_problems", "Errors in the active catalog", registry=registry
        )
        self._watchdog = Gauge(
            "openfero_gitops_watchdog_last_delivered_timestamp_seconds",
            "Time at which the watchdog's alert was last delivered to any replica; 0 for never",
            ("alertname",),
            registry=registry,
        )
        self._dry_runs = Counter(
            "openfero_gitops_dry_runs_total",
            "Server-side dry runs of operarios, by result",
            ("result",),
            registry=registry,
        )
        self._policy = Gauge(
            "openfero_gitops_job_policy_version",
            "Version of the Helm chart's active admission policy for Jobs; 0 if there is none",
            ("jobs_namespace",),
            registry=registry,
        )
        self._notifications = Gauge(
            "openfero_gitops_notifications",
            "Alerts that the leader keeps in Alertmanager, by name",
            ("alertname",),
            registry=registry,
        )
        self._alertmanager_requests = Counter(
            "openfero_gitops_alertmanager_requests_total",
            "Requests to send alerts to an Alertmanager, by result",
            ("alertmanager", "result"),
            registry=registry,
        )
        self._info = Gauge(
            "openfero_gitops_build_info",
            "Always 1; the label is the version",
            ("version",),
            registry=registry,
        )
        self._info.labels(version).set(1)

    def delivered(self, answer: Answer, truncated: int) -> None:
        """Count one delivery, and the alerts that Alertmanager left out of it."""
        self._truncated.inc(truncated)
        for (outcome, reason), count in answer.counts.items():
            self._alerts.labels(outcome.value, reason.value if reason else "").inc(count)
            if outcome in (Outcome.CREATED, Outcome.REFUSED):
                self._created.inc(count)

    def answered(self, code: int, seconds: float) -> None:
        """Count an answer to a delivery, including deliveries that could not be read."""
        self._deliveries.labels(str(code)).inc()
        self._seconds.observe(seconds)

    def refused(self, cause: str) -> None:
        """Count a delivery that was not read, with the limit that it exceeds."""
        self._refused.labels(cause).inc()

    def refused_request(self, path: str, code: int) -> None:
        """Count a POST that was answered with 4xx, with its path and HTTP status."""
        self._refused_requests.labels(path, str(code)).inc()

    def unauthenticated(self, door: str, cause: str) -> None:
        """Count a request that is not authenticated."""
        self._unauthenticated.labels(door, cause).inc()

    def connections(self, count: int) -> None:
        """Set the number of open connections."""
        self._connections.set(count)

    def connection_dropped(self, cause: str) -> None:
        """Count a connection that was dropped or refused."""
        self._connections_dropped.labels(cause).inc()

    def decided(self, reason: Reason) -> None:
        """Count one decision that was carried out."""
        self._decisions.labels(reason.value).inc()

    def ended(self, remediation: Remediation) -> None:
        """Count a remediation that reached a final phase."""
        if remediation.phase is Phase.SUCCEEDED:
            self._succeeded.inc()
        elif remediation.phase is Phase.FAILED:
            self._failed.inc()

    def settled(self, remediation: Remediation, *, is_active: bool) -> None:
        """Count a remediation whose effect was settled.

        `is_active` says whether its operario is in the active catalog; the others share a label, so
        that the number of series has a limit.
        """
        if remediation.effect is None:
            return
        operario = remediation.operario if is_active else _REMOVED
        for effect in _SETTLED:  # from 0, so that the first of each is an increase
            self._effects.labels(operario, effect.value)
        self._effects.labels(operario, remediation.effect.value).inc()
        if remediation.effect is Effect.HEALED and remediation.resolved_at is not None:
            seconds = (remediation.resolved_at - remediation.received_at).total_seconds()
            self._time_to_heal.labels(operario).observe(max(seconds, 0.0))

    def leadership(self, *, leading: bool) -> None:
        """Set whether this replica is the leader; count a change."""
        if leading is not self._leading:
            self._transitions.inc()
        self._leading = leading
        self._leader.set(leading)

    def waiting(self, reasons: Mapping[Reason, int]) -> None:
        """Set how many remediations wait, by reason."""
        for reason in self._waiting_reasons - reasons.keys():
            self._waiting.labels(reason.value).set(0)
        self._waiting_reasons |= reasons.keys()
        for reason, count in reasons.items():
            self._waiting.labels(reason.value).set(count)

    def watchdog(self, alertname: str, delivered_at: datetime | None) -> None:
        """Set when the watchdog's alert was last delivered; without a name there is none."""
        self._watchdog.clear()
        if alertname:
            at = delivered_at.timestamp() if delivered_at else 0
            self._watchdog.labels(alertname).set(at)

    def max_waiting(self, limit: int) -> None:
        """Set the limit of waiting Jobs."""
        self._max_waiting.set(limit)

    def foreign_jobs(self, count: Callable[[], int]) -> None:
        """Set what counts the Jobs of others that carry the controller's label."""
        self._foreign.set_function(count)

    def event_streams(self, count: Callable[[], int]) -> None:
        """Set what counts the open event streams."""
        self._event_streams.set_function(count)

    def requests_limits(self, **limits: Callable[[], int]) -> None:
        """Set what says how many requests to the API server may be in flight, by purpose."""
        for purpose, limit in limits.items():
            self._requests_limit.labels(purpose).set_function(limit)

    def event_recorded(self, result: str) -> None:
        """Count an Event that was `sent` or `lost`."""
        self._events.labels(result).inc()

    def dry_run(self, result: str) -> None:
        """Count a dry run: `accepted`, `warning`, `refused` or `failed`."""
        self._dry_runs.labels(result).inc()

    def policy(self, namespace: str, version: int) -> None:
        """Set the version of the active admission policy of a namespace; 0 if there is none."""
        self._policy.labels(namespace).set(version)

    def synced(self, status: SyncStatus) -> None:
        """Count a sync, successful or not."""
        self._syncs.labels("success" if status.error is None else "failure").inc()
        self._sync_seconds.set(status.seconds)
        if status.last_success is not None:
            self._last_success.set(status.last_success.timestamp())
        since = status.failing_since
        self._failing_since.set(since.timestamp() if since is not None else 0)
        self._revision_refused.set(status.is_refused)
        for step, seconds in status.steps.items():
            self._step_seconds.labels(step).set(seconds)
        if status.revision is not None:
            self._revision.clear()
            self._revision.labels(status.revision.commit).set(1)
        self._operarios.set(status.operarios)
        self._problems.set(status.problems)

    def changed(self, changes: Changes) -> None:
        """Count the operarios that a new catalog added, changed or removed."""
        self._changes.labels("added").inc(len(changes.added))
        self._changes.labels("changed").inc(len(changes.changed))
        self._changes.labels("removed").inc(len(changes.removed))
        for operario in changes.removed:
            for effect in _SETTLED:
                self._effects.remove(operario, effect.value)
            self._time_to_heal.remove(operario)

    def notifications(self, alerts: Mapping[str, int]) -> None:
        """Set how many alerts must exist in Alertmanager, by their name."""
        for kind in NotificationKind:
            self._notifications.labels(kind.value).set(alerts.get(kind.value, 0))

    def notified(self, url: str, result: str) -> None:
        """Count a request to an Alertmanager that was `sent` or `failed`."""
        self._alertmanager_requests.labels(url, result).inc()

    def add(self, collector: Collector) -> None:
        """Also expose metrics that are computed when they are read."""
        self._registry.register(collector)

    def expose(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

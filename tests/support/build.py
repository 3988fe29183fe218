"""Builders of test values: each returns a complete value, and a test sets what it depends on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import structs

from openfero_gitops.domain.alert import Alert, Occurrence, Status
from openfero_gitops.domain.catalog import Catalog, Envelope, Revision
from openfero_gitops.domain.labels import REPLICA_LABELS
from openfero_gitops.domain.operario import Form, Operario, Options, Origin
from openfero_gitops.domain.remediation import JobKey, Phase, Remediation
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import RENDERER, Delivery, Rendered, render

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The current time in tests; their alerts started half a minute earlier.
NOW = datetime(2026, 11, 21, 3, 4, 5, 678_901, tzinfo=UTC)
STARTS_AT = NOW - timedelta(seconds=30)
COMMIT = "1" * 40
BLOB = "2" * 40
REVISION = Revision("https://git.example/ops", "main", COMMIT, "Ada <ada@git.example>", "T")
JOBS_NAMESPACE = "jobs"


def minutes(count: float) -> timedelta:
    """Return a number of minutes."""
    return timedelta(minutes=count)


def seconds(count: float) -> timedelta:
    """Return a number of seconds."""
    return timedelta(seconds=count)


def alert(**given: Any) -> Alert:
    """Return a firing `PodCrashLooping` alert for the Pod `web-1`."""
    values: dict[str, Any] = {
        "status": Status.FIRING,
        "labels": {"alertname": "PodCrashLooping", "pod": "web-1", "severity": "page"},
        "annotations": {"summary": "web-1 restarts"},
        "starts_at": STARTS_AT,
        "ends_at": None,
        "generator_url": "http://prometheus.example/graph?g0.expr=up",
        "fingerprint": "c0ffee",
    }
    return Alert(**values | given)


def job_spec(
    *,
    command: list[str] | None = None,
    args: list[str] | None = None,
    env: list[dict[str, Any]] | None = None,
    **container: Any,
) -> dict[str, Any]:
    """Return a Job spec with a single container."""
    given = {"command": command, "args": args, "env": env}
    container_spec = {"name": "heal", "image": "registry.example/heal:1"} | container
    container_spec |= {name: value for name, value in given.items() if value is not None}
    return {"template": {"spec": {"restartPolicy": "Never", "containers": [container_spec]}}}


def operario(
    name: str = "restart-pod",
    *,
    spec: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    options: Options | None = None,
    **given: Any,
) -> Operario:
    """Return an operario that matches `alert()`."""
    job: dict[str, Any] = {"spec": dict(spec or job_spec())}
    if labels is not None:
        job["labels"] = dict(labels)
    if annotations is not None:
        job["annotations"] = dict(annotations)
    values: dict[str, Any] = {
        "alertname": "PodCrashLooping",
        "status": Status.FIRING,
        "form": Form.OPERARIUS,
        "options": options or Options(),
        "job": job,
        "namespace": None,
        "origin": Origin(f"operarios/{name}.yaml", BLOB, COMMIT, "Ada", "T"),
        "spec_digest": "d1ge57",
    }
    return Operario(name, **values | given)


def catalog(*operarios: Operario, envelope: Envelope | None = None) -> Catalog:
    """Return a catalog of these operarios."""
    return Catalog(REVISION, envelope or Envelope(), operarios)


def delivery(**given: Any) -> Delivery:
    """Return a delivery of a firing group, received at `NOW`."""
    values: dict[str, Any] = {
        "id": "delivery-1",
        "group_key": '{}:{alertname="PodCrashLooping"}',
        "group_status": Status.FIRING,
        "received_at": NOW,
        "received_by": "replica-a",
    }
    return Delivery(**values | given)


def rendered(
    given_alert: Alert | None = None,
    by: Operario | None = None,
    *,
    envelope: Envelope | None = None,
    delivered: Delivery | None = None,
    attempt: int = 1,
    renderer: int = RENDERER,
    replica_labels: frozenset[str] = REPLICA_LABELS,
) -> Rendered:
    """Render the Job of an alert, an operario, an envelope and a delivery."""
    return render(
        given_alert or alert(),
        by or operario(),
        envelope or Envelope(),
        REVISION,
        delivered or delivery(),
        jobs_namespace=JOBS_NAMESPACE,
        attempt=attempt,
        renderer=renderer,
        replica_labels=replica_labels,
    )


def stored(
    manifest: Mapping[str, Any] | None = None,
    *,
    annotations: Mapping[str, str | None] | None = None,
    labels: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a Job as the API server returns it; an annotation of None is removed."""
    base = manifest or rendered().manifest
    kept = dict(base["metadata"]["annotations"])
    for key, value in (annotations or {}).items():
        kept.pop(key, None)
        if value is not None:
            kept[key] = value
    return {
        **base,
        "metadata": {
            "uid": "uid-1",
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-21T03:04:06Z",
            **base["metadata"],
            **(metadata or {}),
            "annotations": kept,
            "labels": {**base["metadata"]["labels"], **(labels or {})},
        },
        "spec": {**base["spec"], **(spec or {})},
        "status": dict(status or {}),
    }


_PLAIN = observe(stored())


def remediation(
    name: str = "job-1", *, namespace: str = JOBS_NAMESPACE, **given: Any
) -> Remediation:
    """Return a waiting remediation of `alert()`, received at `NOW`.

    Occurrence and incident follow from labels, status, starts_at and attempt, unless given; an
    alert without a start is a unique occurrence.
    """
    values = {"uid": f"uid-of-{namespace}-{name}", **given}
    plain = structs.replace(_PLAIN, key=JobKey(namespace, name), **values)
    occurrence = Occurrence(plain.labels, plain.status, plain.starts_at, plain.attempt, name)
    return structs.replace(
        plain,
        delivered_at=given.get("delivered_at", plain.received_at),
        occurrence=given.get("occurrence", occurrence.digest),
        incident=given.get("incident", occurrence.incident),
        started_at=plain.started_at or plain.admitted_at,
        started=plain.started or plain.admitted_at is not None or plain.started_at is not None,
    )


def running(name: str = "job-1", *, since: datetime = NOW, **given: Any) -> Remediation:
    """Return an admitted remediation with a running Pod."""
    values = {
        "phase": Phase.RUNNING,
        "suspended": False,
        "admitted_at": since,
        "started_at": since,
        "active": 1,
    }
    return remediation(name, **values | given)


def finished(
    name: str = "job-1", *, began: datetime = NOW, ended: datetime = NOW, **given: Any
) -> Remediation:
    """Return a succeeded remediation."""
    values = {
        "phase": Phase.SUCCEEDED,
        "suspended": False,
        "admitted_at": began,
        "started_at": began,
        "finished_at": ended,
        "finished": True,
    }
    return remediation(name, **values | given)


def refused(name: str = "job-1", reason: str = "resolved", **given: Any) -> Remediation:
    """Return a remediation that was refused before it started."""
    values = {"phase": Phase.REFUSED, "reason": reason, "decision": "refused"}
    return remediation(name, **values | given)

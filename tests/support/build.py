"""Values for tests: each builder gives a whole one, and a test names what its story is about."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.alert import Alert, Occurrence, Status
from openfero_gitops.domain.catalog import Catalog, Envelope, Revision
from openfero_gitops.domain.operario import Form, Operario, Options, Origin
from openfero_gitops.domain.remediation import JobKey, Phase, Remediation
from openfero_gitops.jobs.observe import observe
from openfero_gitops.jobs.render import Delivery, Rendered, render

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The moment at which tests play; their alerts began to fire half a minute before.
NOW = datetime(2026, 11, 21, 3, 4, 5, 678_901, tzinfo=UTC)
STARTS_AT = NOW - timedelta(seconds=30)
COMMIT = "1" * 40
BLOB = "2" * 40
REVISION = Revision("https://git.example/ops", "main", COMMIT, "Ada <ada@git.example>", "T")
JOBS_NAMESPACE = "jobs"


def minutes(count: float) -> timedelta:
    """So many minutes."""
    return timedelta(minutes=count)


def seconds(count: float) -> timedelta:
    """So many seconds."""
    return timedelta(seconds=count)


def alert(**given: Any) -> Alert:
    """A firing `PodCrashLooping` about the Pod `web-1`."""
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
    """A Job's spec with one container."""
    given = {"command": command, "args": args, "env": env}
    one = {"name": "heal", "image": "registry.example/heal:1"} | container
    one |= {name: value for name, value in given.items() if value is not None}
    return {"template": {"spec": {"restartPolicy": "Never", "containers": [one]}}}


def operario(
    name: str = "restart-pod",
    *,
    spec: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    options: Options | None = None,
    **given: Any,
) -> Operario:
    """The operario for `alert()`."""
    job: dict[str, Any] = {"spec": dict(spec or job_spec())}
    if labels is not None:
        job["labels"] = dict(labels)
    if annotations is not None:
        job["annotations"] = dict(annotations)
    values: dict[str, Any] = {
        "alertname": "PodCrashLooping",
        "status": Status.FIRING,
        "form": Form.JOB,
        "options": options or Options(),
        "job": job,
        "namespace": None,
        "origin": Origin(f"operarios/{name}.yaml", BLOB, COMMIT, "Ada", "T"),
        "spec_digest": "d1ge57",
    }
    return Operario(name, **values | given)


def catalog(*operarios: Operario, envelope: Envelope | None = None) -> Catalog:
    """A catalog of these operarios."""
    return Catalog(REVISION, envelope or Envelope(), operarios)


def delivery(**given: Any) -> Delivery:
    """A delivery of a firing group, at `NOW`."""
    values: dict[str, Any] = {
        "id": "delivery-1",
        "group_key": '{}:{alertname="PodCrashLooping"}',
        "group_status": Status.FIRING,
        "received_at": NOW,
        "received_by": "replica-a",
    }
    return Delivery(**values | given)


def rendered(
    one: Alert | None = None,
    by: Operario | None = None,
    *,
    envelope: Envelope | None = None,
    told: Delivery | None = None,
    attempt: int = 1,
) -> Rendered:
    """What `render` makes of an alert, an operario, an envelope and a delivery."""
    return render(
        one or alert(),
        by or operario(),
        envelope or Envelope(),
        REVISION,
        told or delivery(),
        jobs_namespace=JOBS_NAMESPACE,
        attempt=attempt,
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
    """A Job as the API server shows it, with these changes; an annotation of None is absent."""
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
    """A waiting remediation of `alert()`, received at `NOW`.

    Occurrence and incident follow from labels, status, starts_at and attempt, unless given; an
    alert without a start is an occurrence of its own.
    """
    values = {"uid": f"uid-of-{namespace}-{name}", **given}
    one = dataclasses.replace(_PLAIN, key=JobKey(namespace, name), **values)
    told = Occurrence(one.labels, one.status, one.starts_at, one.attempt, name)
    return dataclasses.replace(
        one,
        delivered_at=given.get("delivered_at", one.received_at),
        occurrence=given.get("occurrence", told.digest),
        incident=given.get("incident", told.incident),
        started_at=one.started_at or one.admitted_at,
        started=one.started or one.admitted_at is not None or one.started_at is not None,
    )


def running(name: str = "job-1", *, since: datetime = NOW, **given: Any) -> Remediation:
    """One that was admitted, and whose Pod runs."""
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
    """One that ran and succeeded."""
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
    """One that was refused before it started."""
    values = {"phase": Phase.REFUSED, "reason": reason, "decision": "refused"}
    return remediation(name, **values | given)

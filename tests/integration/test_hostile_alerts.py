"""Hostile alerts, up to the Jobs in a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain import keys
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

KIB = 1024
MAX_ALERTS = 20


@pytest.fixture(scope="module")
def replica(
    tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path, shared_namespace: str
) -> Iterator[Replica]:
    """Give a replica with one operario."""
    folder = tmp_path_factory.mktemp("hostile")
    repository = Repository(folder / "operarios")
    repository.write("hostile.json", operario("Hostile"))
    repository.commit("Operarios")
    with Replica(
        folder,
        name="hostile",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        max_alerts=str(MAX_ALERTS),
        development=False,
    ) as started:
        yield started


def job_of(kubectl: Kubectl, item: dict[str, Any]) -> dict[str, Any]:
    """Return the Job of an alert's item."""
    job: dict[str, Any] = kubectl.json("get", "job", item["job"], "-n", item["namespace"])
    return job


@pytest.mark.parametrize("text", ["x", "$", "\x01", "🙈", '"'], ids=ascii)
def test_no_alert_makes_a_heavy_job(replica: Replica, kubectl: Kubectl, text: str) -> None:
    """Long annotations, group keys and URLs are cut: the stored Job has less than 256 KiB."""
    heavy = alert("Hostile", text=ascii(text)) | {
        "annotations": {"long": text * 10_000, **{f"a{number}": "" for number in range(1000)}},
        "generatorURL": text * 10_000,
    }
    status, answer = replica.deliver(heavy, groupKey=text * 10_000)
    assert (status, answer["items"][0]["outcome"]) == (200, "created")
    job = job_of(kubectl, answer["items"][0])
    assert len(json.dumps(job, ensure_ascii=False).encode()) < 256 * KIB
    assert len(job["metadata"]["annotations"][keys.ALERT].encode()) <= 16 * KIB


def test_labels_that_are_too_long_make_a_small_refused_job(
    replica: Replica, kubectl: Kubectl
) -> None:
    """The alert is answered with 200 and a Job that says why it never starts."""
    status, answer = replica.deliver(alert("Hostile", long="x" * 60 * KIB))
    (item,) = answer["items"]
    assert (status, item["outcome"], item["reason"]) == (200, "refused", "too-large")
    job = job_of(kubectl, item)
    assert job["metadata"]["annotations"][keys.REASON] == "too-large"
    assert len(json.dumps(job)) < 32 * KIB


def test_a_hostile_alert_takes_no_job_from_others(replica: Replica, kubectl: Kubectl) -> None:
    """Alerts with megabytes of labels, or of another type, are invalid; the others have Jobs."""
    long = alert("Hostile", long="x" * 5_000_000)
    wrong = alert("Hostile") | {"labels": {"alertname": "Hostile", "pod": 1}}
    good = [alert("Hostile", pod=pod) for pod in ("a", "b")]
    status, answer = replica.deliver(good[0], long, wrong, good[1])
    items = answer["items"]
    assert status == 422
    assert [item["outcome"] for item in items] == ["created", "invalid", "invalid", "created"]
    assert items[2]["message"] == "/alerts/2/labels/pod: must be a string"
    for item in (items[0], items[3]):
        assert job_of(kubectl, item)["spec"]["suspend"] in (True, False)


def test_a_refused_delivery_is_an_event(
    replica: Replica, kubectl: Kubectl, shared_namespace: str
) -> None:
    """413 is counted and shown on the Lease, because Alertmanager does not retry it."""
    alerts = [alert("Hostile", number=str(number)) for number in range(MAX_ALERTS + 1)]
    status, answer = replica.deliver(*alerts)
    assert (status, answer["reason"], answer["items"]) == (413, "too-many-alerts", [])
    assert f"set max_alerts: {MAX_ALERTS}" in answer["detail"]

    def events() -> list[dict[str, Any]]:
        listed = kubectl.json("get", "events.v1.events.k8s.io", "-n", shared_namespace)["items"]
        return [event for event in listed if event["reason"] == "DeliveryRefused"]

    event = replica.wait_for(events)[0]
    assert event["type"] == "Warning"
    assert event["regarding"]["kind"] == "Lease"
    assert "too-many-alerts" in event["note"]
    metric = 'openfero_gitops_deliveries_refused_total{cause="too-many-alerts"} 1.0'
    assert metric in replica.read("/metrics")

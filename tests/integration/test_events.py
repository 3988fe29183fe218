"""Events as kubectl shows them, written with the permissions from the chart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.domain.help import link
from tests.support.chart import install_chart, service_account_kubeconfig
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("kwok")]

PATIENCE = 300.0
ADDRESS = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}


COUNTED = (
    'openfero_gitops_effects_total{effect="healed",operario="openfero-quick-firing"} 1.0',
    'openfero_gitops_effects_total{effect="not-healed",operario="openfero-quick-firing"} 1.0',
    'openfero_gitops_time_to_heal_seconds_count{operario="openfero-quick-firing"} 1.0',
)


def eventually(probe: Callable[[], Any]) -> Any:
    """Wait for a true value of a probe and return it; fail with the last value."""
    deadline = time.monotonic() + PATIENCE
    while not (result := probe()):
        assert time.monotonic() < deadline, f"still {result!r} after {PATIENCE} s"
        time.sleep(0.5)
    return result


def helps_and_does_not(replica: Replica) -> tuple[str, str]:
    """Remediate an alert that is resolved then, and one that goes on; return the Jobs."""
    good = replica.remediate("Quick", "good", "Succeeded")
    ended = replica.remediation(good)["finishedAt"]
    replica.deliver(alert("Quick", "resolved", host="good") | {"endsAt": ended})
    bad = replica.remediate("Quick", "bad", "Succeeded")
    time.sleep(2)
    replica.deliver(alert("Quick", host="bad"))
    return good, bad


def test_kubectl_shows_decisions_and_reasons(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str, jobs_namespace: str
) -> None:
    """Events are on the Job, the Lease and the catalog, also when a leader stops."""
    install_chart(kubeconfig, shared_namespace, ADDRESS)
    repository = Repository(tmp_path / "operarios")
    repository.write("slow.json", operario("Slow", run_for="forever"))
    repository.write("second.json", operario("Second"))
    quick = operario("Quick", annotations={"openfero.io/heals-within": "1s"})
    repository.write("quick.json", quick)
    repository.commit("Operarios")
    start = {
        "kubeconfig": service_account_kubeconfig(kubeconfig, shared_namespace, tmp_path),
        "roles": False,
        "namespace": shared_namespace,
        "repository": repository.url,
        "jobs_namespace": jobs_namespace,
    }

    def events(namespace: str, name: str, reason: str) -> list[dict[str, Any]]:
        all_events = kubectl.json("get", "events.v1.events.k8s.io", "-n", namespace)["items"]
        return [
            item
            for item in all_events
            if (item["regarding"]["name"], item["reason"]) == (name, reason)
        ]

    with Replica(tmp_path, name="replica-a", development=False, **start) as replica:
        replica.wait_for(lambda: replica.leads, PATIENCE)
        _, answer = replica.deliver(alert("Slow", host="a"))
        slow = answer["items"][0]["job"]
        eventually(lambda: events(jobs_namespace, slow, "Admitted"))
        _, answer = replica.deliver(alert("Second", host="a"))
        second = answer["items"][0]["job"]
        eventually(lambda: events(jobs_namespace, second, "Waiting"))
        assert kubectl.json("get", "job", second, "-n", jobs_namespace)["spec"]["suspend"]
        described = kubectl("describe", "job", second, "-n", jobs_namespace)
        assert (
            f"target-busy: Job {jobs_namespace}/{slow} is running on the same target" in described
        )
        replica.deliver(alert("Second", "resolved", host="a"))
        eventually(lambda: events(jobs_namespace, second, "Refused"))
        listed = kubectl("events", "--for", f"job/{second}", "-n", jobs_namespace)
        assert "resolved: the alert was resolved before the Job started" in listed
        good, bad = helps_and_does_not(replica)
        (healed,) = eventually(lambda: events(jobs_namespace, good, "Healed"))
        (not_healed,) = eventually(lambda: events(jobs_namespace, bad, "NotHealed"))
        assert (healed["type"], not_healed["type"]) == ("Normal", "Warning")
        message = replica.remediation(bad)["effectMessage"]
        assert not_healed["note"] == f"{message}. See {link('not-healed')}"
        assert not_healed["note"].startswith("still firing ")
        for sample in COUNTED:
            replica.wait_for(lambda sample=sample: sample in replica.read("/metrics"), PATIENCE)
        repository.write("second.json", "{")
        repository.commit("Broken")
        (broken,) = eventually(lambda: events(shared_namespace, HEAD, "Quarantined"))
        assert broken["type"] == "Warning"
        assert broken["note"].startswith("second.json:")
        metrics = replica.read("/metrics")
    assert 'openfero_gitops_events_total{result="sent"}' in metrics
    assert 'result="lost"' not in metrics
    assert "openfero_gitops_leader_transitions_total 1.0" in metrics
    lease = "openfero-gitops"
    notes = [
        item["note"]
        for item in eventually(lambda: events(shared_namespace, lease, "LeaderElection"))
    ]
    assert "replica-a became leader" in notes
    assert any(note.startswith("replica-a stopped leading") for note in notes)
    described = kubectl("describe", "lease", lease, "-n", shared_namespace)
    assert "replica-a became leader" in described

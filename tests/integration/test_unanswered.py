"""Alerts without a Job, as two real replicas share them through a real API server."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.delivery.unanswered_shares import SELECTOR, SharingPace, UnansweredAlerts
from openfero_gitops.domain import keys
from openfero_gitops.domain.labels import REPLICA_LABELS
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository
from tests.support.workers import in_background

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

#: Until all replicas show the same, on a very slow machine.
PATIENCE_SECONDS = 120.0


class RoundRobin:
    """Replicas behind one address: each request goes to the next one."""

    def __init__(self, *replicas: Replica) -> None:
        self.replicas = replicas
        self._next = cycle(replicas)

    def deliver(self, *alerts: dict[str, Any]) -> None:
        """Send a delivery to the next replica."""
        status, answer = next(self._next).deliver(*alerts)
        assert (status, {item["outcome"] for item in answer["items"]}) == (200, {"no-match"})

    def read(self) -> list[list[dict[str, Any]]]:
        """List the alerts as often as there are replicas."""
        return [next(self._next).get("/api/alerts") for _ in self.replicas]

    def wait_for(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Return what all replicas list, as soon as it is the same and as it should be."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            first, *others = self.read()
            if holds(first) and all(other == first for other in others):
                return first
            assert time.monotonic() < deadline, [first, *others]
            time.sleep(0.1)


def counts(entries: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """The number of alerts by name and status."""
    return {(e["alert"]["labels"]["alertname"], e["status"]): e["count"] for e in entries}


def writers(kubectl: Kubectl, namespace: str) -> set[str]:
    """Which replicas wrote the ConfigMaps that exist."""
    listed = json.loads(kubectl("get", "configmaps", "-n", namespace, "-l", SELECTOR, "-o", "json"))
    return {item["metadata"]["annotations"][keys.RECEIVED_BY] for item in listed["items"]}


def test_alerts_without_a_job_are_the_same_on_all_replicas_and_outlive_them(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """Replicas list the same soon, also after a crash of both, and of dead ones as before.

    An alert that both heard, of both members of a Prometheus pair, counts once.
    """
    repository = Repository(tmp_path / "operarios")
    repository.write("quick.json", operario("Quick"))
    repository.commit("Operarios")

    def replica(name: str) -> Replica:
        return Replica(
            tmp_path,
            name=name,
            kubeconfig=kubeconfig,
            namespace=namespace,
            repository=repository.url,
            development=False,
            interval="1h",
        )

    service = RoundRobin(replica("a"), replica("b"))
    with ExitStack() as running:
        for each in service.replicas:
            running.enter_context(each)
        service.deliver(alert("Unknown", host="1", prometheus_replica="prometheus-0"))
        service.deliver(alert("Unknown", host="1", prometheus_replica="prometheus-1"))
        service.deliver(alert("Unknown", host="2"), alert("Other", host="1"))
        service.deliver(alert("Unknown", host="1"), alert("Other", "resolved", host="1"))
        expected = {("Unknown", "firing"): 2, ("Other", "firing"): 1, ("Other", "resolved"): 1}
        shown = service.wait_for(lambda entries: counts(entries) == expected)
        assert writers(kubectl, namespace) == {"a", "b"}
        for each in service.replicas:
            each.kill()

    restarted = RoundRobin(replica("c"), replica("d"))
    with ExitStack() as running:
        for each in restarted.replicas:
            running.enter_context(each)
        restarted.wait_for(lambda entries: entries == shown)
        asyncio.run(_take_over(kubeconfig, kubectl, namespace))
        # They read the share of the leader, which has what was in those of the dead replicas.
        time.sleep(3)
        assert restarted.read() == [shown, shown]


async def _take_over(kubeconfig: Path, kubectl: Kubectl, namespace: str) -> None:
    """Lead, and take over the shares of dead replicas after a second instead of ten minutes."""
    api = await KubernetesApi.connect(kubeconfig)
    try:
        leader = UnansweredAlerts(
            store=ConfigMapStore(api, namespace),
            identity="leader",
            now=lambda: datetime.now(UTC),
            is_leading=lambda: True,
            replica_labels=REPLICA_LABELS,
            pace=SharingPace(poll=timedelta(seconds=0.2), fold_after=timedelta(seconds=1)),
        )
        async with in_background(leader.run()):
            await asyncio.to_thread(_wait_until_only, "leader", kubectl, namespace)
    finally:
        await api.close()


def _wait_until_only(writer: str, kubectl: Kubectl, namespace: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := writers(kubectl, namespace)) != {writer}:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)

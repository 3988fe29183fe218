"""A replica of the controller on a cluster with Kueue."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support.chart import install_chart, service_account_kubeconfig
from tests.support.desk import Desk
from tests.support.replica import operario

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane
    from tests.support.cluster import Kubectl
    from tests.support.kueue import Kueue

PATIENCE = 240.0
QUEUE = "kueue.x-k8s.io/queue-name"
_ADDRESS = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}
_START_COUNT = "openfero.io/start-count"


def queued(
    alertname: str, queue: str, *, priority: str = "", options: dict[str, str] | None = None,
    metadata: bool = True, **pod: str,
) -> str:  # fmt: skip
    """Return an operario for a queue; without `metadata`, its Pod template has none."""
    annotations = {"openfero.io/cooldown": "0", **(options or {})}
    job = json.loads(operario(alertname, annotations=annotations, **pod))
    job["metadata"]["labels"] = {QUEUE: queue}
    if not metadata:
        del job["spec"]["template"]["metadata"]
    if priority:
        job["spec"]["template"]["spec"]["priorityClassName"] = priority
    return json.dumps(job, indent=2)


class QueueDesk(Desk):
    """A cluster with Kueue, and one replica of the controller at a time."""

    def __init__(
        self, folder: Path, plane: ControlPlane, kubectl: Kubectl, kueue: Kueue, namespace: str
    ) -> None:
        """Install the chart, for its Roles and its policy for Jobs."""
        install_chart(plane.kubeconfig, namespace, _ADDRESS)
        controller = service_account_kubeconfig(plane.kubeconfig, namespace, folder)
        super().__init__(folder, kubectl, controller, namespace, f"{namespace}-jobs")
        self.kubeconfig = plane.kubeconfig
        self.kueue = kueue

    def define(self, **operarios: str) -> None:
        """Commit operarios by alert name."""
        for name, text in operarios.items():
            self.repository.write(f"{name.lower()}.json", text)
        self.repository.commit("Operarios")

    def queue(self, name: str, pods: int, **spec: Any) -> list[dict[str, Any]]:
        """Return the objects of a queue in the namespace of the Jobs."""
        return self.kueue.queue(self.namespace, name, pods=pods, **spec)

    def count(self, name: str) -> str | None:
        """Return how many starts are recorded on a Job."""
        annotations: dict[str, str] = self.job(name)["metadata"]["annotations"]
        return annotations.get(_START_COUNT)

    def events(self, name: str) -> dict[str, str]:
        """Return the notes of the controller's Events about a Job, by reason."""
        events = self.kubectl.json("get", "events.events.k8s.io", "-n", self.namespace)["items"]
        return {
            event["reason"]: event["note"]
            for event in events
            if event["regarding"]["name"] == name
            and event["reportingController"] == "openfero.io/openfero-gitops"
        }

    def remediate(self, alertname: str, host: str, phase: str) -> str:
        """Deliver an alert about a target of its own, and wait until its Job is in a phase."""
        return self.leader.remediate(alertname, f"{alertname}-{host}", phase)

    def is_in(self, job: str, phase: str, reason: str | None = None) -> dict[str, Any]:
        """Wait until a Job is in a phase, with a reason if one is given; return its API item."""

        def reached() -> dict[str, Any] | None:
            item = self.leader.remediation(job)
            same = item["phase"] == phase and reason in (None, item["reason"])
            return item if same else None

        item: dict[str, Any] = self.leader.wait_for(reached, PATIENCE)
        return item

    def has_started(self, job: str, times: int) -> dict[str, Any]:
        """Wait until a Job runs after so many starts; return its API item."""

        def reached() -> dict[str, Any] | None:
            item = self.leader.remediation(job)
            return item if (item["phase"], item.get("starts")) == ("Running", times) else None

        item: dict[str, Any] = self.leader.wait_for(reached, PATIENCE)
        return item

    def audit(self, job: str) -> dict[str, Any]:
        """Verify all Jobs; return the result for one."""
        argv = [sys.executable, "-m", "openfero_gitops", "audit", "--format", "json"]
        argv += ["--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace]
        argv += ["--controller-namespace", self._home]
        argv += ["--verify", "--repo", str(self.repository.folder)]
        ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
        items = {item["job"]: item for item in json.loads(ran.stdout)["items"]}
        found: dict[str, Any] = items[job]
        return found

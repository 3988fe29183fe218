"""The chart installed on a node, with operarios whose containers run."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain import keys
from tests.support.chart import CHART, NAME, RELEASE, helm, webhook_credentials
from tests.support.image import REFERENCE
from tests.support.paths import ROOT
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cluster.node import Node
    from tests.support.cluster import Kubectl

NAMESPACE = "openfero"
IMAGE = dict(zip(("repository", "tag"), REFERENCE.split(":"), strict=True))
JOBS = "openfero-jobs"
#: Seconds that a step may take on a machine that has much else to do.
PATIENCE = 300
LAST_WORDS = "the lock of a former process is still there"
#: What the operarios of the example run in: here both are busybox with kubectl.
IMAGES = ("docker.io/alpine/k8s:1.36.3", "registry.k8s.io/kubectl:v1.36.3")
PROBE = "Probe"
PROBED = "probed"
RESTRICTIONS: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

#: It crashes once when it gets SIGUSR1, and from then on at each start, since its lock stays: only
#: another Pod, with another emptyDir, helps.
FRAGILE = f"""
if [ -e /data/lock ]; then
  echo "{LAST_WORDS}"
  exit 3
fi
touch /data/lock
trap 'exit 9' USR1
trap 'exit 0' TERM
while :; do sleep 1 & wait $!; done
"""


class Transcript:
    """Prints what happened, with the time since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)


@dataclass(frozen=True)
class Installation:
    """The chart on a node, installed with the address of a repository and of the image alone."""

    node: Node
    kubectl: Kubectl
    repository: Repository
    values: dict[str, Any]
    transcript: Transcript

    @property
    def url(self) -> str:
        """The address of the webhook's Service."""
        service = self.kubectl.json("get", "service", NAME, "-n", NAMESPACE)
        return f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"

    @property
    def token(self) -> str:
        """What the chart generated for Alertmanager."""
        return webhook_credentials(self.node.kubeconfig, NAMESPACE)

    def helm(self, *arguments: str, **values: Any) -> str:
        """Install or upgrade the release, and wait until it is ready."""
        options = ("--wait", f"--timeout={PATIENCE - 60}s")
        return helm(
            *arguments,
            RELEASE,
            str(CHART),
            *options,
            kubeconfig=self.node.kubeconfig,
            namespace=NAMESPACE,
            values=self.values | values,
        )

    def settle(self) -> None:
        """Wait until two replicas are ready, none is ending, and one may be evicted."""
        rollout = ("rollout", "status", f"deployment/{NAME}", f"--timeout={PATIENCE}s")
        self.kubectl(*rollout, "-n", NAMESPACE, patience=2 * PATIENCE)
        wait_for(lambda: len(self.replicas()) == 2, "two replicas")
        budget = ("get", "poddisruptionbudget", NAME, "-n", NAMESPACE)
        wait_for(lambda: self.kubectl.json(*budget)["status"]["disruptionsAllowed"], "a budget")

    def leader(self) -> str:
        """Return the name of the Pod that leads; empty: none does."""
        lease = self.kubectl.json("get", "lease", NAME, "-n", NAMESPACE)
        return lease["spec"].get("holderIdentity") or ""

    def deliver(self, body: dict[str, Any]) -> str:
        """Deliver one alert to the Service, and return its outcome."""
        request = urllib.request.Request(
            f"{self.url}/alerts",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            outcome: str = json.load(answer)["items"][0]["outcome"]
        return outcome

    def jobs(self, alertname: str) -> list[Any]:
        """Return the Jobs of an alert."""
        labels = f"{keys.MANAGED_BY}={keys.MANAGER},{keys.ALERT}={alertname}"
        jobs: list[Any] = self.kubectl.json("get", "jobs", "-n", JOBS, "-l", labels)["items"]
        return jobs

    def replicas(self) -> list[Any]:
        """Return the Pods of the controller."""
        name = f"app.kubernetes.io/name={NAME}"
        pods: list[Any] = self.kubectl.json("get", "pods", "-n", NAMESPACE, "-l", name)["items"]
        return pods


def example(folder: Path) -> Repository:
    """Return the example repository, whose operarios are healed sooner."""
    repository = Repository(folder)
    for path in (ROOT / "operarios-example").rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            if path.name == "monitoring-firing.yaml":
                text = text.replace(b"heals-within: 30m", b"heals-within: 40s")
                assert b"heals-within: 40s" in text
            repository.write(str(path.relative_to(ROOT / "operarios-example")), text)
    repository.write("probe/firing.yaml", json.dumps(probe_operario()))
    repository.write("probe/rbac.yaml", "\n---\n".join(map(json.dumps, probe_rights())))
    repository.commit("Start")
    return repository


def probe_operario() -> dict[str, Any]:
    """Return an operario that leaves a trace of its Job, and fails if there is one already."""
    created = [f"--namespace={PROBED}", "--cache-dir=/tmp", "configmap", "healed-$(OPENFERO_ID)"]
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": PROBE.lower(),
        "securityContext": {"runAsUser": 65532},
        "containers": [
            {
                "name": "heal",
                "image": IMAGES[0],
                "command": ["/bin/kubectl", "create", *created],
                "securityContext": RESTRICTIONS,
                "resources": {"limits": {"memory": "128Mi"}},
            }
        ],
    }
    options = {
        "alertname": PROBE,
        "status": "firing",
        "target": "id",
        "cooldown": "0",
        "max-concurrent": "4",
        "max-per-hour": "1000",
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "openfero-probe-firing",
            "annotations": {f"openfero.io/{key}": value for key, value in options.items()},
        },
        "spec": {"template": {"spec": pod}},
    }


def probe_rights() -> list[dict[str, Any]]:
    """Return the ServiceAccount of that operario, which can create ConfigMaps and nothing else."""
    name = PROBE.lower()
    group_of_roles = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": JOBS},
        },
        {
            "apiVersion": f"{group_of_roles}/v1",
            "kind": "Role",
            "metadata": {"name": name, "namespace": PROBED},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}],
        },
        {
            "apiVersion": f"{group_of_roles}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": PROBED},
            "roleRef": {"apiGroup": group_of_roles, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": JOBS}],
        },
    ]


def fragile_deployment() -> dict[str, Any]:
    """Return a Deployment that is broken by a signal until its Pod is deleted."""
    container = {
        "name": "app",
        "image": IMAGES[0],
        "command": ["/bin/sh", "-c", FRAGILE],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": RESTRICTIONS,
    }
    labels = {"app": "checkout"}
    pod = {
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
        "terminationGracePeriodSeconds": 5,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "checkout"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def wait_for(read: Callable[[], Any], what: str, pause: float = 0.5) -> Any:
    """Return what is read, as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while not (value := read()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(pause)
    return value

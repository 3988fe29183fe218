"""A real Kueue beside a test's control plane, and the queues that it manages."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.support.certificates import Authority
from tests.support.chart import service_account_kubeconfig
from tests.support.cluster import KubectlError
from tests.support.go_tool import GoTool
from tests.support.process import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pytest

    from tests.support.cluster import Kubectl

_CERTIFICATES = "KUEUE_METRICS_CERTS"
#: About nine minutes of processor time. Its certificate for metrics lies in a fixed folder, which
#: only root can write to.
KUEUE = GoTool(
    "kueue",
    "sigs.k8s.io/kueue",
    "cmd/kueue",
    "v0.17.0",
    ": about six minutes on two idle cores, once",
    data=("config/components/crd/bases/*.yaml", "config/components/webhook/manifests.yaml"),
    replacements={
        'metricsCertPath := "/etc/kueue/metrics/certs"': (
            f'metricsCertPath := os.Getenv("{_CERTIFICATES}")'
        )
    },
)
#: As in Kueue's own manifests; the chart's policy for Jobs knows this ServiceAccount.
_NAMESPACE, _ACCOUNT = "kueue-system", "kueue-controller-manager"
#: Resources whose webhooks are registered: the others belong to integrations that are off.
_ADMITTED = frozenset({"jobs", "clusterqueues", "cohorts", "resourceflavors", "workloads"})
_CONTROLLERS = {"Job.batch": 5, "Workload": 5, "LocalQueue": 1, "ClusterQueue": 1}


def require_kueue(config: pytest.Config) -> None:
    """Build Kueue if needed, with a message on the terminal, since it takes minutes."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if KUEUE.executable.exists() or capture is None:
        KUEUE.build()
        return
    with capture.global_and_fixture_disabled():
        KUEUE.build()


_IDENTITY: Sequence[dict[str, Any]] = (
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}},
    {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": _ACCOUNT, "namespace": _NAMESPACE},
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "kueue"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cluster-admin",
        },
        "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": _NAMESPACE}],
    },
)


class Kueue:
    """Kueue for one cluster; as a context manager it runs within the block."""

    def __init__(self, folder: Path, kubeconfig: Path, kubectl: Kubectl) -> None:
        """Install the API of Kueue, its ServiceAccount, and its configuration in `folder`.

        `kubeconfig` is an administrator's, who creates queues through `kubectl`.
        """
        executable = KUEUE.build()
        self._kubectl = kubectl
        self.apply(*_IDENTITY)
        own = service_account_kubeconfig(kubeconfig, _NAMESPACE, folder, account=_ACCOUNT)
        # Without `--validate=false` kubectl downloads the schema of the whole API.
        definitions = sorted(KUEUE.folder.glob("kueue.x-k8s.io_*.yaml"))
        files = [f"--filename={file}" for file in definitions]
        kubectl("apply", "--server-side", "--validate=false", *files)
        _wait_for_api(kubectl, kinds=len(files))
        authority = Authority(folder / "pki", "kueue")
        certificate, key = authority.issue("kueue")
        certificates = folder / "certificates"
        certificates.mkdir()
        (certificates / "tls.crt").write_bytes(certificate.read_bytes())
        (certificates / "tls.key").write_bytes(key.read_bytes())
        health, webhook = free_port(), free_port()
        self._webhooks = list(_webhooks(webhook, authority.certificate.read_bytes()))
        configuration = folder / "kueue.yaml"
        configuration.write_text(yaml.safe_dump(_configuration(health, webhook, certificates)))
        self.process = Process(
            [executable, f"--config={configuration}", "--feature-gates=VisibilityOnDemand=false"],
            log=folder / "kueue.log",
            url=f"http://127.0.0.1:{health}/readyz",
            env=os.environ
            | {
                "KUBECONFIG": str(own),
                _CERTIFICATES: str(certificates),
                "GOMEMLIMIT": "256MiB",
            },
        )

    def __enter__(self) -> Self:
        """Start it, and then let the API server ask it: it refuses what Kueue cannot answer."""
        self.process.start()
        self.apply(*self._webhooks)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.process.end()

    @staticmethod
    def queue(namespace: str, name: str, *, pods: int, **spec: Any) -> list[dict[str, Any]]:
        """Return the objects of a queue for so many Pods at once; `spec` is of its ClusterQueue."""
        # What Kueue writes into the Pod template for it, an audit must accept.
        flavor = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "ResourceFlavor",
            "metadata": {"name": "default"},
            "spec": {
                "nodeLabels": {"type": "kwok"},
                "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
            },
        }
        resources = ["cpu", "memory", "pods"]
        quotas: list[dict[str, Any]] = [
            {"name": resource, "nominalQuota": quota}
            for resource, quota in zip(resources, ("100", "100Gi", pods), strict=True)
        ]
        cluster_queue = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "ClusterQueue",
            "metadata": {"name": f"{namespace}-{name}"},
            "spec": {
                "namespaceSelector": {},
                "resourceGroups": [
                    {
                        "coveredResources": resources,
                        "flavors": [{"name": "default", "resources": quotas}],
                    }
                ],
                **spec,
            },
        }
        local_queue = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterQueue": f"{namespace}-{name}"},
        }
        return [flavor, cluster_queue, local_queue]

    def apply(self, *objects: object) -> None:
        """Create or change objects, with one kubectl."""
        self._kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(objects))

    def set_quota(self, namespace: str, name: str, pods: int) -> None:
        """Change how many Pods a queue may have at once."""
        path = "/spec/resourceGroups/0/flavors/0/resources/2/nominalQuota"
        patch = f'[{{"op": "replace", "path": "{path}", "value": {pods}}}]'
        self._patch_queue(namespace, name, "json", patch)

    def set_stop_policy(self, namespace: str, name: str, policy: str) -> None:
        """Stop a queue (`Hold`, `HoldAndDrain`), or let it go on (`None`)."""
        self._patch_queue(namespace, name, "merge", f'{{"spec": {{"stopPolicy": "{policy}"}}}}')

    def _patch_queue(self, namespace: str, name: str, kind: str, patch: str) -> None:
        self._kubectl(
            "patch", "clusterqueue", f"{namespace}-{name}", f"--type={kind}", f"--patch={patch}"
        )

    def workload(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the Workload of a Job; empty if there is none yet."""
        where = ("-n", job["metadata"]["namespace"])
        selector = f"kueue.x-k8s.io/job-uid={job['metadata']['uid']}"
        found: Sequence[dict[str, Any]] = self._kubectl.json(
            "get", "workloads", *where, "-l", selector
        )["items"]
        return found[0] if found else {}

    def activate(self, job: dict[str, Any], *, active: bool) -> None:
        """Let Kueue evict a running Job and keep it in its queue, or start it again."""
        workload = self.workload(job)["metadata"]
        self._kubectl(
            "patch",
            "workload",
            workload["name"],
            "-n",
            workload["namespace"],
            "--type=merge",
            f'--patch={{"spec": {{"active": {str(active).lower()}}}}}',
        )


def _wait_for_api(kubectl: Kubectl, *, kinds: int) -> None:
    """Wait until the API server serves all kinds of Kueue (`kubectl wait` needs conditions)."""
    deadline = time.monotonic() + 120
    while True:
        try:
            raw = kubectl("get", "--raw", "/apis/kueue.x-k8s.io/v1beta2")
            served = json.loads(raw)["resources"]
            if len([each for each in served if "/" not in each["name"]]) >= kinds:
                return
        except KubectlError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "the API server does not serve all of Kueue's API"
        time.sleep(0.2)


def _webhooks(port: int, authority: bytes) -> Iterator[dict[str, Any]]:
    """Yield Kueue's own webhooks, for an API server that reaches it on loopback."""
    for configuration in yaml.safe_load_all((KUEUE.folder / "manifests.yaml").read_text()):
        webhooks = [
            webhook
            for webhook in configuration["webhooks"]
            if _ADMITTED.issuperset(
                resource.partition("/")[0]
                for rule in webhook["rules"]
                for resource in rule["resources"]
            )
        ]
        for webhook in webhooks:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {
                "url": f"https://127.0.0.1:{port}{path}",
                "caBundle": base64.b64encode(authority).decode(),
            }
        yield {**configuration, "webhooks": webhooks}


def _configuration(health: int, webhook: int, certificates: Path) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "clientConnection": {"qps": 500, "burst": 1000},
        "integrations": {"frameworks": ["batch/job"]},
        "controller": {
            "groupKindConcurrency": {
                name if "." in name else f"{name}.kueue.x-k8s.io": count
                for name, count in _CONTROLLERS.items()
            }
        },
    }

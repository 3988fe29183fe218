"""The pages for people on call and auditors, with a controller on a real API server.

The chart is installed with its Roles and its admission policy; the replica is a process of its own
with the chart's ServiceAccount, and kwok plays the Pods. The user of the pages is Ada. The
operarios are those of the starter repository, some with shorter times. Its Jobs have the same names
each time, since a name is made of the alert.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from openfero_gitops.cli import main
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.dryrun.trial import CONFIG_MAP, from_config_map
from tests.support.amtool import AMTOOL
from tests.support.chart import (
    REPOSITORY,
    install_chart,
    service_account_kubeconfig,
)
from tests.support.cluster import Kubectl, KubectlError, require_binaries
from tests.support.kubelet_logs import kubelet_logs
from tests.support.optional import require_jq
from tests.support.paths import ROOT
from tests.support.replica import Replica, alert
from tests.support.repository import Repository
from tests.support.users import Users
from tests.support.walk import Walk, blocks, compare, pages_run_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cluster.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

#: The first one shows the state before the others change it, and the last one stops Jobs.
PAGES = sorted(
    pages_run_by("tests/e2e/test_walks_on_a_cluster.py"),
    key=lambda name: (not name.endswith("what-is-it-doing.md"), name.endswith("stop-it.md")),
)
NAMESPACE = "openfero"
JOBS = "openfero-jobs"
PATIENCE = 180.0  # seconds
USER = "ada@example.com"
POLICY = "openfero-openfero-gitops-jobs"
IDENTITY = "openfero-gitops-7d9f8b6c5-x2x9q"
#: What is copied of the starter repository: what the alerts need, which is quicker.
PARTS = re.compile(
    r"openfero\.yaml|alertmanager/.*|nodes/(kubenodenotready|kubenodereadinessflapping)/.*"
    r"|workloads/(kubepodcrashlooping|kubedeploymentreplicasmismatch|kubestatefulsetreplicasmismatch)/.*"
)
#: What is replaced in files of the starter repository.
CHANGES = {
    "nodes/kubenodereadinessflapping/firing.yaml": {'max-per-hour: "2"': 'max-per-hour: "9"'},
    "workloads/kubepodcrashlooping/monitoring-firing.yaml": {
        "heals-within: 30m": "heals-within: 15s"
    },
    "workloads/kubedeploymentreplicasmismatch/firing.yaml": {
        "heals-within: 30m": "heals-within: 1s\n    openfero.io/rerun-after: 2s",
        "cooldown: 1h": 'cooldown: "0"',
    },
    "workloads/kubestatefulsetreplicasmismatch/firing.yaml": {
        "  template:\n": "  template:\n    metadata:\n      annotations:\n"
        '        kwok.openfero.io/fail: "true"\n        kwok.openfero.io/exit-code: "3"\n'
        "        kwok.openfero.io/message: the lock of another process is still there\n"
    },
    "nodes/kubenodenotready/firing.yaml": {
        "  template:\n": "  template:\n    metadata:\n      annotations:\n"
        "        kwok.openfero.io/run-for: forever\n",
        # On a busy machine the stage takes longer than a Job of this operario may.
        "activeDeadlineSeconds: 120": "activeDeadlineSeconds: 7200",
    },
}
#: What differs each time: times, ages, ids of commits and of Pods, and where the repository is.
VARYING = re.compile(
    r"\d{4}-\d\d-\d\d(T[\d:.]+Z)?|\b\d\d:\d\d:\d\dZ|\b[0-9a-f]{7,40}\b|\b(\d+[smhdw])+\b"
    r"|(?<=-[a-z2-7]{16}-)[a-z0-9]{5}\b|\w+://\S+/operarios(\.git)?"
)
LOGS = {
    "drain": b"node/worker-5 cordoned\nnode/worker-5 drained\n",
    "untangle": b"orders-0 waits for its lock\nthe lock of another process is still there\n",
    "restart": b"The owner does not allow a restart. Nothing was changed.\n",
}


@dataclass(frozen=True)
class Stage:
    """A controller with remediations in every state that the pages are about."""

    replica: Replica
    repository: Repository
    kubeconfig: Path
    kubectl: Path
    audit_log: Path

    def walk(self, folder: Path) -> Walk:
        """Return a walk whose commands reach the cluster as Ada, with a clone of the repository."""
        walk = Walk(
            folder, programs=[self.kubectl, AMTOOL.build()], KUBECONFIG=str(self.kubeconfig)
        )
        clone = ["git", "clone", "--quiet", self.repository.url, "operarios"]
        subprocess.run(clone, cwd=walk.place, check=True)
        (walk.place / "audit.log").symlink_to(self.audit_log)
        return walk


def audit_policy(folder: Path) -> Path:
    """Write the audit policy of the page for auditors; what it leaves out, the tests record."""
    page = (ROOT / "docs/how-to/auditors/audit-log.md").read_text()
    [block] = [block for block in blocks(page) if block.path == "audit-policy.yaml"]
    policy = yaml.safe_load("\n".join(block.body))
    policy["rules"] += yaml.safe_load((ROOT / "tests/cluster/audit-policy.yaml").read_text())[
        "rules"
    ]
    path = folder / "audit-policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    return path


def starter_repository(folder: Path) -> Repository:
    """Return the starter repository with the changes, and with Ada as its author."""
    repository = Repository(folder)
    example = ROOT / "operarios-example"
    for file in example.rglob("*"):
        path = str(file.relative_to(example))
        if file.is_file() and PARTS.fullmatch(path):
            text = file.read_text()
            for old, new in CHANGES.get(path, {}).items():
                assert old in text
                text = text.replace(old, new)
            repository.write(path, text)
    repository.commit("Add the operarios")
    return repository


def remediate(replica: Replica) -> list[str]:
    """Deliver alerts, and wait until each remediation is in the state that the pages show.

    Return the Jobs that wait for approval.
    """
    helped = alert(
        "KubePodCrashLooping", namespace="monitoring", pod="grafana-0", container="grafana"
    )
    failed = alert("KubeStatefulSetReplicasMismatch", namespace="shop", statefulset="orders")
    repeated = alert("KubeDeploymentReplicasMismatch", namespace="shop", deployment="cart")
    drains = [
        alert("KubeNodeReadinessFlapping", node=f"worker-{number}") for number in (5, 6, 7, 8)
    ]
    unsafe = alert("KubeNodeReadinessFlapping", node="--all")
    cordons = [alert("KubeNodeNotReady", node=f"worker-{number}") for number in (3, 4, 9)]
    unknown = alert("KubeAPIErrorBudgetBurn", severity="critical")

    def deliver(*alerts: dict[str, Any]) -> list[dict[str, Any]]:
        status, answer = replica.deliver(*alerts)
        assert status == 200, answer
        items: list[dict[str, Any]] = answer["items"]
        return items

    def reach(item: dict[str, Any], phase: str, reason: str = "") -> None:
        def is_reached() -> bool:
            shown = replica.remediation(item["job"])
            return shown["phase"] == phase and reason in (shown["reason"] or "")

        replica.wait_for(is_reached)

    [first] = deliver(helped)
    reach(first, "Succeeded")
    deliver(helped | {"status": "resolved", "endsAt": format_time(datetime.now(UTC))})
    waiting = deliver(*drains)
    for item, phase in zip(
        [*waiting, *deliver(failed, unsafe, cordons[0])],
        [*["AwaitingApproval"] * len(drains), "Failed", "Refused", "Running"],
        strict=True,
    ):
        reach(item, phase)
    for cordon in cordons[1:]:
        [behind] = deliver(cordon)
        reach(behind, "Waiting", "max-concurrent")
    deliver(unknown)

    def is_stopped() -> bool:
        [item] = deliver(repeated)
        return replica.remediation(item["job"])["reason"] == "not-helping"

    replica.wait_for(is_stopped)
    replica.wait_for(lambda: replica.remediation(first["job"])["effect"] == "healed")
    return [item["job"] for item in waiting]


def policy_refuses(kubectl: Kubectl) -> bool:
    """Whether the admission policy of the chart is active: only the controller creates its Jobs."""
    container = {"name": "c", "image": "i"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "probe", "labels": {"openfero.io/managed-by": "openfero-gitops"}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    try:
        kubectl("create", "-n", JOBS, "--dry-run=server", "-f", "-", stdin=json.dumps(job))
    except KubectlError as error:
        return "ValidatingAdmissionPolicy" in str(error)
    return False


def policy_is_recorded(kubectl: Kubectl) -> bool:
    """Whether the leader has recorded that nobody can approve in another name."""
    try:
        results = from_config_map(kubectl.json("get", "configmap", CONFIG_MAP, "-n", NAMESPACE))
    except KubectlError:
        return False
    policy = results.policies.get(JOBS) if results is not None else None
    return policy is not None and policy.approvals_since is not None


def start_by_hand(kubectl: Kubectl, job: str) -> None:
    """Start a Job that nobody approved, as a user can who removes the admission policy."""
    binding = kubectl.json("get", "validatingadmissionpolicybinding", POLICY)
    kubectl("delete", "validatingadmissionpolicybinding", POLICY)
    wait_until(lambda: not policy_refuses(kubectl))
    patch = json.dumps({"spec": {"suspend": False}})
    kubectl("patch", "job", job, "-n", JOBS, "--type=merge", "-p", patch)
    metadata = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}
    kubectl("create", "-f", "-", stdin=json.dumps({**binding, "metadata": metadata}))
    wait_until(lambda: policy_refuses(kubectl))


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    private_control_plane: Callable[..., ControlPlane],
) -> Iterator[Stage]:
    """Install the chart, start a replica, and let it remediate.

    The cluster is the pages' own: the commands list the Jobs of all namespaces.
    """
    folder = tmp_path_factory.mktemp("stage")
    repository = starter_repository(folder / "operarios")
    program = require_binaries(request.config) / "kubectl"
    flags = {"kube-apiserver": [f"--audit-policy-file={audit_policy(folder)}"]}
    plane = private_control_plane(flags=flags)
    kubeconfig = plane.kubeconfig
    kubectl = Kubectl(program, kubeconfig)
    with contextlib.ExitStack() as ended:
        values = {**REPOSITORY, "logs": {"enabled": True}}
        install_chart(kubeconfig, NAMESPACE, values)
        accounts = {
            word
            for file in repository.folder.rglob("*.yaml")
            for word in re.findall(r"serviceAccountName: (\S+)", file.read_text())
        }
        kubectl.create(JOBS, *(account(name) for name in sorted(accounts)))
        logs = ended.enter_context(kubelet_logs(kubectl, folder / "kubelet"))
        for container, text in LOGS.items():
            logs.write(container, text)
        kubectl(
            "create", "clusterrolebinding", USER, "--clusterrole=cluster-admin", f"--user={USER}"
        )
        wait_until(lambda: policy_refuses(kubectl))
        users = ended.enter_context(Users(program, kubeconfig, f"--as={USER}"))
        replica = Replica(
            folder,
            name=IDENTITY,
            kubeconfig=service_account_kubeconfig(kubeconfig, NAMESPACE, folder),
            roles=False,
            namespace=NAMESPACE,
            jobs_namespace=JOBS,
            repository=repository.url,
        )
        ended.enter_context(replica)
        # The approvers of Jobs that come before the leader has found the policy are not verified.
        wait_until(lambda: policy_is_recorded(kubectl))
        config = folder / "ada.kubeconfig"
        config.write_text(json.dumps(proxied(users.url)))
        *_, approved, bypassed = remediate(replica)
        approve = ["approve", f"{JOBS}/{approved}", f"--kubeconfig={config}"]
        assert main([*approve, "--reason", "CHG-1042: the node is replaced"]) == 0
        start_by_hand(kubectl, bypassed)
        for job in (approved, bypassed):
            replica.wait_for(lambda job=job: replica.remediation(job)["phase"] == "Succeeded")
        yield Stage(replica, repository, config, program, plane.audit_log)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def account(name: str) -> dict[str, Any]:
    """Return a ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def proxied(url: str) -> dict[str, Any]:
    """Return a kubeconfig for a proxy that authenticates; its namespace is the controller's."""
    name = "cluster"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": USER, "user": {}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": USER, "namespace": NAMESPACE}}
        ],
        "current-context": name,
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_walk_with_a_running_controller(name: str, stage: Stage, tmp_path: Path) -> None:
    """Every command of the page is run as Ada, prints what the page says, and ends as it says."""
    if "how-to/auditors" in name:
        require_jq()
    compare(name, stage.walk(tmp_path), VARYING)

"""A compromised remediation: what its Pod reaches with its ServiceAccount, beside the chart."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

import pytest

from openfero_gitops.domain import keys
from tests.cluster.controlplane import binaries
from tests.support.attacks import forged_config_map
from tests.support.chart import install_chart, service_account_kubeconfig
from tests.support.cluster import Kubectl, KubectlError, require_binaries
from tests.support.replica import Replica, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.cluster

CONTROLLER = "openfero-gitops"
ORDINARY, STRONG = "restarter", "editor"


@pytest.fixture(scope="module")
def account(
    request: pytest.FixtureRequest,
    kubeconfig: Path,
    kubectl: Kubectl,
    shared_namespace: str,
    jobs_namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Kubectl]:
    """Return kubectl as a remediation's ServiceAccount: an ordinary one, or one with `edit`."""
    require_binaries(request.config)
    values = {
        "repository": {"url": "https://git.example.com/operarios.git"},
        "replicaCount": 0,
    }
    install_chart(kubeconfig, shared_namespace, values)
    for name in (ORDINARY, STRONG):
        kubectl("create", "serviceaccount", name, "-n", jobs_namespace)
    user = f"--serviceaccount={jobs_namespace}:"
    where = ("-n", jobs_namespace)
    kubectl("create", "role", ORDINARY, "--verb=get,list,delete", "--resource=pods", *where)
    kubectl("create", "rolebinding", ORDINARY, f"--role={ORDINARY}", user + ORDINARY, *where)
    kubectl("create", "rolebinding", STRONG, "--clusterrole=edit", user + STRONG, *where)
    folder = tmp_path_factory.mktemp("accounts")

    def act_as(name: str) -> Kubectl:
        config = service_account_kubeconfig(kubeconfig, jobs_namespace, folder, account=name)
        return Kubectl(binaries() / "kubectl", config)

    return act_as


def forbidden(kubectl: Kubectl, *arguments: str, stdin: str | None = None) -> None:
    """Check that RBAC forbids a command."""
    with pytest.raises(KubectlError, match=r"[Ff]orbidden|cannot"):
        kubectl(*arguments, stdin=stdin)


@pytest.mark.parametrize("name", [ORDINARY, STRONG])
def test_nothing_in_the_controllers_namespace_can_be_read_or_written(
    account: Callable[[str], Kubectl], shared_namespace: str, name: str
) -> None:
    """Neither Secrets, mirror, pause, Lease, Events nor Pods; not even with `edit` beside it."""
    kubectl = account(name)
    in_namespace = ("-n", shared_namespace)
    forbidden(kubectl, "get", "secrets", *in_namespace)
    forbidden(kubectl, "get", "configmaps", *in_namespace)
    forbidden(kubectl, "get", "leases", *in_namespace)
    forbidden(
        kubectl, "create", "-f", "-", *in_namespace, stdin=json.dumps(forged_config_map(1, 10))
    )
    pause = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "openfero-control"}}
    forbidden(kubectl, "create", "-f", "-", *in_namespace, stdin=json.dumps(pause))
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "openfero-gitops"},
        "spec": {"holderIdentity": "mallory"},
    }
    forbidden(kubectl, "create", "-f", "-", *in_namespace, stdin=json.dumps(lease))
    forbidden(kubectl, "delete", "lease", "openfero-gitops", *in_namespace)
    forbidden(kubectl, "scale", "deployment", CONTROLLER, "--replicas=1", *in_namespace)
    forbidden(kubectl, "create", "token", CONTROLLER, *in_namespace)
    forbidden(kubectl, "run", "x", "--image=x", *in_namespace)


@pytest.mark.parametrize("name", [ORDINARY, STRONG])
def test_nobody_else_can_be_impersonated(
    account: Callable[[str], Kubectl], shared_namespace: str, name: str
) -> None:
    """It can neither act as the controller, nor grant itself more, nor remove the policies."""
    kubectl = account(name)
    controller = f"--as=system:serviceaccount:{shared_namespace}:{CONTROLLER}"
    forbidden(kubectl, "get", "configmaps", "-n", shared_namespace, controller)
    forbidden(kubectl, "create", "rolebinding", "more", "--clusterrole=admin", "--user=x")
    forbidden(kubectl, "delete", "role", "--all")
    forbidden(kubectl, "delete", "validatingadmissionpolicies", "--all")
    forbidden(kubectl, "delete", "validatingadmissionpolicybindings", "--all")


def test_an_ordinary_account_cannot_touch_jobs(account: Callable[[str], Kubectl]) -> None:
    """With rights on Pods alone, no Job can be read, created, approved, started or deleted."""
    kubectl = account(ORDINARY)
    forbidden(kubectl, "get", "jobs")
    forbidden(kubectl, "create", "job", "x", "--image=x")
    forbidden(kubectl, "annotate", "job", "x", f"{keys.APPROVED_BY}=me")
    forbidden(kubectl, "patch", "job", "x", "-p", '{"spec":{"suspend":false}}')
    forbidden(kubectl, "delete", "jobs", "--all")
    forbidden(kubectl, "get", "secrets")
    forbidden(kubectl, "create", "configmap", "x")


def test_the_webhooks_listener_shows_a_pod_nothing_but_probes(
    tmp_path: Path, kubeconfig: Path, namespace: str
) -> None:
    """Without a token no alert, hook, page or API answer is to be had on the port for Pods."""
    repository = Repository(tmp_path / "operarios")
    repository.write("web.json", operario("WebDown"))
    repository.commit("Operarios")
    (tmp_path / "token").write_text("a-token\n")
    with Replica(
        tmp_path,
        name="inside",
        kubeconfig=kubeconfig,
        namespace=namespace,
        repository=repository.url,
        development=False,
        web_listen="127.0.0.1:0",
        webhook_auth="bearer",
        webhook_credentials_file=str(tmp_path / "token"),
    ) as replica:
        statuses = {
            path: _status(replica, method, path)
            for method, path in (
                ("POST", "/alerts"),
                ("POST", "/alert"),
                ("POST", "/hooks/git"),
                ("GET", "/"),
                ("GET", "/api/remediations"),
                ("GET", "/api/operarios"),
                ("GET", "/static/page.js"),
                ("GET", "/livez"),
            )
        }
        assert statuses == {
            "/alerts": 401,
            "/alert": 401,
            "/hooks/git": 403,
            "/": 404,
            "/api/remediations": 404,
            "/api/operarios": 404,
            "/static/page.js": 404,
            "/livez": 200,
        }
        metrics = replica.read("/metrics")
    assert "a-token" not in metrics


def _status(replica: Replica, method: str, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=60)
    connection.request(method, path, body=b"{}" if method == "POST" else None)
    status = connection.getresponse().status
    connection.close()
    return status

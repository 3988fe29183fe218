"""Upgrades from charts of the past, on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chart import (
    CHART,
    NAME,
    RELEASE,
    REPOSITORY,
    HelmError,
    Values,
    helm,
    install_chart,
    merged,
    webhook_credentials,
)
from tests.support.cluster import require_binaries
from tests.support.paths import FIXTURES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

#: Packaged by `helm package`, before the chart had alerts, routes and common labels.
BEFORE = FIXTURES / "charts" / "before-monitoring.tgz"
#: No Pods, which would cost more than the rest.
VALUES: Values = {**REPOSITORY, "replicaCount": 0}
MORE: Values = {
    "commonLabels": {"team": "platform"},
    "commonAnnotations": {"contact": "platform"},
    "grafanaDashboard": {"enabled": True},
    "ingress": {"webhook": {"enabled": True, "host": "alerts.example.com"}},
    "alertmanager": {"urls": ["http://alertmanager.monitoring.svc:9093"]},
}


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


def test_an_upgrade_keeps_what_must_not_change(
    kubeconfig: Path, kubectl: Kubectl, shared_namespace: str, jobs_namespace: str
) -> None:
    """Token, mirror key and Jobs outlive the upgrade from an old chart, and a rollback to it."""
    install_chart(kubeconfig, shared_namespace, VALUES, chart=BEFORE)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "record"},
        "spec": {
            "suspend": True,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "a", "image": "registry.k8s.io/pause:3.10"}],
                }
            },
        },
    }
    kubectl.create(jobs_namespace, job)

    def kept() -> tuple[str, ...]:
        """Return what must stay: credentials, and the objects that others hold on to."""
        jsonpath = {
            f"secret/{NAME}-mirror": "{.data.key}",
            f"deployment/{NAME}": "{.metadata.uid} {.spec.selector}",
            f"service/{NAME}": "{.metadata.uid} {.spec.clusterIP}",
            f"serviceaccount/{NAME}": "{.metadata.uid}",
        }
        return (
            webhook_credentials(kubeconfig, shared_namespace),
            *(
                kubectl("get", name, "-n", shared_namespace, "-o", f"jsonpath={path}")
                for name, path in jsonpath.items()
            ),
            kubectl("get", "job/record", "-n", jobs_namespace, "-o", "jsonpath={.metadata.uid}"),
            kubectl("get", f"namespace/{jobs_namespace}", "-o", "jsonpath={.metadata.uid}"),
        )

    before = kept()
    assert all(before)
    install_chart(kubeconfig, shared_namespace, VALUES)
    assert kept() == before
    install_chart(kubeconfig, shared_namespace, merged(VALUES, MORE))
    assert kept() == before
    labels = kubectl.json("get", f"deployment/{NAME}", "-n", shared_namespace)["metadata"]["labels"]
    assert labels["team"] == "platform"
    helm("rollback", RELEASE, "1", kubeconfig=kubeconfig, namespace=shared_namespace)
    assert kept() == before
    left = kubectl("get", "ingress,configmap", "-n", shared_namespace, "-o", "name").split()
    assert left == ["configmap/kube-root-ca.crt"]


def test_values_of_an_old_chart_are_still_understood(
    kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """With `--reuse-values`, which hides the new chart's defaults, Helm says what to do instead."""
    changes = {
        "jobsNamespace": {"create": False, "name": namespace},
        "jobPolicy": {"create": False},
    }
    install_chart(kubeconfig, namespace, merged(VALUES, changes), chart=BEFORE)
    upgrade = ("upgrade", RELEASE, str(CHART))
    with pytest.raises(HelmError, match="--reset-then-reuse-values instead of --reuse-values"):
        helm(*upgrade, "--reuse-values", kubeconfig=kubeconfig, namespace=namespace)
    helm(*upgrade, "--reset-then-reuse-values", kubeconfig=kubeconfig, namespace=namespace)
    args = kubectl.json("get", f"deployment/{NAME}", "-n", namespace)["spec"]["template"]["spec"]
    assert f"--jobs-namespace={namespace}" in args["containers"][0]["args"]
    assert "--max-waiting=10000" in args["containers"][0]["args"]

"""`import openfero` from a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from openfero_gitops.cli import main
from tests.support.chart import service_account_kubeconfig
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

INSTALLATION = ROOT / "tests/fixtures/openfero"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "operariuses.openfero.io"},
    "spec": {
        "group": "openfero.io",
        "names": {"kind": "Operarius", "plural": "operariuses"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def installation(kubectl: Kubectl, shared_namespace: str) -> Iterator[str]:
    """Create the definitions and their permissions in a namespace."""
    kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
    kubectl("wait", "--for=condition=Established", "crd/operariuses.openfero.io")
    for name in ("operariuses.yaml", "rbac.yaml"):
        text = (INSTALLATION / name).read_text().replace("openfero\n", f"{shared_namespace}\n")
        text = text.replace("namespace: openfero}", f"namespace: {shared_namespace}}}")
        text = text.replace("namespace: shop", f"namespace: {shared_namespace}")
        text = text.replace("uid: 5f0c7b1e-0000-4000-8000-000000000001", "uid: ''")
        text = text.replace('resourceVersion: "1234"', "resourceVersion: ''")
        kubectl("apply", "-f", "-", stdin=text)
    yield shared_namespace
    kubectl("delete", "crd/operariuses.openfero.io", "--wait=false")
    kubectl("delete", "clusterrolebinding/see-everything")


def test_an_installation_is_imported(
    installation: str,
    kubectl: Kubectl,
    kubeconfig: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Definitions and permissions are written without what the server added, and can be applied."""
    folder = tmp_path / "out"
    command = ["import", "openfero", "--kubeconfig", str(kubeconfig), "--namespace", installation]
    assert main([*command, "--to", str(folder)]) == 0, capsys.readouterr()
    body = yaml.safe_load((folder / "podstuck/restart-pod.yaml").read_text())
    assert body["metadata"] == {"name": "restart-pod", "namespace": installation}
    kinds = [
        part["kind"] for part in yaml.safe_load_all((folder / "rbac/restarter.yaml").read_text())
    ]
    assert sorted(kinds) == ["ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"]
    kubectl("delete", "serviceaccount/restarter", "--namespace", installation)
    kubectl("apply", "-k", str(folder))
    kubectl("get", "serviceaccount/restarter", "--namespace", installation)


def test_a_user_who_may_not_list_everything(
    installation: str,
    kubectl: Kubectl,
    kubeconfig: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What may not be listed is noted; definitions that may not be listed end the command."""
    kubectl("create", "serviceaccount", "importer", "--namespace", installation)
    reader = service_account_kubeconfig(kubeconfig, installation, tmp_path, account="importer")
    command = ["import", "openfero", "--kubeconfig", str(reader), "--namespace", installation]
    assert main([*command, "--to", str(tmp_path / "none")]) == 2
    assert "forbidden" in capsys.readouterr().err
    role = ["create", "role", "importer", "--verb=list", "--resource=configmaps"]
    kubectl(*role, "--resource=operariuses.openfero.io", "--namespace", installation)
    account = f"--serviceaccount={installation}:importer"
    binding = ["create", "rolebinding", "importer", "--role=importer", account]
    kubectl(*binding, "--namespace", installation)
    assert main([*command, "--to", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "ClusterRole objects are not imported" in output
    assert "ServiceAccount restarter" in output

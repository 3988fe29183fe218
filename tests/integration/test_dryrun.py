"""Dry runs of operarios on a real API server, with the permissions from the chart."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chart import install_chart, service_account_kubeconfig
from tests.support.cluster import KubectlError
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

PATIENCE = 300.0
ADDRESS = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}


@pytest.fixture
def jobs_namespace(namespace: str, kubectl: Kubectl) -> Iterator[str]:
    """Return the name of the namespace that the chart creates for Jobs."""
    name = f"{namespace}-jobs"
    yield name
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@pytest.fixture
def policy(kubectl: Kubectl, jobs_namespace: str) -> Iterator[None]:
    """Install a policy that denies Jobs by their image in this test's namespace."""
    name = f"images-{jobs_namespace}"
    group = "admissionregistration.k8s.io/v1"
    images = "object.spec.template.spec.containers.all(c, !c.image.startsWith('evil.example/'))"
    rule = {
        "apiGroups": ["batch"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["jobs"],
    }
    labels = {"kubernetes.io/metadata.name": jobs_namespace}
    kubectl.create(
        "default",
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [
                    {
                        "expression": images,
                        "message": "images of evil.example are not run here",
                        "reason": "Forbidden",
                    }
                ],
            },
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": labels}},
            },
        },
    )
    yield
    kubectl("delete", "validatingadmissionpolicy", name)
    kubectl("delete", "validatingadmissionpolicybinding", name)


def job(name: str, **changes: Any) -> str:
    """Return an operario with another image, security context or account."""
    value = json.loads(operario(name))
    pod = value["spec"]["template"]["spec"]
    pod["containers"][0] |= changes.pop("container", {})
    pod |= changes
    return json.dumps(value, indent=2)


def wait_for_policy(kubectl: Kubectl, namespace: str) -> None:
    """Wait until the policy is active, which takes the API server a while."""
    evil = ("--image=evil.example/a", "--dry-run=server", "-n", namespace)
    deadline = time.monotonic() + PATIENCE
    output = ""
    while "images of evil.example" not in output:
        assert time.monotonic() < deadline, f"the policy is not active: {output}"
        time.sleep(0.2)
        try:
            output = kubectl("create", "job", "evil", *evil)
        except KubectlError as error:
            output = str(error)


@pytest.mark.usefixtures("policy")
def test_dry_run_results_become_problems(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str, jobs_namespace: str
) -> None:
    """A policy's denial is an error; Pod Security and a missing account are warnings.

    All operarios stay active, and the replica that does not lead shows the same problems.
    """
    values = {**ADDRESS, "jobsNamespace": {"podSecurity": {"enforce": "restricted", "warn": ""}}}
    install_chart(kubeconfig, namespace, values)
    wait_for_policy(kubectl, jobs_namespace)
    repository = Repository(tmp_path / "operarios")
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    repository.write("fine.json", job("Fine", container={"securityContext": secure}))
    repository.write(
        "evil.json",
        job("Evil", container={"image": "evil.example/heal:1", "securityContext": secure}),
    )
    repository.write("plain.json", job("Plain"))
    repository.write(
        "account.json",
        job("Account", container={"securityContext": secure}, serviceAccountName="mender"),
    )
    repository.commit("Operarios")
    start = {
        "kubeconfig": service_account_kubeconfig(kubeconfig, namespace, tmp_path),
        "namespace": namespace,
        "repository": repository.url,
        "jobs_namespace": jobs_namespace,
    }

    def problems(replica: Replica) -> list[tuple[str, str, str]]:
        items = replica.get("/api/problems")["items"]
        return sorted(
            (item["path"], item["rule"], item["severity"])
            for item in items
            if item["rule"].startswith(("dry-run", "service-account-missing"))
        )

    expected = [
        ("account.json", "service-account-missing", "warning"),
        ("evil.json", "dry-run-refused", "error"),
        ("plain.json", "dry-run-warning", "warning"),
    ]
    with Replica(tmp_path, name="a", **start) as a:
        a.wait_for(lambda: a.leads, PATIENCE)
        a.wait_for(lambda: problems(a) == expected, PATIENCE)
        messages = {item["rule"]: item["message"] for item in a.get("/api/problems")["items"]}
        assert "images of evil.example are not run here" in messages["dry-run-refused"]
        assert 'would violate PodSecurity "restricted' in messages["dry-run-warning"]
        assert len(a.get("/api/operarios")["items"]) == 4
        assert kubectl("get", "jobs", "-n", jobs_namespace, "-o", "name") == ""
        with Replica(tmp_path, name="b", **start) as b:
            b.wait_for(lambda: problems(b) == expected, PATIENCE)
            assert not b.leads
        metrics = a.read("/metrics")
    assert 'openfero_gitops_dry_runs_total{result="refused"} 1.0' in metrics
    assert 'openfero_gitops_dry_runs_total{result="accepted"} 2.0' in metrics


def test_a_full_quota_is_a_warning_while_it_is_full(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str
) -> None:
    """A full quota is a warning, because the operario is valid; it stays active."""
    kubectl("create", "quota", "full", "--hard=count/jobs.batch=1", "-n", namespace)
    repository = Repository(tmp_path / "operarios")
    repository.write("disk.json", operario("Disk"))
    repository.commit("Operarios")
    kubectl.wait(namespace, "resourcequota/full", "jsonpath={.status.hard}")
    kubectl("create", "job", "one", "--image=registry.k8s.io/pause:3.10", "-n", namespace)
    with Replica(
        tmp_path, name="a", kubeconfig=kubeconfig, namespace=namespace, repository=repository.url
    ) as replica:

        def problems() -> list[dict[str, str]]:
            items = replica.get("/api/problems")["items"]
            return [item for item in items if item["rule"].startswith("dry-run")]

        (problem,) = replica.wait_for(problems, PATIENCE)
        assert (problem["rule"], problem["severity"]) == ("dry-run-forbidden", "warning")
        assert "exceeded quota: full" in problem["message"]
        status, _ = replica.deliver(alert("Disk", host="a"))
        assert status == 503


def test_without_permission_to_create_there_is_one_warning(
    tmp_path: Path, kubeconfig: Path, kubectl: Kubectl, namespace: str, jobs_namespace: str
) -> None:
    """A controller without the permission to create Jobs reports this once."""
    install_chart(kubeconfig, namespace, ADDRESS)
    role = kubectl.json("get", "role", "openfero-gitops-jobs", "-n", jobs_namespace)
    rules = [{**rule, "verbs": ["get", "list", "watch"]} for rule in role["rules"]]
    kubectl("replace", "-f", "-", stdin=json.dumps({**role, "rules": rules}))
    repository = Repository(tmp_path / "operarios")
    for number in range(3):
        repository.write(f"op{number}.json", operario(f"Op{number}"))
    repository.commit("Operarios")
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=service_account_kubeconfig(kubeconfig, namespace, tmp_path),
        namespace=namespace,
        repository=repository.url,
        jobs_namespace=jobs_namespace,
    ) as replica:

        def problems() -> list[dict[str, str]]:
            items = replica.get("/api/problems")["items"]
            return [item for item in items if item["rule"].startswith("dry-run")]

        (problem,) = replica.wait_for(problems, PATIENCE)
        assert problem["rule"] == "dry-run-not-allowed"
        assert problem["severity"] == "warning"
        assert "cannot create resource" in problem["message"]

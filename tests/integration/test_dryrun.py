"""Dry runs of operarios on a real API server, with the permissions from the chart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chart import NAME, install_chart, service_account_kubeconfig
from tests.support.cluster import KubectlError
from tests.support.replica import Replica, alert, operario
from tests.support.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

PATIENCE = 300.0
IMAGE = "--image=registry.k8s.io/pause:3.10"
ADDRESS = {"repository": {"url": "https://git.example.com/operarios.git"}, "replicaCount": 0}


@pytest.fixture(scope="module")
def policy(kubectl: Kubectl, jobs_namespace: str) -> Iterator[None]:
    """Install a policy that denies Jobs by their image in the namespace of these tests."""
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


def wait_until_denied(kubectl: Kubectl, namespace: str, reason: str, *options: str) -> None:
    """Wait until a Job is denied for a reason, which takes the API server a while."""
    command = ("create", "job", "denied", "--dry-run=server", "-n", namespace)
    deadline = time.monotonic() + PATIENCE
    output = ""
    while reason not in output:
        assert time.monotonic() < deadline, f"not denied: {output}"
        time.sleep(0.2)
        try:
            output = kubectl(*command, *options)
        except KubectlError as error:
            output = str(error)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Create a repository without operarios; each test commits its own."""
    repository = Repository(tmp_path_factory.mktemp("repository") / "operarios")
    repository.write("openfero.yaml", "limits: {concurrent: 7}\n")
    repository.commit("Limits")
    return repository


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory,
    kubeconfig: Path,
    kubectl: Kubectl,
    shared_namespace: str,
    jobs_namespace: str,
    policy: None,
    repository: Repository,
) -> dict[str, Any]:
    """Install the chart, and return how its replicas are started."""
    del policy
    values = {**ADDRESS, "jobsNamespace": {"podSecurity": {"enforce": "restricted", "warn": ""}}}
    install_chart(kubeconfig, shared_namespace, values)
    wait_until_denied(kubectl, jobs_namespace, "images of evil.example", "--image=evil.example/a")
    folder = tmp_path_factory.mktemp("replicas")
    return {
        "folder": folder,
        "kubeconfig": service_account_kubeconfig(kubeconfig, shared_namespace, folder),
        "roles": False,
        "namespace": shared_namespace,
        "repository": repository.url,
        "jobs_namespace": jobs_namespace,
    }


@pytest.fixture(scope="module")
def replica(start: dict[str, Any]) -> Iterator[Replica]:
    """Start a replica that leads; all tests share it."""
    with Replica(name="a", **start) as started:
        started.wait_for(lambda: started.leads, PATIENCE)
        yield started


def commit(repository: Repository, operarios: dict[str, str]) -> None:
    """Replace all operarios."""
    for file in repository.folder.glob("*.json"):
        file.unlink()
    for name, text in operarios.items():
        repository.write(name, text)
    repository.commit("Operarios")


def wait_for_problems(replica: Replica, *rules: str) -> list[dict[str, str]]:
    """Wait until dry runs have found problems of these rules, and return them by path."""

    def found() -> list[dict[str, str]]:
        items = replica.get("/api/problems")["items"]
        of_dry_runs = [
            item
            for item in sorted(items, key=lambda item: item["path"])
            if item["rule"].startswith(("dry-run", "service-account-missing"))
        ]
        return of_dry_runs if [item["rule"] for item in of_dry_runs] == [*rules] else []

    return list(replica.wait_for(found, PATIENCE))


def test_dry_run_results_become_problems(
    kubectl: Kubectl,
    jobs_namespace: str,
    repository: Repository,
    start: dict[str, Any],
    replica: Replica,
) -> None:
    """A policy's denial is an error; Pod Security and a missing account are warnings.

    All operarios stay active, and the replica that does not lead shows the same problems.
    """
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    evil = {"image": "evil.example/heal:1", "securityContext": secure}
    operarios = {
        "fine.json": job("Fine", container={"securityContext": secure}),
        "evil.json": job("Evil", container=evil),
        "plain.json": job("Plain"),
        "account.json": job(
            "Account", container={"securityContext": secure}, serviceAccountName="mender"
        ),
    }
    commit(repository, operarios)

    rules = ("service-account-missing", "dry-run-refused", "dry-run-warning")
    found = account, refused, warned = wait_for_problems(replica, *rules)
    assert (account["path"], account["severity"]) == ("account.json", "warning")
    assert (refused["path"], refused["severity"]) == ("evil.json", "error")
    assert (warned["path"], warned["severity"]) == ("plain.json", "warning")
    assert "images of evil.example are not run here" in refused["message"]
    assert 'would violate PodSecurity "restricted' in warned["message"]
    assert len(replica.get("/api/operarios")["items"]) == 4
    assert kubectl("get", "jobs", "-n", jobs_namespace, "-o", "name") == ""
    with Replica(name="b", development=False, **start) as b:
        assert wait_for_problems(b, *rules) == found
        assert not b.leads
    metrics = replica.read("/metrics")
    assert 'openfero_gitops_dry_runs_total{result="refused"} 1.0' in metrics
    assert 'openfero_gitops_dry_runs_total{result="accepted"} 2.0' in metrics


def test_a_person_can_ask_where_only_the_controller_creates_jobs(
    start: dict[str, Any], kubeconfig: Path, jobs_namespace: str, tmp_path: Path
) -> None:
    """It leaves out the label that the chart's policy reserves, and finds what others deny."""
    (tmp_path / "fine.json").write_text(job("Fine"))
    (tmp_path / "evil.json").write_text(job("Evil", container={"image": "evil.example/heal:1"}))
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "openfero_gitops", "validate", str(tmp_path), "--cluster"),
            *("--kubeconfig", str(kubeconfig), "--jobs-namespace", jobs_namespace),
            *("--format", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert start["jobs_namespace"] == jobs_namespace  # its policy is installed
    problems = json.loads(ran.stdout)["problems"]
    (refused,) = [problem for problem in problems if problem["rule"] == "dry-run-refused"]
    assert refused["path"] == "evil.json"
    assert "images of evil.example are not run here" in refused["message"]


def test_a_full_quota_is_a_warning_while_it_is_full(
    kubectl: Kubectl, jobs_namespace: str, repository: Repository, replica: Replica
) -> None:
    """A full quota is a warning, because the operario is valid; it stays active."""
    kubectl("create", "quota", "full", "--hard=count/jobs.batch=1", "-n", jobs_namespace)
    kubectl.wait(jobs_namespace, "resourcequota/full", "jsonpath={.status.hard}")
    kubectl("create", "job", "one", IMAGE, "-n", jobs_namespace)
    wait_until_denied(kubectl, jobs_namespace, "exceeded quota", IMAGE)
    commit(repository, {"disk.json": operario("Disk")})

    (problem,) = wait_for_problems(replica, "dry-run-forbidden")
    assert problem["severity"] == "warning"
    assert "exceeded quota: full" in problem["message"]
    status, _ = replica.deliver(alert("Disk", host="a"))
    assert status == 503
    kubectl("delete", "quota/full", "job/one", "-n", jobs_namespace)


def test_without_permission_to_create_there_is_one_warning(
    kubectl: Kubectl,
    shared_namespace: str,
    jobs_namespace: str,
    repository: Repository,
    replica: Replica,
) -> None:
    """A controller without the permission to create Jobs reports this once.

    It comes last, since the permission is not given back.
    """
    role = kubectl.json("get", "role", NAME + "-jobs", "-n", jobs_namespace)
    rules = [{**rule, "verbs": ["get", "list", "watch"]} for rule in role["rules"]]
    kubectl("replace", "-f", "-", stdin=json.dumps({**role, "rules": rules}))
    account = f"--as=system:serviceaccount:{shared_namespace}:{NAME}"
    wait_until_denied(kubectl, jobs_namespace, "cannot create resource", IMAGE, account)
    commit(repository, {f"op{number}.json": operario(f"Op{number}") for number in range(3)})

    (problem,) = wait_for_problems(replica, "dry-run-not-allowed")
    assert problem["severity"] == "warning"
    assert "cannot create resource" in problem["message"]

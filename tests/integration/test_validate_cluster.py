"""`validate --cluster`: a real API server judges every Job in a dry run."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from tests.integration.test_dryrun import wait_until_denied
from tests.support.cluster import temporary_namespace
from tests.support.gateway import Gateway
from tests.support.paths import ROOT
from tests.support.replica import operario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

PATIENCE = 120  # seconds
GROUP = "admissionregistration.k8s.io/v1"
RULE = {
    "apiGroups": ["batch"],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["jobs"],
}


def job(name: str, **changes: Any) -> str:
    """Return an operario with other members of its spec, Pod (`pod`) or container."""
    value = json.loads(operario(name))
    value["spec"] |= changes.pop("spec", {})
    pod = value["spec"]["template"]["spec"]
    pod |= changes.pop("pod", {})
    pod["containers"][0] |= changes
    return yaml.safe_dump(value, sort_keys=False)


def command(folder: Path, kubeconfig: Path, namespace: str, *options: str) -> list[str]:
    """Return the command that validates a folder in a cluster."""
    return [
        *(sys.executable, "-W", "error", "-m", "openfero_gitops", "validate", str(folder)),
        *("--cluster", "--kubeconfig", str(kubeconfig), "--jobs-namespace", namespace),
        *options,
    ]


def validate(
    folder: Path, kubeconfig: Path, namespace: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    ran = subprocess.run(
        command(folder, kubeconfig, namespace, *options),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in ran.stdout + ran.stderr, ran.stderr
    return ran


def problems(ran: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the problems that the cluster found, from the JSON output."""
    items: list[dict[str, Any]] = json.loads(ran.stdout)["problems"]
    return [p for p in items if p["rule"].startswith(("dry-run", "service-account-missing"))]


def target(path: Path, problem: dict[str, Any]) -> str:
    """Return the text at a problem's line and column."""
    return path.read_text().splitlines()[problem["line"] - 1][problem["column"] - 1 :]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for operarios."""
    folder = tmp_path / "operarios"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def policy(kubectl: Kubectl, shared_namespace: str) -> Iterator[None]:
    """Install a policy that denies images of evil.example in the shared namespace."""
    name = f"images-{shared_namespace}"
    images = "object.spec.template.spec.containers.all(c, !c.image.startsWith('evil.example/'))"
    message = {"expression": images, "message": "images of evil.example are not run here"}
    labels = {"matchLabels": {"kubernetes.io/metadata.name": shared_namespace}}
    matched = {"resourceRules": [RULE]}
    rules = {"matchConstraints": matched, "validations": [message | {"reason": "Forbidden"}]}
    bound = {"policyName": name, "validationActions": ["Deny"]}
    kind = "ValidatingAdmissionPolicy"
    kubectl.create(
        "default",
        {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": rules},
        {
            "apiVersion": GROUP,
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "spec": bound | {"matchResources": {"namespaceSelector": labels}},
        },
    )
    wait_until_denied(kubectl, shared_namespace, "images of evil.example", "--image=evil.example/a")
    yield
    kubectl("delete", kind.lower(), name)
    kubectl("delete", f"{kind}Binding".lower(), name)


@pytest.mark.usefixtures("policy")
def test_the_cluster_judges_every_operario(
    folder: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """What only the cluster refuses is an error at its field, in all forms of operarios.

    Only requests with dryRun=All are sent, and nothing is created.
    """
    evil = {"image": "evil.example/heal:1", "resources": {"limits": {"memory": "64Mi"}}}
    files = {
        "fine.yaml": job("Fine"),
        "evil.yaml": "# A comment.\n" + job("Evil", **evil),
        "account.yaml": job("Account", pod={"serviceAccountName": "mender"}),
        "wrapped.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n"
        "  name: openfero-wrapped-firing\ndata:\n  Wrapped: |\n"
        + textwrap.indent(job("Wrapped", **evil), "    "),
        "off.yaml": job("Off", **evil).replace(
            "  annotations:\n", '  annotations:\n    openfero.io/enabled: "false"\n', 1
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    requests: list[tuple[str, str, str]] = []

    async def record(request: web.Request) -> None:
        requests.append((request.method, request.path, request.query.get("dryRun", "")))

    with Gateway(kubeconfig, folder.parent) as gateway:
        gateway.rule = record
        ran = validate(folder, gateway.kubeconfig, shared_namespace, "--format", "json")

    assert ran.returncode == 1
    found = {problem["path"]: problem for problem in problems(ran)}
    assert found.keys() == {"evil.yaml", "account.yaml", "wrapped.yaml"}
    for name in ("evil.yaml", "wrapped.yaml"):
        assert (found[name]["rule"], found[name]["severity"]) == ("dry-run-refused", "error")
        assert "images of evil.example are not run here" in found[name]["message"]
    assert found["account.yaml"]["rule"] == "service-account-missing"
    assert "Kubernetes v1." in ran.stderr
    assert f"dry runs of 4 operarios in namespace {shared_namespace}" in ran.stderr
    assert "context openfero-test of" in ran.stderr
    written = [request for request in requests if request[0] != "GET"]
    assert len(written) == 4
    assert {(method, dry_run) for method, _, dry_run in written} == {("POST", "All")}
    assert kubectl("get", "jobs", "-n", shared_namespace, "-o", "name") == ""


@pytest.fixture
def restricted(kubectl: Kubectl) -> Iterator[str]:
    """Return a namespace whose Pods must be restricted, and whose quota is full."""
    with temporary_namespace(kubectl) as name:
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/warn=restricted")
        yield name


def test_pod_security_and_a_full_quota_are_warnings(
    folder: Path, kubeconfig: Path, kubectl: Kubectl, restricted: str
) -> None:
    """The Job is valid: a person decides what to do. With --strict the command fails."""
    (folder / "disk.yaml").write_text(job("Disk"))
    ran = validate(folder, kubeconfig, restricted, "--format", "json")
    (problem,) = problems(ran)
    assert (ran.returncode, problem["rule"]) == (0, "dry-run-warning")
    assert 'would violate PodSecurity "restricted' in problem["message"]
    assert validate(folder, kubeconfig, restricted, "--strict").returncode == 1

    kubectl("create", "quota", "full", "--hard=count/jobs.batch=0", "-n", restricted)
    wait_until_denied(kubectl, restricted, "exceeded quota", "--image=a")
    ran = validate(folder, kubeconfig, restricted, "--format", "json")
    (problem,) = problems(ran)
    assert (ran.returncode, problem["rule"]) == (0, "dry-run-forbidden")
    assert "exceeded quota: full" in problem["message"]


def test_each_field_that_the_api_server_names_is_located(
    folder: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """Its message is at the line of that field; added variables are not counted.

    (A cluster refuses what our rules refuse, too; so a gateway gives the answer of a stricter one.)
    """
    path = folder / "disk.yaml"
    variables = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    path.write_text(job("Disk", env=variables, spec={"backoffLimit": 3}))

    async def refuse(request: web.Request) -> web.Response | None:
        if request.method != "POST":
            return None
        container = (await request.json())["spec"]["template"]["spec"]["containers"][0]
        index = [variable["name"] for variable in container["env"]].index("B")
        field = f"spec.template.spec.containers[0].env[{index}].value"
        causes = [
            {"reason": "FieldValueInvalid", "message": "Invalid value: 2", "field": field},
            {
                "reason": "FieldValueForbidden",
                "message": "Forbidden: 3",
                "field": "spec.backoffLimit",
            },
        ]
        status = {
            "kind": "Status",
            "reason": "Invalid",
            "message": 'Job.batch "x" is invalid',
            "code": 422,
            "details": {"causes": causes},
        }
        return web.json_response(status, status=422)

    with Gateway(kubeconfig, folder.parent) as gateway:
        gateway.rule = refuse
        ran = validate(folder, gateway.kubeconfig, shared_namespace, "--format", "json")
        sarif = validate(folder, gateway.kubeconfig, shared_namespace, "--format", "sarif")
        junit = validate(folder, gateway.kubeconfig, shared_namespace, "--format", "junit")
    variable, limit = problems(ran)
    assert limit["message"] == "spec.backoffLimit: Forbidden: 3"
    assert target(path, limit) == "backoffLimit: 3"
    assert variable["message"].endswith("containers[0].env[1].value: Invalid value: 2")
    assert target(path, variable) == "value: '2'"
    assert '"ruleId": "dry-run-refused"' in sarif.stdout
    assert "backoffLimit: Forbidden: 3" in junit.stdout


def test_a_missing_namespace_is_one_warning(
    folder: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """It is reported once with the number of operarios; those of other namespaces are tried."""
    for name in ("A", "B", "C"):
        (folder / f"{name}.yaml").write_text(job(name))
    (folder / "D.yaml").write_text(
        job("D").replace("metadata:\n", f"metadata:\n  namespace: {shared_namespace}\n", 1)
    )
    ran = validate(folder, kubeconfig, "no-such-namespace", "--format", "json")
    (problem,) = problems(ran)
    assert (ran.returncode, problem["rule"], problem["severity"]) == (
        0,
        "dry-run-forbidden",
        "warning",
    )
    assert problem["message"] == (
        'namespaces "no-such-namespace" not found; 3 operarios could not be tried: '
        "create namespace no-such-namespace, or use --jobs-namespace"
    )
    assert f"namespaces no-such-namespace, {shared_namespace}" in ran.stderr


def test_without_permission_there_is_one_warning(
    folder: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """A caller without the permission to create Jobs learns that nothing was decided."""
    for name in ("A", "B", "C"):
        (folder / f"{name}.yaml").write_text(job(name))
    kubectl("create", "serviceaccount", "reader", "-n", shared_namespace)
    token = kubectl("create", "token", "reader", "-n", shared_namespace)
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    limited = folder.parent / "limited"
    limited.write_text(yaml.safe_dump(config))
    ran = validate(folder, limited, shared_namespace, "--format", "json")
    (problem,) = problems(ran)
    assert (ran.returncode, problem["rule"]) == (0, "dry-run-not-allowed")
    assert 'cannot create resource "jobs"' in problem["message"]
    assert "3 operarios could not be tried" in problem["message"]
    assert "grant the verb create on jobs" in problem["suggestion"]


def test_a_failing_webhook_is_a_warning(
    folder: Path, kubeconfig: Path, kubectl: Kubectl, shared_namespace: str
) -> None:
    """Whether the webhook would accept the Job is unknown: a warning at the operario."""
    (folder / "disk.yaml").write_text(job("Disk"))
    name = f"broken-{shared_namespace}.example.com"
    labels = {"matchLabels": {"kubernetes.io/metadata.name": shared_namespace}}
    webhook = {
        "name": name,
        "rules": [RULE],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/review"},
        "namespaceSelector": labels,
    }
    kind = "ValidatingWebhookConfiguration"
    kubectl.create(
        "default",
        {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "webhooks": [webhook]},
    )
    try:
        wait_until_denied(kubectl, shared_namespace, "failed calling webhook", "--image=a")
        ran = validate(folder, kubeconfig, shared_namespace, "--format", "json")
    finally:
        kubectl("delete", kind.lower(), name)
    (problem,) = problems(ran)
    assert (ran.returncode, problem["rule"], problem["path"]) == (
        0,
        "dry-run-undecided",
        "disk.yaml",
    )
    assert "failed calling webhook" in problem["message"]
    assert problem["suggestion"].endswith("check that it responds")


def test_many_operarios_show_progress_and_end_at_ctrl_c(
    folder: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """On a terminal one line counts; Ctrl-C ends the command without a traceback."""
    for number in range(60):
        (folder / f"op{number}.yaml").write_text(job(f"Op{number}"))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(folder, kubeconfig, shared_namespace),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    shown = ""
    deadline = time.monotonic() + PATIENCE
    while "dry runs: " not in shown:
        assert time.monotonic() < deadline, shown
        shown += os.read(master, 4096).decode()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    with contextlib.suppress(OSError):  # the terminal is gone
        shown += os.read(master, 65536).decode()
    os.close(master)
    assert "of 60" in shown
    assert "Traceback" not in shown
    assert process.returncode in (0, 2)  # 0: it was finished before the signal


def test_an_api_server_that_stops_answering_ends_the_command(
    folder: Path, kubeconfig: Path, shared_namespace: str
) -> None:
    """One line says what happened; exit code 2."""
    (folder / "disk.yaml").write_text(job("Disk"))

    async def fail(request: web.Request) -> web.Response | None:
        return web.Response(status=503, text="gone") if request.method == "POST" else None

    with Gateway(kubeconfig, folder.parent) as gateway:
        gateway.rule = fail
        ran = validate(folder, gateway.kubeconfig, shared_namespace)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "HTTP 503 from 127.0.0.1" in ran.stderr

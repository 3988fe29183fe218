"""The audit, on Jobs of a real API server and commits of a real repository."""

from __future__ import annotations

import asyncio
import copy
import csv
import html
import io
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.audit.verify import Proof, Verification, verify
from openfero_gitops.catalog.build import Scope, build_catalog
from openfero_gitops.cli import main
from openfero_gitops.cluster.api import JOBS
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.commands.audit import Reviewed, _verify, signed_by
from openfero_gitops.domain.rule import format_pointer
from openfero_gitops.jobs.render import render
from openfero_gitops.sources.folder import FolderSource
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.opening import open_commit
from tests.support.build import alert as received_alert
from tests.support.build import catalog, delivery, operario, rendered
from tests.support.git_servers import http_server
from tests.support.paths import ROOT
from tests.support.replica import Replica, alert
from tests.support.replica import operario as operario_file
from tests.support.repository import Repository
from tests.support.signing import allow, ssh_signer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.operario import Operario
    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster


#: A Job in which the API server fills in every kind of default.
RICH: dict[str, Any] = {
    "backoffLimitPerIndex": 1,
    "completions": 2,
    "completionMode": "Indexed",
    "podFailurePolicy": {
        "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    },
    "template": {
        "metadata": {"labels": {"team": "shop"}, "annotations": {"note": "n"}},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "heal",
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"team": "shop"}},
                }
            ],
            "initContainers": [
                {
                    "name": "aside",
                    "image": "registry.example/aside",
                    "restartPolicy": "Always",
                    "startupProbe": {"httpGet": {"port": 80}},
                    "ports": [{"containerPort": 80}],
                }
            ],
            "containers": [
                {
                    "name": "heal",
                    "image": "registry.example/heal:1",
                    "command": ["/heal"],
                    "env": [
                        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                        {
                            "name": "CPU",
                            "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}},
                        },
                    ],
                    "resources": {
                        "limits": {"cpu": "0.5", "memory": "1024Mi"},
                        "requests": {"cpu": "0.10"},
                    },
                    "livenessProbe": {"grpc": {"port": 9}},
                    "readinessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 3},
                    "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
                    "ports": [{"containerPort": 8080, "name": "web"}],
                    "securityContext": {"readOnlyRootFilesystem": True},
                    "volumeMounts": [{"name": "config", "mountPath": "/config"}],
                }
            ],
            "volumes": [
                {"name": "config", "configMap": {"name": "c"}},
                {"name": "secret", "secret": {"secretName": "s"}},
                {"name": "host", "hostPath": {"path": "/var/log"}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "1024Mi"}},
                {
                    "name": "all",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"path": "token"}},
                            {
                                "downwardAPI": {
                                    "items": [
                                        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
                                    ]
                                }
                            },
                        ]
                    },
                },
                {
                    "name": "claim",
                    "ephemeral": {
                        "volumeClaimTemplate": {
                            "spec": {
                                "accessModes": ["ReadWriteOnce"],
                                "resources": {"requests": {"storage": "1024Mi"}},
                            }
                        }
                    },
                },
            ],
        },
    },
}


def stored(kubeconfig: Path, namespace: str, manifests: list[dict[str, Any]]) -> list[Any]:
    """Return each of these Jobs as the API server would store it."""

    async def create() -> list[Any]:
        api = await KubernetesApi.connect(kubeconfig)
        try:
            return [
                (await api.create(JOBS, namespace, manifest, dry_run=True)).object
                for manifest in manifests
            ]
        finally:
            await api.close()

    return asyncio.run(create())


def judged(job: dict[str, Any], namespace: str, *operarios: Operario) -> Verification:
    """Verify a Job against these operarios in its commit."""
    return verify(job, catalog(*operarios), jobs_namespace=namespace)


def test_api_server_defaults_are_no_difference(kubeconfig: Path, shared_namespace: str) -> None:
    """Defaults and normalised values of a rich Job are no difference."""
    by = operario(spec=RICH, namespace=shared_namespace)
    (job,) = stored(kubeconfig, shared_namespace, [copy.deepcopy(rendered(by=by).manifest)])
    assert judged(job, shared_namespace, by) == Verification(Proof.VERIFIED)


def test_every_operario_of_the_example_is_verified(kubeconfig: Path, shared_namespace: str) -> None:
    """Each operario of the example renders the Job that the API server stores."""
    source = FolderSource(ROOT / "operarios-example")
    scope = Scope(jobs_namespace=shared_namespace)
    catalog: Catalog = build_catalog(asyncio.run(source.fetch()), scope)
    manifests = []
    for definition in catalog.operarios:
        labels = {
            "alertname": definition.alertname,
            "namespace": "shop",
            "pod": "web-1",
            "node": "n1",
        }
        more = {"job_name": "j", "persistentvolumeclaim": "data", "instance": "n1:9100"}
        labels |= {"deployment": "web", "container": "main", "resource": "pods"} | more
        manifests.append(
            render(
                received_alert(labels=labels, status=definition.status),
                definition,
                catalog.envelope,
                catalog.revision,
                delivery(),
                jobs_namespace=shared_namespace,
            ).manifest
        )
    assert len(manifests) >= 10
    for job in stored(kubeconfig, shared_namespace, manifests):
        verification = verify(job, catalog, jobs_namespace=shared_namespace)
        assert verification == Verification(Proof.VERIFIED), job["metadata"]["name"]


Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def audited(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Give a function that runs `openfero-gitops audit` in this process, which is quicker."""
    monkeypatch.setattr("openfero_gitops.cli.log.to_stderr", lambda *_: None)
    return lambda *argv: Ran(argv, main(["audit", *argv]), *capsys.readouterr())


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Create a repository with two operarios."""
    repository = Repository(tmp_path / "operarios")
    repository.write("web.json", operario_file("WebDown"))
    repository.write("disk.json", operario_file("DiskFull"))
    repository.commit("Operarios")
    return repository


@pytest.mark.usefixtures("kwok")
def test_an_auditor_proves_what_ran(
    tmp_path: Path,
    kubeconfig: Path,
    kubectl: Kubectl,
    shared_namespace: str,
    repository: Repository,
    audited: Callable[..., Ran],
) -> None:
    """Jobs of two commits are verified; a forged Job and a rewritten history are detected."""
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        development=False,
    ) as replica:
        replica.wait_for(lambda: replica.leads)
        replica.deliver(alert("WebDown", host="a"), alert("DiskFull", host="a"))
        first = repository.head
        repository.write("web.json", operario_file("WebDown", annotations={"note": "second"}))
        second = repository.commit("Another")
        replica.wait_for(lambda: replica.get("/api/sync")["revision"]["commit"] == second)
        replica.deliver(alert("WebDown", host="b"))
        replica.wait_for(
            lambda: (
                [item["phase"] for item in replica.get("/api/remediations")["items"]]
                == ["Succeeded"] * 3
            )
        )
    target = ("--kubeconfig", str(kubeconfig), "--namespace", shared_namespace)
    prove = (*target, "--verify", "--repo", str(repository.folder))

    argv = [sys.executable, "-m", "openfero_gitops", "audit", *prove]
    table = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert table.returncode == 0, table.stdout + table.stderr
    assert table.stdout.splitlines()[-1] == "3 remediations, 3 verified"
    assert [line.split()[-1] for line in table.stdout.splitlines()[:-1]] == [
        "PROOF",
        *["verified"] * 3,
    ]
    credentials = tmp_path / "credentials"
    credentials.write_text("ada:s3cret\n")
    with http_server(repository.folder.parent, user="ada", password="s3cret") as server:
        private = (*target, "--verify", "--repo", server.url(repository.folder.name))
        unknown = audited(*private)
        assert (unknown.returncode, unknown.stdout) == (2, "")
        assert "set --git-credentials-file" in unknown.stderr
        assert audited(*private, "--git-credentials-file", str(credentials)).stdout == table.stdout
    listed = json.loads(audited(*prove, "--format", "json").stdout)["items"]
    assert {item["commit"] for item in listed} == {first, second}
    assert all(item["admittedBy"] == "a" for item in listed)
    rows = list(csv.DictReader(io.StringIO(audited(*target, "--format", "csv").stdout)))
    assert [row["commit"] for row in rows] == [first, first, second]
    only = audited(*target, "--alert", "webdown", "--commit", second[:8])
    assert only.stdout.splitlines()[-1] == "1 remediation"

    forged = kubectl.json("get", "job", rows[2]["job"], "-n", shared_namespace)
    forged["metadata"] = {
        key: forged["metadata"][key] for key in ("labels", "annotations", "namespace")
    } | {"name": "forged"}
    for generated in ("selector", "status"):
        forged["spec"].pop(generated, None)
    forged["spec"]["suspend"] = True
    forged["spec"]["template"]["metadata"].pop("labels", None)
    forged["metadata"]["labels"] = {
        key: value
        for key, value in forged["metadata"]["labels"].items()
        if key.startswith("openfero.io/")
    }
    forged["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/evil:1"
    kubectl("create", "-f", "-", stdin=json.dumps(forged))
    caught = audited(*prove)
    assert caught.returncode == 1
    assert '"registry.example/evil:1" instead of "registry.k8s.io/pause:3.10"' in caught.stdout
    assert caught.stdout.splitlines()[-1] == "4 remediations, 3 verified, 1 differs"

    repository.git("reset", "--quiet", "--hard", first)
    rewritten = audited(*prove)
    assert rewritten.returncode == 1
    assert f"commit {second[:12]} is not part of the reviewed history" in rewritten.stdout
    assert rewritten.stdout.splitlines()[-1] == "4 remediations, 2 verified, 2 differs"


def test_usage_errors_say_what_to_do(
    kubeconfig: Path, tmp_path: Path, audited: Callable[..., Ran]
) -> None:
    """Each usage error is one line and exit code 2, without a traceback."""
    target = ("--kubeconfig", str(kubeconfig), "--namespace", "default")
    for arguments, message in (
        ((*target, "--verify"), "use --verify and --repo together"),
        ((*target, "--repo", "x"), "use --verify and --repo together"),
        ((*target, "--since", "soon"), "is not a duration"),
        ((*target, "--verify", "--repo", str(tmp_path)), "is not in a Git repository"),
        (
            (*target, "--verify", "--repo", str(tmp_path / "none")),
            "is neither a folder nor a Git URL",
        ),
    ):
        finished = audited(*arguments)
        assert finished.returncode == 2, finished
        assert message in finished.stderr
        assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--git-credentials-file", "/dev/null"),
        ("--git-ssh-key-file", "/dev/null"),
        ("--git-known-hosts-file", "/dev/null"),
        ("--git-ca-file", "/dev/null"),
        ("--git-proxy", "http://proxy.example:3128"),
        ("--git-max-size", "1Gi"),  # also with the value of the default
        ("--git-max-memory", "192Mi"),
        ("--ref", "HEAD"),
        ("--path", "."),
        ("--allowed-signers-file", "/dev/null"),
        ("--openpgp-keyring-file", "/dev/null"),
        ("--kubernetes-version", "1.35"),
        ("--jobs-namespace", "jobs"),
        ("--allowed-namespace", "jobs", "--allowed-namespace", "other"),
        ("--mirror-key-file", "/dev/null"),
    ],
)
def test_flags_that_only_verification_uses_are_refused_without_it(
    audited: Callable[..., Ran], arguments: tuple[str, ...]
) -> None:
    """A flag that changes nothing is not accepted silently; no cluster is contacted."""
    finished = audited("--kubeconfig", "/dev/null", *arguments)

    assert finished.returncode == 2
    assert f"{arguments[0]} needs --verify and --repo: without them" in finished.stderr


def test_several_useless_flags_are_named(audited: Callable[..., Ran]) -> None:
    """Flags of the list itself are not among them."""
    finished = audited("--since", "1h", "--git-proxy", "http://proxy.example:1", "--ref", "main")

    assert "--ref and --git-proxy need --verify and --repo" in finished.stderr


@pytest.mark.parametrize("recorded", ["sha1", "sha256"])
@pytest.mark.parametrize("reviewed", ["sha1", "sha256"])
def test_a_job_of_another_repository_differs(tmp_path: Path, recorded: str, reviewed: str) -> None:
    """The message names both repositories; one with another hash is no special case."""

    def make(name: str, object_format: str) -> Repository:
        repository = Repository(tmp_path / name, object_format=object_format)
        repository.write("web.json", operario_file("WebDown", annotations={"from": name}))
        repository.commit("First")
        return repository

    other, trusted = make("other", recorded), make("trusted", reviewed)

    async def read(repository: Repository) -> Catalog:
        source = open_commit(str(repository.folder), "HEAD", ".", tmp_path / "cache")
        try:
            return build_catalog(await source.fetch(), Scope(jobs_namespace="jobs"))
        finally:
            await source.aclose()

    jobs = []
    for repository in (other, trusted):
        catalog = asyncio.run(read(repository))
        [by] = catalog.operarios
        rendered_job = render(
            received_alert(labels={"alertname": "WebDown"}),
            by,
            catalog.envelope,
            catalog.revision,
            delivery(),
            jobs_namespace="jobs",
        )
        jobs.append(rendered_job.manifest)
    annotations = jobs[1]["metadata"]["annotations"]
    digits = {"sha1": 40, "sha256": 64}[reviewed]
    assert [len(annotations[f"openfero.io/{key}"]) for key in ("commit", "blob")] == [digits] * 2

    against = Reviewed(str(trusted.folder), jobs_namespace="jobs")
    foreign, own = asyncio.run(_verify(jobs, against, lambda _: None))

    assert own == Verification(Proof.VERIFIED)
    assert foreign.proof is Proof.DIFFERS
    assert foreign.message.startswith(
        f"commit {other.head[:12]} is not part of the reviewed history, which ends at"
        f" {trusted.head[:12]}; the Job records the repository "
    )
    assert str(other.folder) in foreign.message
    assert str(trusted.folder) in foreign.message


def test_an_auditor_checks_signatures_with_their_own_keys(tmp_path: Path) -> None:
    """The signer on a Job is verified with the auditor's keys; an unsigned commit differs."""
    ada = ssh_signer(tmp_path, "ada@git.example")
    allowed = allow(tmp_path / "allowed", ada)
    signed = Repository(tmp_path / "operarios")
    signed.write("web.json", operario_file("WebDown"))
    signed.commit("Nobody's")
    ada.sign_in(signed)
    signed.write("disk.json", operario_file("DiskFull"))
    signed.commit("Ada's")

    trust = signed_by(allowed, None)

    async def at(commit: str, trust: Trust) -> Catalog:
        source = open_commit(str(signed.folder), commit, ".", tmp_path / "cache", trust)
        try:
            return build_catalog(await source.fetch(), Scope(jobs_namespace="jobs"))
        finally:
            await source.aclose()

    def proven(commit: str, trust_of_controller: Trust, signer: str = "") -> Verification:
        catalog = asyncio.run(at(commit, trust_of_controller))
        by = next(operario for operario in catalog.operarios if operario.alertname == "WebDown")
        if signer:
            by = replace(by, origin=replace(by.origin, verified_signer=signer))
        labels = {"alertname": "WebDown"}
        job = render(
            received_alert(labels=labels),
            by,
            catalog.envelope,
            catalog.revision,
            delivery(),
            jobs_namespace="jobs",
        ).manifest
        reviewed = Reviewed(str(signed.folder), jobs_namespace="jobs", trust=trust)
        [verification] = asyncio.run(_verify([job], reviewed, lambda _: None))
        return verification

    first, second = signed.git("rev-list", "--reverse", "HEAD").split()
    assert proven(second, trust) == Verification(Proof.VERIFIED)
    for forged in (proven(second, Trust()), proven(second, trust, "eve@git.example")):
        assert [format_pointer(difference.pointer) for difference in forged.differences] == [
            "/metadata/annotations/openfero.io~1verified-signer"
        ]
    unsigned = proven(first, Trust())
    assert unsigned.proof is Proof.DIFFERS
    assert "not signed" in unsigned.message


def test_the_command_on_the_page_agrees_with_the_page(
    tmp_path: Path,
    kubeconfig: Path,
    shared_namespace: str,
    repository: Repository,
    audited: Callable[..., Ran],
) -> None:
    """The command that a page shows for a Job reads the repository with the same settings."""
    repository.write("ops/other.json", operario_file("OtherDown"))
    repository.commit("A folder")
    with Replica(
        tmp_path,
        name="a",
        kubeconfig=kubeconfig,
        namespace=shared_namespace,
        repository=repository.url,
        development=False,
        path="ops",
        kubernetes_version="1.35",
    ) as replica:
        replica.wait_for(lambda: replica.leads)
        replica.deliver(alert("OtherDown", host="a"))
        of_alert = "/api/remediations?alert=OtherDown"
        replica.wait_for(lambda: replica.get(of_alert)["items"])
        [listed] = replica.get(of_alert)["items"]
        address = f"/remediations/{listed['namespace']}/{listed['job']}"
        replica.wait_for(lambda: "Verified</span>" in replica.read(address))
        page = html.unescape(replica.read(address))
    [command] = re.findall(r"<code>openfero-gitops audit (--verify --repo [^<]+)</code>", page)
    ran = audited(*shlex.split(command), "--kubeconfig", str(kubeconfig))
    assert ran.stdout.splitlines()[-1] == "1 remediation, 1 verified", ran
    assert (ran.returncode, "--kubernetes-version 1.35" in command) == (0, True)

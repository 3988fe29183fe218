from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import textwrap
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest
import yaml

from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.domain.control import NAME as CONTROL
from openfero_gitops.domain.keys import ALERTS, MANAGED_BY, MANAGER, MIRROR
from openfero_gitops.dryrun.trial import CONFIG_MAP as DRY_RUNS
from scripts.chart_permissions import JOBS as JOBS_NAMESPACE
from scripts.chart_permissions import PERMISSIONS
from scripts.chart_permissions import RELEASE as RELEASE_NAMESPACE
from tests.cluster.controlplane import binaries
from tests.support.chart import (
    CHART,
    NAME,
    RELEASE,
    REPOSITORY,
    Object,
    Values,
    helm,
    install_chart,
    merged,
    service_account_kubeconfig,
    uninstall_chart,
    webhook_credentials,
)
from tests.support.chart_examples import FULL, HTTPS_LOGIN
from tests.support.cluster import Kubectl, require_binaries, temporary_namespace
from tests.support.optional import require
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

ENFORCE = "pod-security.kubernetes.io/enforce"
# Starting Pods anew costs more than the rest of an upgrade.
PODLESS: Values = {**REPOSITORY, "replicaCount": 0}


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


@pytest.fixture(scope="module")
def installed(
    kubeconfig: Path, kubectl: Kubectl, shared_namespace: str, jobs_namespace: str
) -> str:
    """Install the chart with nothing but an address, in a namespace for restricted Pods only.

    All tests share the installation: those that change it come after those that look at it.
    """
    del jobs_namespace
    kubectl("label", "namespace", shared_namespace, f"{ENFORCE}=restricted")
    install_chart(kubeconfig, shared_namespace, REPOSITORY, validate=True)
    return shared_namespace


@pytest.fixture(scope="module")
def other_namespace(shared_namespace: str, kubectl: Kubectl) -> Iterator[str]:
    """Give a further namespace in which Jobs may be created."""
    with temporary_namespace(kubectl, f"{shared_namespace}-other") as name:
        yield name


@pytest.mark.usefixtures("kwok")
def test_a_repository_address_is_enough(
    kubectl: Kubectl, installed: str, jobs_namespace: str
) -> None:
    """With nothing but an address both Pods start where only restricted ones may."""
    kubectl.wait(installed, f"deployment/{NAME}", "jsonpath={.status.readyReplicas}=2")
    labels = kubectl.json("get", "namespace", jobs_namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"
    assert ENFORCE not in labels


def rules_of(account: Path, namespace: str) -> set[tuple[str, str, str, str]]:
    """Return what an account may do in a namespace: (group, resource, name or "", verb)."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    kubectl = Kubectl(binaries() / "kubectl", account)
    # An account without rights cannot read the definitions that kubectl would validate with.
    create = ("create", "--validate=false", "-f", "-")
    status = kubectl.json(*create, stdin=json.dumps(review))["status"]
    assert not status["incomplete"]
    return {
        (group, resource, name, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


def test_service_account_may_do_what_it_needs_and_nothing_else(
    kubeconfig: Path, installed: str, jobs_namespace: str, tmp_path: Path
) -> None:
    """The rights of the ServiceAccount are, verb by verb, those that the README lists."""
    account = service_account_kubeconfig(kubeconfig, installed, tmp_path)
    everyone = rules_of(account, "default")
    assert {group for group, *_ in everyone} <= {"authorization.k8s.io", "authentication.k8s.io"}
    for namespace, kind in ((installed, RELEASE_NAMESPACE), (jobs_namespace, JOBS_NAMESPACE)):
        assert rules_of(account, namespace) - everyone == {
            (permission.group, permission.resource, permission.name, permission.verb)
            for permission in PERMISSIONS
            if permission.namespace == kind and not permission.value
        }


def test_api_server_agrees_about_rights(
    kubectl: Kubectl, installed: str, jobs_namespace: str
) -> None:
    """The API server says yes to the controller's work and no to what it must never do."""
    expected = {
        ("create", "jobs.batch", "", jobs_namespace): True,
        ("update", "leases.coordination.k8s.io", NAME, installed): True,
        ("update", "leases.coordination.k8s.io", "another", installed): False,
        ("update", "configmaps", "openfero-catalog", installed): True,
        ("patch", "configmaps", "openfero-control", installed): True,
        ("update", "configmaps", "openfero-control", installed): False,
        ("update", "configmaps", "kube-root-ca.crt", installed): False,
        ("patch", "configmaps", "kube-root-ca.crt", installed): False,
        ("create", "configmaps", "", jobs_namespace): False,
        # What decides whom the controller trusts: signers, keys and credentials.
        ("create", "secrets", "", installed): False,
        ("update", "secrets", f"{NAME}-signers", installed): False,
        ("patch", "secrets", f"{NAME}-mirror", installed): False,
        ("delete", "secrets", f"{NAME}-webhook", installed): False,
        ("patch", "deployments.apps", NAME, installed): False,
        ("patch", "serviceaccounts", NAME, installed): False,
        ("update", "jobs.batch", "a", jobs_namespace): False,
        ("patch", "jobs.batch/status", "a", jobs_namespace): False,
        ("get", "secrets", "", installed): False,
        ("get", "secrets", "", jobs_namespace): False,
        ("create", "pods", "", jobs_namespace): False,
        ("create", "pods/exec", "", jobs_namespace): False,
        ("create", "serviceaccounts/token", "", jobs_namespace): False,
        ("create", "jobs.batch", "", installed): False,
        ("create", "jobs.batch", "", "default"): False,
        ("list", "jobs.batch", "", "kube-system"): False,
        ("create", "rolebindings.rbac.authorization.k8s.io", "", jobs_namespace): False,
    }
    # No is also the answer about a resource that does not exist.
    known = kubectl("api-resources", "-o", "name").split()
    assert {resource.partition("/")[0] for _, resource, *_ in expected} <= {*known}

    def review(verb: str, resource: str, name: str, where: str) -> Object:
        resource, _, subresource = resource.partition("/")
        resource, _, group = resource.partition(".")
        attributes = {"verb": verb, "group": group, "resource": resource, "name": name}
        attributes |= {"subresource": subresource, "namespace": where}
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }

    answers = kubectl(
        *("create", "--validate=false", "-f", "-", "-o", "jsonpath={.status.allowed} "),
        f"--as=system:serviceaccount:{installed}:{NAME}",
        stdin="\n".join(json.dumps(review(*question)) for question in expected),
    )
    allowed = [answer == "true" for answer in answers.split()]
    assert dict(zip(expected, allowed, strict=True)) == expected


def test_signers_move_to_a_secret(kubeconfig: Path, kubectl: Kubectl, installed: str) -> None:
    """The signers are in a Secret, also where an earlier chart had them in a ConfigMap."""
    kubectl("create", "configmap", f"{NAME}-signers", "-n", installed, "--from-literal=a=b")
    marks = ("-n", installed, "configmap", f"{NAME}-signers")
    kubectl("label", *marks, "app.kubernetes.io/managed-by=Helm")
    kubectl("annotate", *marks, f"meta.helm.sh/release-name={RELEASE}",
            f"meta.helm.sh/release-namespace={installed}")  # fmt: skip
    line = "ada@git.example ssh-ed25519 AAAA"
    verify = {"repository": {"verify": {"mode": "commit", "allowedSigners": line}}}
    install_chart(kubeconfig, installed, merged(PODLESS, verify))
    stored = kubectl.json("get", "secret", f"{NAME}-signers", "-n", installed)["data"]
    assert b64decode(stored["allowed_signers"]).decode().strip() == line
    install_chart(kubeconfig, installed, PODLESS)
    names = kubectl("get", "secrets", "-n", installed, "-o", "name").split()
    assert f"secret/{NAME}-signers" not in names


def notes(kubeconfig: Path, namespace: str) -> str:
    """Return what the chart tells the person who installed it."""
    return helm("get", "notes", RELEASE, kubeconfig=kubeconfig, namespace=namespace)


def test_notes_say_how_to_read_the_token(
    kubeconfig: Path, kubectl: Kubectl, installed: str, jobs_namespace: str
) -> None:
    """The command in the notes prints the token and nothing else."""
    text = notes(kubeconfig, installed)
    assert jobs_namespace in text
    [command] = [line for line in text.splitlines() if "get secret" in line]
    printed = kubectl(*shlex.split(command)[1:])
    assert printed == webhook_credentials(kubeconfig, installed)


def test_notes_warn_where_the_policy_is_not_installed(kubeconfig: Path, installed: str) -> None:
    """They say what users can do without it, and which value installs it."""
    assert "the admission policy for Jobs is not installed" not in notes(kubeconfig, installed)
    install_chart(kubeconfig, installed, merged(PODLESS, {"jobPolicy": {"create": False}}))
    text = notes(kubeconfig, installed)
    assert f"patch Jobs in {installed}-jobs can also start, approve and change" in text
    assert "Set jobPolicy.create to auto." in text
    # The command in the notes renders the policies and nothing else.
    [command] = re.findall(r"helm (template .*\\\n.*)\n", text)
    words = shlex.split(command.replace("\\\n", " ").replace("-f VALUES ", ""))
    arguments = (str(CHART) if word == "CHART" else word for word in words)
    made = list(yaml.safe_load_all(helm(*arguments, values=REPOSITORY)))
    assert {each["kind"].removesuffix("Binding") for each in made} == {"ValidatingAdmissionPolicy"}
    assert len(made) == 4


@pytest.mark.parametrize("values", [FULL, HTTPS_LOGIN], ids=["full", "https"])
def test_every_object_is_accepted(
    values: Values,
    kubeconfig: Path,
    kubectl: Kubectl,
    installed: str,
    jobs_namespace: str,
    other_namespace: str,
) -> None:
    """With every value set the API server takes each object and knows each of its fields."""
    namespaces = [other_namespace, installed]
    changes = {"allowedNamespaces": namespaces}
    objects = install_chart(kubeconfig, installed, merged(values, changes))
    # Helm leaves out what the API server does not know; here that is an error.
    strict = ("--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server")
    manifest = {"apiVersion": "v1", "kind": "List", "items": objects}
    kubectl("apply", *strict, "-f", "-", stdin=json.dumps(manifest))
    granted = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in objects
        if each["kind"] == "RoleBinding"
    }
    jobs = {(each, f"{NAME}-jobs") for each in (*namespaces, jobs_namespace)}
    assert granted == {(installed, NAME), *jobs}


def test_upgrade_keeps_the_token(kubeconfig: Path, kubectl: Kubectl, installed: str) -> None:
    """Alertmanager's token outlives upgrades, also one that changes the kind of login.

    So does the key of the mirror.
    """
    token = webhook_credentials(kubeconfig, installed)
    kept = ("get", "secret", f"{NAME}-mirror", "-n", installed, "-o", "jsonpath={.data.key}")
    mirror_key = kubectl(*kept)
    assert re.fullmatch(r"[A-Za-z0-9]{48}", token)
    install_chart(kubeconfig, installed, merged(PODLESS, {"webhook": {"auth": "basic"}}))
    assert webhook_credentials(kubeconfig, installed) == token
    assert kubectl(*kept) == mirror_key != ""
    assert webhook_credentials(kubeconfig, installed, "basic") == f"alertmanager:{token}"


def test_the_token_is_replaced_as_documented(
    kubeconfig: Path, installed: str, tmp_path: Path
) -> None:
    """At each step of the documentation the key is one token, which the webhook accepts."""
    require("openssl", "apt-get install openssl", "openssl")
    values = merged(PODLESS, {"alertmanagerConfig": {"key": "alertmanager"}})
    page = (ROOT / "docs/how-to/platform/access.md").read_text()
    section = page[page.index("## Credentials") : page.index("### Wrong credentials")]
    add, configure = (
        re.sub(r"^ *\$ ", "", block, flags=re.MULTILINE)
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        if "-n openfero " in block  # the others need the namespace of Alertmanager
    )
    remove = add[add.index("kubectl -n openfero create") :].replace("token=both", "token=new")

    def run(script: str) -> tuple[str, str]:
        """Run commands of the page, upgrade the chart, and return both keys of the Secret."""
        folder = binaries()
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("-n openfero ", f"-n {installed} ")],
            cwd=tmp_path,
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig),
                "PATH": f"{folder}:{os.environ['PATH']}",
            },
            timeout=120,
            check=True,
        )
        install_chart(kubeconfig, installed, values)
        tokens, own = (
            webhook_credentials(kubeconfig, installed, key) for key in ("token", "alertmanager")
        )
        return tokens, own

    tokens, old = run("true")
    assert tokens == old
    both, own = run(add)
    new = (tmp_path / "new").read_text()
    assert re.fullmatch("[0-9a-f]{64}", new)
    assert (both, own) == (f"{old}\n{new}", old)
    assert run(configure) == (both, new)
    assert run(remove) == (new, new)


@pytest.mark.alertmanager
@pytest.mark.parametrize(
    ("changes", "login"),
    [
        ({}, "authorization"),
        ({"webhook": {"auth": "basic"}}, "basic_auth"),
        ({"webhook": {"auth": "none"}}, None),
        ({"tls": {"existingSecret": "certificate", "clientCaKey": "ca.crt"}}, "tls_config"),
    ],
    ids=["bearer", "basic", "none", "tls"],
)
def test_notes_carry_a_configuration_that_alertmanager_takes(
    changes: Values, login: str | None, kubeconfig: Path, installed: str, tmp_path: Path
) -> None:
    """The receiver in the notes passes `amtool check-config` and calls the chart's Service."""
    amtool = require("amtool", "apt-get install prometheus-alertmanager", "amtool")
    install_chart(kubeconfig, installed, merged(PODLESS, changes))
    printed = notes(kubeconfig, installed)
    text = printed[printed.index("     route:") : printed.index("\n   Check that deliveries")]
    config = yaml.safe_load(textwrap.dedent(text))
    [receiver] = config["receivers"]
    [webhook] = receiver["webhook_configs"]
    scheme = "https" if "tls" in changes else "http"
    assert webhook["url"] == f"{scheme}://{NAME}.{installed}.svc:8080/alerts"
    if login is None:
        assert "http_config" not in webhook
    else:
        assert login in webhook["http_config"]
    config["route"]["receiver"] = receiver["name"]
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    checked = subprocess.run(
        [amtool, "check-config", path], capture_output=True, text=True, timeout=120, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_uninstall_keeps_the_jobs(
    kubeconfig: Path, kubectl: Kubectl, installed: str, jobs_namespace: str
) -> None:
    """Uninstalling removes the rights and keeps the Jobs; installing again takes over.

    It comes last, since it removes what all tests share.
    """
    image = {"name": "a", "image": "registry.k8s.io/pause:3.10"}
    pod = {"restartPolicy": "Never", "containers": [image]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "record"},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    kubectl.create(jobs_namespace, job)
    assert f"[Namespace] {jobs_namespace}" in uninstall_chart(kubeconfig, installed)
    left = ("get", "jobs,roles,rolebindings", "-n", jobs_namespace, "-o", "name")
    assert kubectl(*left).split() == ["job.batch/record"]
    install_chart(kubeconfig, installed, PODLESS)
    assert "job.batch/record" in kubectl(*left).split()


def test_the_readme_names_what_an_uninstallation_leaves(kubectl: Kubectl, namespace: str) -> None:
    """Its commands remove the Lease and every ConfigMap that a controller created."""
    mirrored = {"labels": {MIRROR: "true", MANAGED_BY: MANAGER}}
    kubectl.create(
        namespace,
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}},
        *(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **more}}
            for name, more in (
                (CONTROL, {}),
                (DRY_RUNS, {}),
                (HEAD, mirrored),
                (f"{HEAD}-{'0' * 32}", mirrored),
                (f"openfero-alerts-{'0' * 32}", {"labels": {ALERTS: "true", MANAGED_BY: MANAGER}}),
            )
        ),
    )
    section = (CHART / "README.md").read_text().partition("## Uninstall")[2]
    commands = re.findall(r"^\$ kubectl (delete .*--namespace openfero.*)$", section, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        kubectl(*(namespace if word == "openfero" else word for word in command.split()))
    left = kubectl("get", "lease,configmap", "-n", namespace, "-o", "name").split()
    assert left == ["configmap/kube-root-ca.crt"]

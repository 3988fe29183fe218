"""The Helm chart on a real cluster: install it or its Roles alone, and act as its ServiceAccount.

Helm is the one in `$HELM` (so that Helm 3 can be tried too), else the one that
`tests/cluster/build` made; for the cluster of `KUBECONFIG`, the one on PATH comes first. Every
command is bounded in time.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.cluster.controlplane import ControlPlaneError, binaries, write_private
from tests.support.cluster import Kubectl, existing_kubeconfig
from tests.support.optional import missing
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

CHART = ROOT / "charts" / "openfero-gitops"
RELEASE = "openfero"
NAME = "openfero-gitops"  # of the chart's objects: Deployment, Service, ServiceAccount, Roles
PATIENCE = 300  # seconds
_RBAC = ("serviceaccount.yaml", "rbac.yaml")

Values = dict[str, Any]
Object = dict[str, Any]

#: The only value that the chart requires.
REPOSITORY: Values = {"repository": {"url": "https://git.example.com/operarios.git"}}


class HelmError(RuntimeError):
    """Helm failed; the text is its output."""


def merged(values: Values, changes: Values) -> Values:
    """Return values with changes laid over them, as Helm does it."""
    result = dict(values)
    for key, change in changes.items():
        below = result.get(key)
        both = isinstance(below, dict) and isinstance(change, dict)
        result[key] = merged(below, change) if both else change
    return result


def only(objects: list[Object], kind: str) -> Object:
    """Return the one object of a kind."""
    [item] = [item for item in objects if item["kind"] == kind]
    return item


def helm(
    *arguments: str,
    kubeconfig: Path | None = None,
    values: Values | None = None,
    namespace: str | None = None,
) -> str:
    """Run helm and return its stdout.

    Args:
        arguments: of the command.
        kubeconfig: the cluster; without one, helm is kept from finding any.
        values: handed over on stdin, as `--values -`.
        namespace: of the release.

    Raises:
        HelmError: helm failed.
        subprocess.TimeoutExpired: it took more than `PATIENCE` seconds.
    """
    argv = [os.environ.get("HELM") or str(_program("helm")), *arguments]
    if namespace is not None:
        argv.append(f"--namespace={namespace}")
    if values is not None:
        argv.append("--values=-")
    ran = subprocess.run(
        argv,
        env={**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)},
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if ran.returncode:
        raise HelmError(f"helm {arguments[0]}: {ran.stderr}{ran.stdout}")
    return ran.stdout


def render_chart(namespace: str, values: Values) -> list[Object]:
    """Return the objects that the chart would create, without a cluster."""
    # Without a cluster, Helm's default Kubernetes version may be too old.
    command = ("template", RELEASE, str(CHART), "--kube-version=1.36.0")
    return _objects(helm(*command, namespace=namespace, values=values))


def install_chart(
    kubeconfig: Path,
    namespace: str,
    values: Values,
    *,
    validate: bool = False,
    chart: Path = CHART,
) -> list[Object]:
    """Install the chart, or upgrade what is installed, and return its objects.

    It does not wait for Pods: there may be no image, nor a kubelet to start it. With `validate`
    helm compares them with the API server's schemas first, which takes it most of its time.

    Raises:
        HelmError: the values are refused, or the API server refuses an object.
    """
    command = ["upgrade", "--install", "--create-namespace", RELEASE, str(chart), "--output=json"]
    if not validate:
        command.append("--disable-openapi-validation")
    release = helm(*command, kubeconfig=kubeconfig, namespace=namespace, values=values)
    return _objects(json.loads(release)["manifest"])


def uninstall_chart(kubeconfig: Path, namespace: str) -> str:
    """Uninstall the chart and return helm's output; the namespace for Jobs is kept."""
    return helm("uninstall", RELEASE, kubeconfig=kubeconfig, namespace=namespace)


def webhook_credentials(kubeconfig: Path, namespace: str, key: str = "token") -> str:
    """Return what the chart generated for the webhook: a `token`, or `basic` as user:password."""
    secret = _kubectl(kubeconfig).json("get", "secret", f"{NAME}-webhook", "-n", namespace)
    return base64.b64decode(secret["data"][key]).decode()


def service_account_kubeconfig(
    kubeconfig: Path,
    namespace: str,
    directory: Path,
    *,
    account: str = NAME,
    lifetime: str = "1h",
) -> Path:
    """Write a kubeconfig that acts as a ServiceAccount, so with its Roles and nothing more.

    Args:
        kubeconfig: an administrator's, whose current context names the cluster.
        namespace: of the ServiceAccount, and of the context that is written.
        directory: where the file is written.
        account: the ServiceAccount's name.
        lifetime: of the token, as kubectl takes it; the API server wants at least 10m.
    """
    path = directory / f"{namespace}-{account}.kubeconfig"
    write_private(path, _config_of(kubeconfig, namespace, account, lifetime))
    return path


def controller_kubeconfig(
    kubeconfig: Path, namespace: str, directory: Path, *, jobs_namespaces: Sequence[str]
) -> Path:
    """Write a kubeconfig of the controller, with the Roles of the chart and nothing more.

    ServiceAccount, Roles and RoleBindings are created when a process asks for them first, as the
    chart renders them; the rest of it is not installed.

    Args:
        kubeconfig: an administrator's, whose current context names the cluster.
        namespace: of the controller.
        directory: where the file is written.
        jobs_namespaces: where Jobs may be.
    """
    path = directory / f"{namespace}-{NAME}.kubeconfig"
    # Another cluster may have had a kubeconfig of that path.
    text = kubeconfig.read_text()
    write_private(path, _with_roles(text, kubeconfig, namespace, tuple(jobs_namespaces)))
    return path


@functools.cache
def _with_roles(_: str, kubeconfig: Path, namespace: str, jobs_namespaces: tuple[str, ...]) -> str:
    """Create the Roles, and return a kubeconfig; its token lasts longer than any test."""
    objects = _roles(len(jobs_namespaces)).replace("openfero-namespace", namespace)
    for number, name in enumerate(jobs_namespaces):
        objects = objects.replace(f"jobs-namespace-{number}", name)
    _kubectl(kubeconfig)("create", "--validate=false", "-f", "-", stdin=objects)
    return _config_of(kubeconfig, namespace, NAME, "24h")


@functools.cache
def _roles(count: int) -> str:
    """Return the chart's ServiceAccount, Roles and RoleBindings, for so many namespaces of Jobs."""
    jobs_namespace, *more = (f"jobs-namespace-{number}" for number in range(count))
    values: Values = {
        "repository": {"url": "https://git.example.com/operarios.git"},
        "jobsNamespace": {"name": jobs_namespace},
        "allowedNamespaces": more,
        "logs": {"enabled": True},
    }
    command = ["template", RELEASE, str(CHART), "--kube-version=1.36.0"]
    command += [f"--show-only=templates/{name}" for name in _RBAC]
    return helm(*command, namespace="openfero-namespace", values=values)


def _config_of(kubeconfig: Path, namespace: str, account: str, lifetime: str) -> str:
    kubectl = _kubectl(kubeconfig)
    token = kubectl("create", "token", account, "-n", namespace, f"--duration={lifetime}")
    [cluster] = kubectl.json("config", "view", "--minify", "--flatten")["clusters"]
    context = {"cluster": cluster["name"], "user": account, "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": account, "user": {"token": token.strip()}}],
        "contexts": [{"name": account, "context": context}],
        "current-context": account,
    }
    return json.dumps(config, indent=2)


def _kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(_program("kubectl"), kubeconfig)


def _program(name: str) -> Path:
    """Return the built program; for the cluster of `KUBECONFIG`, the one on PATH comes first."""
    on_path = shutil.which(name) if existing_kubeconfig() is not None else None
    if on_path is not None:
        return Path(on_path)
    try:
        return binaries() / name
    except ControlPlaneError:
        missing(name, "install it, or Go 1.26 or later (https://go.dev/dl)")


def _objects(manifest: str) -> list[Object]:
    return [each for each in yaml.load_all(manifest, yaml.CSafeLoader) if each is not None]

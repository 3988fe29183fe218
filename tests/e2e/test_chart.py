from __future__ import annotations

import json
import re
import shlex
import subprocess
import textwrap
from base64 import b64decode
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import openfero_gitops
from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.cli import main
from openfero_gitops.domain.control import NAME as CONTROL
from openfero_gitops.domain.keys import ALERTS, MANAGED_BY, MANAGER, MIRROR
from openfero_gitops.dryrun.trial import CONFIG_MAP as DRY_RUNS
from scripts.chart_values import described_values
from tests.cluster.controlplane import binaries
from tests.support.chart import (
    CHART,
    NAME,
    RELEASE,
    REPOSITORY,
    HelmError,
    Object,
    Values,
    helm,
    install_chart,
    merged,
    only,
    render_chart,
    service_account_kubeconfig,
    uninstall_chart,
    webhook_credentials,
)
from tests.support.cluster import Kubectl, require_binaries, temporary_namespace
from tests.support.optional import require
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

ENFORCE = "pod-security.kubernetes.io/enforce"
POLICY_API = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
# Starting Pods anew costs more than the rest of an upgrade.
PODLESS: Values = {**REPOSITORY, "replicaCount": 0}

# Every value that adds an object, a volume or a field, at once.
FULL: Values = {
    "repository": {
        "url": "ssh://git@git.example.com:2222/platform/operarios.git",
        "ref": "main",
        "path": "production",
        "secret": {
            "name": "operarios-git",
            "sshKey": "ssh-privatekey",
            "knownHostsKey": "known_hosts",
        },
        "verify": {
            "mode": "commit",
            "existingSecret": "signers",
            "allowedSignersKey": "allowed_signers",
            "openpgpKeyringKey": "keyring.asc",
        },
        "mirror": {"existingSecret": "mirror"},
    },
    "webhook": {"auth": "basic", "replicaLabels": ["host.name", "member"]},
    "web": {"expose": True, "auth": "basic", "existingSecret": "pages"},
    "alertmanager": {
        "urls": ["https://alertmanager.example.com/am", "http://am-1.monitoring.svc:9093"],
        "auth": "basic",
        "existingSecret": "alertmanager",
        "caKey": "ca.crt",
    },
    "logs": {"enabled": True},
    "repositoryLinks": {
        "commitUrl": "https://git.example.com/c/{commit}",
        "fileUrl": "https://git.example.com/f/{commit}/{path}",
    },
    "externalUrl": "https://openfero.example.com",
    "tls": {"existingSecret": "certificate", "clientCaKey": "ca.crt"},
    "jobsNamespace": {
        "podSecurity": {"enforce": "baseline"},
        "labels": {"team": "platform"},
        "annotations": {"contact": "platform"},
    },
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "service": {"type": "NodePort", "annotations": {"a": "b"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "networkPolicy": {
        "webhookFrom": [],
        "apiServerTo": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        "gitTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "extraIngress": [{"ports": [{"port": 9000}]}],
        "extraEgress": [{"ports": [{"port": 3128}]}],
    },
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
}

HTTPS_LOGIN: Values = {
    "pushHook": {"existingSecret": "forge"},
    "repository": {
        "url": "https://git.example.com/operarios.git",
        "secret": {
            "name": "git",
            "credentialsKey": "credentials",
            "caKey": "ca.crt",
            "clientCertKey": "tls.crt",
            "clientPrivateKeyKey": "tls.key",
            "proxyCredentialsKey": "proxy",
        },
        "proxy": "socks5h://proxy.example.com:1080",
        "noProxy": "internal.example.com, 10.0.0.0/8",
        "maxSize": "500Mi",
    },
}
ALL = pytest.mark.parametrize(
    "values", [REPOSITORY, FULL, HTTPS_LOGIN], ids=["repository", "full", "https"]
)
#: Pages that are exposed to a proxy.
PROXY: Values = {"web": {"auth": "proxy", "trustedProxies": ["10.0.0.0/8"], "expose": True}}
PROXY_POD = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "oauth2-proxy"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "oauth2-proxy"}},
}


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


def secret(objects: list[Object], name: str) -> Object:
    """Return a Secret of the chart."""
    [item] = [item for item in objects if item["metadata"]["name"] == f"{NAME}-{name}"]
    assert item["kind"] == "Secret"
    return item


def container(objects: list[Object]) -> dict[str, Any]:
    """Return the controller's container."""
    [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def egress_ports(objects: list[Object]) -> list[list[int]]:
    """Return the ports of each egress rule."""
    rules = only(objects, "NetworkPolicy")["spec"]["egress"]
    return [[port["port"] for port in rule["ports"]] for rule in rules]


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


@ALL
def test_lint_finds_nothing(values: Values) -> None:
    """`helm lint --strict` passes, with the least values and with all of them."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=values)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repository": {"url": ""}}, "repository.url is required"),
        ({"repository": {"url": "ftp://git.example.com/a"}}, "/repository/url"),
        (
            {"repository": {"url": "https://token@git.example.com/a"}},
            "must not contain credentials",
        ),
        (
            {"repository": {"url": "ssh://git:password@example.com/a"}},
            "must not contain credentials",
        ),
        ({"repository": {"url": "git@git.example.com:a.git"}}, "repository.secret.knownHostsKey"),
        ({"repository": {"secret": {"name": "git"}}}, "secret.name is set: also set"),
        ({"repository": {"secret": {"caKey": "ca.crt"}}}, "which is not set"),
        ({"repository": {"url": "ssh://git.example.com/a.git"}}, "/repository/url"),
        (
            {"repository": {"secret": {"name": "git", "sshKey": "key"}}},
            "sshKey and knownHostsKey are for SSH",
        ),
        (
            {
                "repository": {
                    "url": "git@git.example.com:a.git",
                    "secret": {"name": "g", "sshKey": "k", "knownHostsKey": "h", "caKey": "c"},
                }
            },
            "clientPrivateKeyKey and proxyCredentialsKey are for HTTPS",
        ),
        ({"repository": {"interval": "60"}}, "/repository/interval"),
        ({"repository": {"maxSize": "1GB"}}, "/repository/maxSize"),
        ({"repository": {"proxy": "http://ada:secret@proxy:3128"}}, "/repository/proxy"),
        ({"repository": {"proxy": "http://proxy.example.com"}}, "/repository/proxy"),
        ({"repository": {"proxy": "socks4://proxy.example.com:1080"}}, "/repository/proxy"),
        (
            {"repository": {"secret": {"name": "git", "clientCertKey": "tls.crt"}}},
            "clientCertKey and clientPrivateKeyKey require each other",
        ),
        (
            {"repository": {"secret": {"name": "git", "clientPrivateKeyKey": "tls.key"}}},
            "clientCertKey and clientPrivateKeyKey require each other",
        ),
        (
            {
                "repository": {
                    "url": "http://git.example.com/a.git",
                    "secret": {"name": "git", "caKey": "ca.crt"},
                }
            },
            "caKey, clientCertKey and clientPrivateKeyKey are for https",
        ),
        (
            {"repository": {"secret": {"name": "git", "proxyCredentialsKey": "proxy"}}},
            "the credentials for repository.proxy, which is not set",
        ),
        ({"repository": {"noProxy": "git.example.com"}}, "repository.proxy, which is not set"),
        (
            {
                "repository": {
                    "url": "git@git.example.com:a.git",
                    "secret": {"name": "g", "sshKey": "k", "knownHostsKey": "h"},
                    "proxy": "http://proxy:3128",
                }
            },
            "repository.proxy is for HTTPS",
        ),
        ({"repository": {"verify": {"mode": "all"}}}, "/repository/verify/mode"),
        ({"repository": {"verify": {"mode": "commit"}}}, "set the trusted keys"),
        ({"repository": {"verify": {"allowedSigners": "a b c"}}}, "which checks no signatures"),
        (
            {"repository": {"verify": {"mode": "commit", "existingSecret": "s"}}},
            "verify.existingSecret is set: also set",
        ),
        (
            {"repository": {"verify": {"mode": "commit", "allowedSignersKey": "k"}}},
            "verify.existingSecret, which is not set",
        ),
        (
            {"repository": {"verify": {"mode": "tag", "allowedSigners": "a b c"}}},
            "set repository.ref to the tag",
        ),
        ({"replicas": 3}, "'replicas' not allowed"),
        ({"webhook": {"token": "secret"}}, "'token' not allowed"),
        ({"webhook": {"auth": "digest"}}, "/webhook/auth"),
        ({"web": {"expose": True}}, "web.expose requires authentication"),
        ({"web": {"expose": True, "auth": "basic"}}, "set web.existingSecret"),
        ({"web": {"port": 8080}}, "the port of the webhook"),
        ({"web": {"auth": "proxy"}}, "web.auth is proxy: set web.trustedProxies"),
        ({"web": {"trustedProxies": ["10.0.0.0/0"]}}, "/web/trustedProxies/0"),
        ({"web": {"userHeader": "X-User: x"}}, "/web/userHeader"),
        (
            {"web": {"auth": "proxy", "trustedProxies": ["10.0.0.1"], "existingSecret": "s"}},
            "so leave web.existingSecret empty",
        ),
        (
            {"web": {"auth": "proxy", "trustedProxies": ["10.0.0.0/8"], "expose": True}},
            "set networkPolicy.webFrom to the Pods of the proxy",
        ),
        *(
            (
                {**PROXY, "networkPolicy": {"webFrom": [PROXY_POD, peer]}},
                "set networkPolicy.webFrom",
            )
            for peer in (
                {"namespaceSelector": {}, "podSelector": {}},
                {"namespaceSelector": {"matchLabels": {}}},
                {"podSelector": {}},
                {"ipBlock": {"cidr": "0.0.0.0/0"}},
                {"ipBlock": {"cidr": "::/0", "except": ["10.0.0.0/8"]}},
            )
        ),
        ({**PROXY, "networkPolicy": {"enabled": False}}, "set web.ownNetworkPolicy to true"),
        ({"tls": {"clientCaKey": "ca.crt"}}, "tls.existingSecret, which is not set"),
        ({"alertmanager": {"auth": "basic"}}, "alertmanager.urls, which is empty"),
        ({"alertmanager": {"urls": ["am:9093"]}}, "/alertmanager/urls/0"),
        ({"alertmanager": {"urls": ["http://a:b@am:9093"]}}, "/alertmanager/urls/0"),
        (
            {"alertmanager": {"urls": ["http://am:9093"], "auth": "basic"}},
            "set alertmanager.existingSecret",
        ),
        (
            {"alertmanager": {"urls": ["https://am:9093"], "caKey": "ca.crt"}},
            "alertmanager.existingSecret, which is not set",
        ),
        ({"externalUrl": "openfero.example.com"}, "/externalUrl"),
        ({"allowedNamespaces": ["Production"]}, "/allowedNamespaces/0"),
        ({"approvalPolicy": {"create": True}}, "was replaced by jobPolicy"),
        ({"jobPolicy": {"create": "maybe"}}, "/jobPolicy/create"),
        ({"jobsNamespace": {"maxJobs": -1}}, "/jobsNamespace/maxJobs"),
        (
            {"terminationGracePeriodSeconds": 20},
            "terminationGracePeriodSeconds is 20, but stopping takes up to 21 seconds",
        ),
        ({"shutdownDelaySeconds": 15}, "but stopping takes up to 31 seconds"),
        ({"preStopSleepSeconds": -1}, "/preStopSleepSeconds"),
    ],
)
def test_wrong_values_are_refused_with_a_reason(changes: Values, reason: str) -> None:
    """Values that cannot work stop the installation and say which of them it was."""
    with pytest.raises(HelmError) as refused:
        render_chart("openfero", merged(REPOSITORY, changes))
    # Helm 3 quotes and words its schema's findings differently: compared is what both say.
    message = re.sub(r"[^a-z0-9]+", " ", str(refused.value).lower())
    assert re.sub(r"[^a-z0-9]+", " ", reason.lower()).strip() in message


@pytest.mark.parametrize(
    "changes",
    [
        {"networkPolicy": {"webFrom": [PROXY_POD]}},
        {"networkPolicy": {"webFrom": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}},
        {"networkPolicy": {"enabled": False}, "web": {**PROXY["web"], "ownNetworkPolicy": True}},
    ],
)
def test_a_proxy_that_alone_may_connect_is_accepted(changes: Values) -> None:
    """Pages behind a proxy are exposed if a policy lets only certain peers connect."""
    assert render_chart("openfero", merged(REPOSITORY, {**PROXY, **changes}))


def test_every_value_is_described_and_in_the_schema() -> None:
    """values.yaml, its comments and values.schema.json list the same values."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    text = (CHART / "values.yaml").read_text()

    described = [value.name for value in described_values(text)]

    def leaves(node: dict[str, Any], values: Any, path: str = "") -> Iterator[str]:
        node = schema["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        if "properties" not in node or path in described:
            yield path
            return
        assert node["additionalProperties"] is False, path
        # The schema knows values that were replaced, so that the chart can say by what.
        assert set(node["properties"]) - {"global", "approvalPolicy"} == set(values), path
        for key, value in values.items():
            yield from leaves(node["properties"][key], value, f"{path}.{key}".lstrip("."))

    assert described == list(leaves(schema, yaml.safe_load(text)))


@ALL
def test_common_labels_and_annotations_are_on_every_object(values: Values) -> None:
    """Those of an object itself win, and selectors do not change."""
    common: Values = {
        "commonLabels": {"team": "common", "app.kubernetes.io/name": "other"},
        "commonAnnotations": {"contact": "common"},
        "jobsNamespace": {"annotations": {"contact": "own"}},
        "deploymentAnnotations": {"reload": "yes"},
        "podLabels": {"team": "own"},
        "webhook": {"secretAnnotations": {"copy": "monitoring"}},
    }
    for each in (objects := render_chart("openfero", merged(values, common))):
        metadata = each["metadata"]
        is_namespace = each["kind"] == "Namespace"
        name = f"{NAME}-test" if each["kind"] == "Pod" else NAME
        assert metadata["labels"]["app.kubernetes.io/name"] == name
        assert metadata["labels"]["team"] in ("common", "platform"), each
        assert metadata["annotations"]["contact"] == ("own" if is_namespace else "common"), each
    assert (
        only(objects, "Namespace")["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    )
    deployment = only(objects, "Deployment")
    assert deployment["metadata"]["annotations"]["reload"] == "yes"
    assert deployment["spec"]["template"]["metadata"]["labels"] == {
        **deployment["spec"]["selector"]["matchLabels"],
        **merged(values, common)["podLabels"],
    }
    assert set(deployment["spec"]["selector"]["matchLabels"]) == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
    }
    assert secret(objects, "webhook")["metadata"]["annotations"]["copy"] == "monitoring"


def test_a_stopping_pod_has_time_for_the_deliveries_that_still_arrive() -> None:
    """A Pod sleeps before SIGTERM and lingers after it; without these delays it does neither."""
    objects = render_chart("openfero", REPOSITORY)
    assert container(objects)["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "--shutdown-delay=5s" in container(objects)["args"]
    short = {
        "preStopSleepSeconds": 0,
        "shutdownDelaySeconds": 0,
        "terminationGracePeriodSeconds": 11,
    }
    objects = render_chart("openfero", merged(REPOSITORY, short))
    assert "lifecycle" not in container(objects)
    assert "--shutdown-delay=0s" in container(objects)["args"]


def test_probes_begin_when_the_program_is_loaded() -> None:
    """The first startup probe waits, so that no start causes a Warning event."""
    assert container(render_chart("openfero", REPOSITORY))["startupProbe"] == {
        "httpGet": {"path": "/livez", "port": "webhook", "scheme": "HTTP"},
        "initialDelaySeconds": 5,
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "failureThreshold": 60,
    }


def test_chart_and_package_have_one_version() -> None:
    """The image that the chart runs by default is of the package's version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert str(chart["appVersion"]) == openfero_gitops.__version__


@ALL
def test_every_flag_is_one_that_serve_knows(
    values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each flag in the container's arguments is an option of `openfero-gitops serve`."""
    command, *arguments = container(render_chart("openfero", values))["args"]
    assert main([command, "--help"]) == 0
    flags = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert {argument.partition("=")[0] for argument in arguments} <= flags


@ALL
def test_secrets_are_files_and_never_arguments(values: Values) -> None:
    """Every credential is a mounted file that a flag names; no variable or argument holds one."""
    objects = render_chart("openfero", values)
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    spec = container(objects)
    secrets = {v["name"]: v["secret"] for v in pod["volumes"] if "secret" in v}
    mounts = {m["mountPath"]: m for m in spec["volumeMounts"] if m["name"] in secrets}
    flags = dict(argument.split("=", 1) for argument in spec["args"][1:])
    files = [PurePosixPath(path) for path in flags.values() if path.startswith("/etc/")]
    assert {str(file.parent) for file in files} == set(mounts)
    for file in files:
        mount = mounts[str(file.parent)]
        assert mount["readOnly"]
        items = secrets[mount["name"]].get("items")
        assert items is None or file.name in {item["path"] for item in items}
    assert all("secretKeyRef" not in each.get("valueFrom", {}) for each in spec["env"])
    generated = [each["data"] for each in objects if each["kind"] == "Secret"]
    for value in (value for data in generated for value in data.values()):
        assert b64decode(value).decode() not in json.dumps(pod)


def test_signers_are_a_file_that_is_read_again() -> None:
    """Trusted ssh keys lie in a Secret, which the controller cannot write, and which updates."""
    line = "ada@git.example ssh-ed25519 AAAA"
    verify = {"mode": "commit", "allowedSigners": f"{line}\n{line}\n"}
    changes = {"repository": {"verify": verify, "followRewrites": True}}
    objects = render_chart("openfero", merged(REPOSITORY, changes))
    assert "ConfigMap" not in {each["kind"] for each in objects}
    spec = container(objects)
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    made = secret(objects, "signers")
    [volume] = [each for each in pod["volumes"] if each["name"] == "signers"]
    [mount] = [each for each in spec["volumeMounts"] if each["name"] == volume["name"]]
    assert volume["secret"]["secretName"] == made["metadata"]["name"]
    assert "subPath" not in mount
    assert made["stringData"]["allowed_signers"].split("\n")[:2] == [line, line]
    assert mount == {
        "name": volume["name"],
        "mountPath": "/etc/openfero-gitops/signers",
        "readOnly": True,
    }
    assert f"--allowed-signers-file={mount['mountPath']}/allowed_signers" in spec["args"]
    assert {"--verify=commit", "--follow-rewrites"} <= {*spec["args"]}


def test_pages_stay_in_the_pod_until_they_have_a_login() -> None:
    """The pages listen on loopback and are on no Service, unless exposed with a login."""
    hidden = render_chart("openfero", REPOSITORY)
    assert "--web-listen=127.0.0.1:8081" in container(hidden)["args"]
    assert [port["name"] for port in only(hidden, "Service")["spec"]["ports"]] == ["webhook"]
    login = {"web": {"expose": True, "auth": "bearer", "existingSecret": "pages"}}
    exposed = render_chart("openfero", merged(REPOSITORY, login))
    assert {
        "--web-listen=:8081",
        "--web-auth=bearer",
        "--web-credentials-file=/etc/openfero-gitops/web/token",
    } <= {*container(exposed)["args"]}
    assert [p["name"] for p in only(exposed, "Service")["spec"]["ports"]] == ["webhook", "web"]


def test_the_example_with_a_proxy_opens_the_pages_to_the_proxy_alone() -> None:
    """The values for oauth2-proxy in docs/access.md reach the controller and the NetworkPolicy."""
    text = (ROOT / "docs/access.md").read_text()
    [values] = [
        b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if b.startswith("web:")
    ]
    behind = render_chart("openfero", merged(REPOSITORY, yaml.safe_load(values)))
    assert {
        "--web-listen=:8081",
        "--web-auth=proxy",
        "--web-trusted-proxy=10.244.0.0/16",
        "--web-user-header=X-Forwarded-User",
    } <= {*container(behind)["args"]}
    assert not any("web-credentials" in argument for argument in container(behind)["args"])
    pages = only(behind, "NetworkPolicy")["spec"]["ingress"][1]
    assert pages["ports"] == [{"port": 8081}]
    [peer] = pages["from"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "oauth2-proxy"}


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://git.example.com/a.git", 443),
        ("https://git.example.com:3000/a.git", 3000),
        ("https://[2001:db8::1]:8443/a.git", 8443),
        ("http://git.example.com/a.git", 80),
        ("ssh://git@git.example.com/a.git", 22),
        ("ssh://git@git.example.com:2222/a.git", 2222),
        ("git@git.example.com:a.git", 22),
        ("ssh://ada@example.com@git.example.com:2222/a.git", 2222),
        ("ssh://CORP\\ada@git.example.com/a.git", 22),
        ("deploy+shop@git.example.com:a.git", 22),
        ("ada@example.com@git.example.com:a.git", 22),
    ],
)
def test_network_policy_lets_git_out_where_the_address_says(url: str, port: int) -> None:
    """The Pods may reach the port of the repository's address, besides DNS and the API server."""
    ssh = {"name": "git", "sshKey": "key", "knownHostsKey": "known_hosts"}
    secret = {} if url.startswith("http") else ssh
    objects = render_chart("openfero", {"repository": {"url": url, "secret": secret}})
    dns, api_server, git = egress_ports(objects)
    assert set(dns) == {53, 5353}
    assert {443, 6443} <= set(api_server)
    assert git == [port]


def test_a_proxy_before_git_is_used_and_may_be_reached() -> None:
    """Git is told the proxy, and the Pods may reach its port instead of the repository's."""
    proxy: Values = {"repository": {"proxy": "http://proxy.example.com:3128", "maxSize": "2Gi"}}
    objects = render_chart("openfero", merged(REPOSITORY, proxy))
    arguments = {*container(objects)["args"]}
    assert {"--git-proxy=http://proxy.example.com:3128", "--git-max-size=2Gi"} <= arguments
    assert egress_ports(objects)[2] == [3128]
    proxy["repository"]["noProxy"] = "git.example.com,10.0.0.0/8"
    objects = render_chart("openfero", merged(REPOSITORY, proxy))
    assert "--git-no-proxy=git.example.com,10.0.0.0/8" in container(objects)["args"]
    assert egress_ports(objects)[2] == [3128, 443]


def test_files_of_the_secret_for_git_are_mounted_and_named() -> None:
    """Each key of the Secret is a file, with a flag; the SOCKS proxy's port may be reached."""
    objects = render_chart("openfero", HTTPS_LOGIN)
    arguments = {*container(objects)["args"]}
    files = {
        "credentials": "--git-credentials-file",
        "ca.crt": "--git-ca-file",
        "tls.crt": "--git-client-cert-file",
        "tls.key": "--git-client-key-file",
        "proxy": "--git-proxy-credentials-file",
    }
    flags = {f"{flag}=/etc/openfero-gitops/git/{key}" for key, flag in files.items()}
    assert flags | {"--git-proxy=socks5h://proxy.example.com:1080"} <= arguments
    volumes = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    [git] = [volume["secret"] for volume in volumes if volume["name"] == "git"]
    assert {item["key"] for item in git["items"]} == set(files)
    assert egress_ports(objects)[2] == [1080, 443]


def test_alertmanagers_are_named_and_may_be_reached() -> None:
    """Each Alertmanager has a flag, and the Pods may reach its port."""
    urls = ["http://am-0.monitoring.svc:9093", "http://am-1.monitoring.svc:9093/am"]
    to = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    changes: Values = {
        "alertmanager": {"urls": urls, "auth": "bearer", "existingSecret": "am"},
        "networkPolicy": {"alertmanagerTo": to},
        "externalUrl": "https://openfero.example.com",
    }
    objects = render_chart("openfero", merged(REPOSITORY, changes))
    assert {
        *(f"--alertmanager-url={url}" for url in urls),
        "--alertmanager-auth=bearer",
        "--alertmanager-credentials-file=/etc/openfero-gitops/alertmanager/token",
        "--external-url=https://openfero.example.com",
    } <= {*container(objects)["args"]}
    rule = only(objects, "NetworkPolicy")["spec"]["egress"][-1]
    assert rule == {"ports": [{"port": 9093}], "to": to}
    assert len(egress_ports(render_chart("openfero", REPOSITORY))) == 3


def test_disruption_budget_needs_a_second_replica() -> None:
    """A single replica gets no budget, since that would block every drain."""
    double, single = (render_chart("o", merged(REPOSITORY, {"replicaCount": n})) for n in (2, 1))
    assert only(double, "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert "PodDisruptionBudget" not in {each["kind"] for each in single}


def test_service_monitor_is_made_on_request() -> None:
    """The ServiceMonitor scrapes /metrics of the Service's webhook port, and is off by default."""
    assert "ServiceMonitor" not in {each["kind"] for each in render_chart("o", REPOSITORY)}
    values = merged(REPOSITORY, {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}})
    objects = render_chart("o", values)
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    [endpoint] = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("webhook", "/metrics")


@pytest.mark.parametrize(("name", "key"), [("webhook", "token"), ("mirror", "key")])
def test_two_installations_have_two_secrets(name: str, key: str) -> None:
    """A secret is random, not derived from what anybody knows."""
    first, second = (secret(render_chart("o", REPOSITORY), name)["data"] for _ in range(2))
    assert first[key] != second[key]
    assert len(b64decode(first[key])) == 48


def test_the_mirror_is_always_signed() -> None:
    """Its key is generated, or that of a Secret that exists."""
    for values, name in (
        (REPOSITORY, f"{NAME}-mirror"),
        (merged(REPOSITORY, {"repository": {"mirror": {"existingSecret": "mine"}}}), "mine"),
    ):
        objects = render_chart("openfero", values)
        pod = only(objects, "Deployment")["spec"]["template"]["spec"]
        [volume] = [each for each in pod["volumes"] if each["name"] == "mirror"]
        assert volume["secret"]["secretName"] == name
        assert "--mirror-key-file=/etc/openfero-gitops/mirror/key" in container(objects)["args"]
        made = {each["metadata"]["name"] for each in objects if each["kind"] == "Secret"}
        assert (name in made) == (name != "mine")


@pytest.mark.parametrize(
    ("create", "apis", "count"),
    [
        ("auto", [], 2),
        ("auto", ["apps/v1/Deployment"], 0),
        ("auto", ["apps/v1/Deployment", POLICY_API], 2),
        (True, ["apps/v1/Deployment"], 2),
        ("false", [POLICY_API], 0),
        (False, [], 0),
    ],
)
def test_policies_are_created_where_the_cluster_has_policies(
    create: object, apis: list[str], count: int
) -> None:
    """That is the default; rendered without a cluster, it is assumed to have them."""
    values = merged(REPOSITORY, {"jobPolicy": {"create": create}})
    flags = [f"--api-versions={api}" for api in apis]
    rendered = helm("template", RELEASE, str(CHART), "--kube-version=1.36.0", *flags, values=values)
    assert rendered.count("kind: ValidatingAdmissionPolicy\n") == count
    assert rendered.count("kind: ValidatingAdmissionPolicyBinding\n") == count


@pytest.mark.parametrize(
    ("read", "apis", "expected"),
    [
        ("auto", [], False),
        ("auto", ["kueue.x-k8s.io/v1beta2"], True),
        ("auto", ["kueue.x-k8s.io/v1beta1"], True),
        (False, ["kueue.x-k8s.io/v1beta2"], False),
        (True, [], True),
    ],
)
def test_workloads_may_be_listed_where_the_cluster_has_kueue(
    read: object, apis: list[str], *, expected: bool
) -> None:
    """In the namespaces for Jobs, and nothing else may be done with them."""
    values = merged(REPOSITORY, {"kueue": {"readWorkloads": read}})
    flags = [f"--api-versions={api}" for api in apis]
    text = helm("template", RELEASE, str(CHART), "--kube-version=1.36.0", *flags, values=values)
    [role] = [
        each
        for each in yaml.safe_load_all(text)
        if each["kind"] == "Role" and each["metadata"]["name"].endswith("-jobs")
    ]
    rule = {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]}
    assert (rule in role["rules"]) is expected
    assert text.count("kueue.x-k8s.io]") == expected


@pytest.mark.parametrize("enabled", [False, True])
def test_logs_may_be_read_only_where_they_are_turned_on(*, enabled: bool) -> None:
    """The right to read logs is optional: everybody who reads the pages can read them."""
    objects = render_chart("openfero", merged(REPOSITORY, {"logs": {"enabled": enabled}}))
    roles = {o["metadata"]["name"]: o["rules"] for o in objects if o["kind"] == "Role"}
    rule = {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}
    assert {name for name, rules in roles.items() if rule in rules} == (
        {f"{NAME}-jobs"} if enabled else set()
    )


def test_the_policy_names_the_controller_and_its_namespaces() -> None:
    """It is bound to the namespaces for Jobs, and other users can be named in values."""
    changes = {
        "serviceAccount": {"name": "healer"},
        "allowedNamespaces": ["shop"],
        "jobPolicy": {"kueueUsers": ["kueue"], "kubernetesUsers": ["kcm"]},
    }
    objects = render_chart("team", merged(REPOSITORY, changes))
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    specs = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in objects
             if each["kind"] in kinds}  # fmt: skip
    policy = json.dumps(specs[kinds[0], f"team-{NAME}-jobs"])
    assert '\\"system:serviceaccount:team:healer\\"' in policy
    assert 'in [\\"kueue\\"]' in policy
    assert 'in [\\"kcm\\"]' in policy
    assert '\\"system:serviceaccount:team:healer\\"' in json.dumps(
        specs[kinds[0], f"team-{NAME}-config-maps"]
    )
    jobs, config_maps = (specs[kinds[1], f"team-{NAME}-{name}"] for name in ("jobs", "config-maps"))
    [selector] = jobs["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert selector["values"] == ["team-jobs", "shop"]
    assert config_maps["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "team"
    }
    assert jobs["validationActions"] == config_maps["validationActions"] == ["Deny"]


def test_a_quota_bounds_the_jobs_of_the_namespace_that_the_chart_makes() -> None:
    """There is none in a namespace of somebody else's, nor with 0."""
    quota = only(render_chart("team", REPOSITORY), "ResourceQuota")
    assert quota["metadata"]["namespace"] == "team-jobs"
    assert quota["spec"]["hard"] == {"count/jobs.batch": "20000"}
    for change in ({"maxJobs": 0}, {"create": False}):
        objects = render_chart("team", merged(REPOSITORY, {"jobsNamespace": change}))
        assert "ResourceQuota" not in {each["kind"] for each in objects}


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


def rules(group: str, resource: str, verbs: str, name: str = "") -> set[tuple[str, str, str, str]]:
    """Return the rules that allow some verbs on one resource."""
    return {(group, resource, name, verb) for verb in verbs.split()}


def test_service_account_may_do_what_it_needs_and_nothing_else(
    kubeconfig: Path, installed: str, jobs_namespace: str, tmp_path: Path
) -> None:
    """The rights of the ServiceAccount are, verb by verb, those that the README lists."""
    account = service_account_kubeconfig(kubeconfig, installed, tmp_path)
    everyone = rules_of(account, "default")
    assert {group for group, *_ in everyone} <= {"authorization.k8s.io", "authentication.k8s.io"}
    events = rules("events.k8s.io", "events", "create patch")
    assert rules_of(account, installed) - everyone == {
        *rules("coordination.k8s.io", "leases", "create watch"),
        *rules("coordination.k8s.io", "leases", "get update", NAME),
        *rules("", "configmaps", "get list create delete"),
        *rules("", "configmaps", "update", "openfero-catalog"),
        *rules("", "configmaps", "update", "openfero-dry-runs"),
        *rules("", "configmaps", "patch", "openfero-control"),
        *events,
    }
    assert rules_of(account, jobs_namespace) - everyone == {
        *rules("batch", "jobs", "get list watch create patch delete"),
        *rules("", "pods", "list"),
        *rules("", "serviceaccounts", "get"),
        *rules("events.k8s.io", "events", "create patch list"),
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
    text = printed[printed.index("     route:") : printed.index("\n3. ")]
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
    commands = re.findall(r"^kubectl (delete .*--namespace openfero.*)$", section, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        kubectl(*(namespace if word == "openfero" else word for word in command.split()))
    left = kubectl("get", "lease,configmap", "-n", namespace, "-o", "name").split()
    assert left == ["configmap/kube-root-ca.crt"]

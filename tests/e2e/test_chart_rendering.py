from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import PurePosixPath

import pytest
import yaml

from tests.support.chart import (
    CHART,
    NAME,
    RELEASE,
    REPOSITORY,
    Object,
    Values,
    helm,
    merged,
    only,
    render_chart,
)
from tests.support.chart_examples import FULL, HTTPS_LOGIN, container, secret
from tests.support.cluster import require_binaries
from tests.support.paths import ROOT

pytestmark = pytest.mark.cluster

POLICY_API = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
ALL = pytest.mark.parametrize(
    "values", [REPOSITORY, FULL, HTTPS_LOGIN], ids=["repository", "full", "https"]
)


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


def egress_ports(objects: list[Object]) -> list[list[int]]:
    """Return the ports of each egress rule."""
    rules = only(objects, "NetworkPolicy")["spec"]["egress"]
    return [[port["port"] for port in rule["ports"]] for rule in rules]


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


def test_ids_can_be_left_to_openshift() -> None:
    """Without the chart's user and group the Pods still do not run as root."""
    ids: Values = {"podSecurityContext": dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))}
    objects = render_chart("openfero", merged(REPOSITORY, ids))
    for pod in (only(objects, "Deployment")["spec"]["template"], only(objects, "Pod")):
        assert pod["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_probes_begin_when_the_program_is_loaded() -> None:
    """The first startup probe waits, so that no start causes a Warning event."""
    assert container(render_chart("openfero", REPOSITORY))["startupProbe"] == {
        "httpGet": {"path": "/livez", "port": "webhook", "scheme": "HTTP"},
        "initialDelaySeconds": 5,
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "failureThreshold": 60,
    }


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
    for data in (each["data"] for each in objects if each["kind"] == "Secret"):
        for key, value in data.items():
            assert key == "username" or b64decode(value).decode() not in json.dumps(pod)


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
    """The documented values for oauth2-proxy reach the controller and the NetworkPolicy."""
    text = (ROOT / "docs/how-to/platform/single-sign-on.md").read_text()
    [values] = [
        b for b in re.findall(r"```yaml[^\n]*\n(.*?)```", text, re.DOTALL) if b.startswith("web:")
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
    """Git uses the proxy, and Pods may connect to its port instead of the repository's."""
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
    changes = {"enabled": True, "labels": {"release": "p"}, "annotations": {"a": "b"}}
    values = merged(REPOSITORY, {"serviceMonitor": changes})
    objects = render_chart("o", values)
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "p"
    assert monitor["metadata"]["annotations"] == {"a": "b"}
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

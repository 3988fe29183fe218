from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import openfero_gitops
from openfero_gitops.cli import main
from openfero_gitops.settings import describe
from scripts.chart_values import described_values
from tests.support.chart import (
    CHART,
    REPOSITORY,
    HelmError,
    Values,
    helm,
    merged,
    render_chart,
)
from tests.support.chart_examples import FULL, HTTPS_LOGIN, PROXY, PROXY_POD, container
from tests.support.cluster import require_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster

ALL = pytest.mark.parametrize(
    "values", [REPOSITORY, FULL, HTTPS_LOGIN], ids=["repository", "full", "https"]
)


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


@ALL
def test_lint_finds_nothing(values: Values) -> None:
    """`helm lint --strict` passes, with the least values and with all of them."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=values)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"repository": {"url": ""}}, "repository.url is required"),
        (
            {"repository": {"url": "ftp://git.example.com/a"}},
            "must be the address of a Git repository",
        ),
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
        (
            {"repository": {"url": "ssh://git.example.com/a.git"}},
            "such as https://host/path, ssh://",
        ),
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
        (
            {"repository": {"interval": "60"}},
            'repository.interval is "60", but it must be a duration',
        ),
        (
            {"repository": {"maxSize": "1GB"}},
            'repository.maxSize is "1GB", but it must be a size with a unit',
        ),
        (
            {"repository": {"proxy": "http://ada:secret@proxy:3128"}},
            "without a user name or password",
        ),
        ({"repository": {"proxy": "http://proxy.example.com"}}, "it must be http://host:port"),
        ({"repository": {"proxy": "socks4://proxy.example.com:1080"}}, "or socks5h://host:port"),
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
        (
            {"repository": {"verify": {"mode": "all"}}},
            "/repository/verify/mode': value must be one of 'none', 'commit', 'tag'",
        ),
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
        ({"webhook": {"auth": "digest"}}, "must be one of 'none', 'basic', 'bearer'"),
        ({"web": {"expose": True}}, "web.expose requires authentication"),
        ({"web": {"expose": True, "auth": "basic"}}, "set web.existingSecret"),
        ({"web": {"port": 8080}}, "the port of the webhook"),
        ({"web": {"auth": "proxy"}}, "web.auth is proxy: set web.trustedProxies"),
        ({"web": {"trustedProxies": ["10.0.0.0/0"]}}, "and not all addresses"),
        (
            {"web": {"userHeader": "X-User: x"}},
            'web.userHeader is "X-User: x", but it must be the name of a header',
        ),
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
        ({"alertmanager": {"urls": ["am:9093"]}}, 'alertmanager.urls is "am:9093", but'),
        ({"alertmanager": {"urls": ["http://a:b@am:9093"]}}, "without a user name or password"),
        (
            {"alertmanager": {"urls": ["http://am:9093"], "auth": "basic"}},
            "set alertmanager.existingSecret",
        ),
        (
            {"alertmanager": {"urls": ["https://am:9093"], "caKey": "ca.crt"}},
            "alertmanager.existingSecret, which is not set",
        ),
        (
            {"alertmanagerConfig": {"key": "token"}, "webhook": {"auth": "basic"}},
            "leave alertmanagerConfig.key empty",
        ),
        (
            {"webhook": {"key": "tokens"}},
            "webhook.key is a key of the Secret webhook.existingSecret, which is not set",
        ),
        *(
            (
                {"service": {"type": kind}, "webhook": {"auth": "none"}},
                f"service.type {kind} publishes the webhook, which requires authentication",
            )
            for kind in ("NodePort", "LoadBalancer")
        ),
        (
            {"serviceMonitor": {"enabled": True}, "tls": {"existingSecret": "certificate"}},
            "set serviceMonitor.tlsConfig",
        ),
        ({"externalUrl": "openfero.example.com"}, "externalUrl is"),
        ({"allowedNamespaces": ["Production"]}, "must be the name of a namespace"),
        ({"approvalPolicy": {"create": True}}, "was replaced by jobPolicy"),
        ({"jobPolicy": {"create": "maybe"}}, "must be one of 'auto', true, false"),
        ({"jobsNamespace": {"maxJobs": -1}}, "/jobsNamespace/maxJobs': minimum: got -1, want 0"),
        (
            {"terminationGracePeriodSeconds": 20},
            "terminationGracePeriodSeconds is 20, but stopping takes up to 21 seconds",
        ),
        ({"shutdownDelaySeconds": 15}, "but stopping takes up to 31 seconds"),
        ({"preStopSleepSeconds": -1}, "/preStopSleepSeconds': minimum: got -1, want 0"),
        ({"replicaCount": "two"}, "/replicaCount': got string, want integer"),
        ({"webhook": {"replicaLabels": ["alertname"]}}, "must not contain alertname"),
        ({"prometheusRule": {"disabled": ["OpenFeroDown"]}}, "must be one of 'OpenFeroNoLeader'"),
    ],
)
def test_wrong_values_are_refused_with_a_reason(changes: Values, reason: str) -> None:
    """Values that cannot work stop the installation and say which of them it was."""
    with pytest.raises(HelmError) as refused:
        render_chart("openfero", merged(REPOSITORY, changes))
    # Helm 3 quotes and words its schema's findings differently: compared is what both say.
    message = re.sub(r"[^a-z0-9]+", " ", str(refused.value).lower())
    assert re.sub(r"[^a-z0-9]+", " ", reason.lower()).strip() in message


#: For each format of files/formats.yaml a value that does not have it.
WRONG = {
    "duration": "5 minutes",
    "size": "1GB",
    "repository": "git.example.com/a",
    "proxy": "proxy.example.com:3128",
    "hosts": "a b;c",
    "address": "https://ada:secret@example.com",
    "commitAddress": "https://git.example.com/commit",
    "serviceName": "openfero.team",
    "objectName": "My_Secret",
    "namespaceName": "team.jobs",
    "key": "a/b",
    "hostName": "https://openfero.example.com",
    "network": "0.0.0.0/0",
    "header": "X-User: ada",
    "digest": "sha256:latest",
    "matchers": '{job="a"}',
    "version": "v1.34.2",
}


def formats() -> dict[str, dict[str, Any]]:
    """Return the formats of values that the chart knows."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((CHART / "files/formats.yaml").read_text())
    return found


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_format_is_refused_with_a_sentence(name: str) -> None:
    """Each value is named, with what it is and what it must be; no pattern is shown."""
    form, wrong = formats()[name], WRONG[name]
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in form["values"] if name in ("network", "address") else form["values"][:2]:
        value: Any = defaults
        for key in path.split("."):
            value = value[key]
        changes: Any = [wrong] if isinstance(value, list) else wrong
        if isinstance(value, dict):
            changes = {"OpenFeroDegraded": wrong}
        for key in reversed(path.split(".")):
            changes = {key: changes}
        with pytest.raises(HelmError) as refused:
            render_chart("openfero", merged(REPOSITORY, changes))
        sentence = f"{path} is {json.dumps(wrong)}, but it must be {form['sentence']}"
        assert sentence in str(refused.value)
        assert form["pattern"] not in str(refused.value)


def test_every_format_is_tested_and_of_values_that_exist() -> None:
    """A value has one format, and the schema has no pattern, whose message would be no sentence."""
    assert list(WRONG) == list(formats())
    paths = [path for form in formats().values() for path in form["values"]]
    assert len(set(paths)) == len(paths)
    described = {value.name for value in described_values((CHART / "values.yaml").read_text())}
    assert set(paths) <= described
    assert '"pattern"' not in (CHART / "values.schema.json").read_text()


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


def test_chart_and_package_have_one_version() -> None:
    """The image that the chart runs by default is of the package's version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert str(chart["appVersion"]) == openfero_gitops.__version__


def test_artifact_hub_shows_what_the_chart_contains() -> None:
    """Its annotations are valid: the image is the default one, and each change has a known kind."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    notes = {key: yaml.safe_load(text) for key, text in chart["annotations"].items()}
    [image] = notes["artifacthub.io/images"]
    assert image["image"] == container(render_chart("openfero", REPOSITORY))["image"]
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    changes = notes["artifacthub.io/changes"]
    assert {change["kind"] for change in changes} <= kinds
    assert all(change["description"] for change in changes)
    assert all(link["url"].startswith("https://") for link in notes["artifacthub.io/links"])


#: Settings that no value sets, and why.
WITHOUT_VALUE = {"--kubeconfig": "the Pod's ServiceAccount is used"}


def test_every_setting_has_a_value_or_a_reason() -> None:
    """What `serve` can be told, a value of the chart can tell it, without `extraArgs`."""
    template = (CHART / "templates/deployment.yaml").read_text()
    given = set(re.findall(r"--[a-z][a-z-]*[a-z]", template))
    flags = {setting.flag for setting in describe()}
    assert flags - given == set(WITHOUT_VALUE)
    assert given <= flags


@ALL
def test_every_flag_is_one_that_serve_knows(
    values: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each flag in the container's arguments is an option of `openfero-gitops serve`."""
    command, *arguments = container(render_chart("openfero", values))["args"]
    assert main([command, "--help"]) == 0
    flags = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert {argument.partition("=")[0] for argument in arguments} <= flags

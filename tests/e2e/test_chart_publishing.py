"""What the chart creates for others to reach it: Ingress, HTTPRoute, AlertmanagerConfig."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chart import (
    CHART,
    NAME,
    REPOSITORY,
    HelmError,
    Object,
    Values,
    helm,
    merged,
    only,
    render_chart,
)
from tests.support.cluster import require_binaries
from tests.support.custom_resources import install_custom_resources
from tests.support.serving import local_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.cluster import Kubectl

pytestmark = pytest.mark.cluster

LOGIN: Values = {"web": {"expose": True, "auth": "basic", "existingSecret": "pages"}}
GATEWAY = [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
PUBLISHED: Values = {
    **LOGIN,
    "pushHook": {"existingSecret": "forge"},
    "ingress": {
        "webhook": {
            "enabled": True,
            "className": "nginx",
            "host": "alerts.example.com",
            "tls": [{"secretName": "alerts", "hosts": ["alerts.example.com"]}],
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
            "labels": {"exposed": "yes"},
        },
        "pages": {"enabled": True, "host": "openfero.example.com"},
    },
    "httpRoute": {
        "webhook": {"enabled": True, "parentRefs": GATEWAY, "hostnames": ["hook.example.com"]},
        "pages": {
            "enabled": True,
            "parentRefs": GATEWAY,
            "hostnames": ["pages.example.com", "*.example.org"],
            "filters": [
                {
                    "type": "ResponseHeaderModifier",
                    "responseHeaderModifier": {"remove": ["X-Powered-By"]},
                }
            ],
        },
    },
    "alertmanagerConfig": {
        "enabled": True,
        "labels": {"alertmanager": "main"},
        "matchers": [{"name": "severity", "value": "none", "matchType": "!="}],
    },
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "grafanaDashboard": {"enabled": True},
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-more"},
            "data": {"url": "{{ .Values.repository.url }}"},
        },
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n",
    ],
}


@pytest.fixture(scope="module", autouse=True)
def _helm(request: pytest.FixtureRequest) -> None:
    """Need helm, which is built together with the control plane."""
    require_binaries(request.config)


def rendered(changes: Values) -> list[Object]:
    """Return the objects of the chart with these values."""
    return render_chart("team", merged(REPOSITORY, changes))


def named(objects: list[Object], kind: str, name: str) -> Object:
    """Return one object."""
    [item] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return item


def test_lint_finds_nothing() -> None:
    """`helm lint --strict` passes with everything that is published."""
    values = merged(REPOSITORY, PUBLISHED)
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=values)


def test_nothing_is_published_by_default() -> None:
    """Neither the webhook nor the pages get a route from outside, nor is there anything else."""
    kinds = {each["kind"] for each in rendered({})}
    assert not kinds & {"Ingress", "HTTPRoute", "AlertmanagerConfig", "ConfigMap", "ServiceMonitor"}


def is_published(path: str, rules: Iterable[tuple[str, str]]) -> bool:
    """Whether an Ingress sends a path to the controller, by its paths and their types."""
    return any(
        path == rule or (kind == "Prefix" and path.startswith(f"{rule}/")) for rule, kind in rules
    )


def test_every_page_is_published_and_no_probe() -> None:
    """What needs no authentication stays inside, except files that are the same everywhere."""
    [rule] = named(rendered(PUBLISHED), "Ingress", f"{NAME}-pages")["spec"]["rules"]
    published = [(path["path"], path["pathType"]) for path in rule["http"]["paths"]]
    [listener] = local_server()._listeners
    served = {
        re.sub(r"{[^}]*}", "x", route.resource.canonical): route.method
        for route in listener.app.router.routes()
        if route.resource is not None and route.method in ("GET", "HEAD")
    }
    inside = {"/livez", "/readyz", "/healthz", "/readiness", "/startupz", "/metrics"}
    assert {path for path in served if not is_published(path, published)} == inside
    assert not is_published("/hooks/git", published)
    for path, _ in published:
        assert any(is_published(other, [(path, "Prefix")]) for other in served), path


def test_ingresses_publish_what_is_meant_and_nothing_else() -> None:
    """Metrics and probes stay inside; the hosts may send requests."""
    objects = rendered(PUBLISHED)
    service = {port["name"] for port in only(objects, "Service")["spec"]["ports"]}
    found = {}
    for name in ("webhook", "pages"):
        ingress = named(objects, "Ingress", f"{NAME}-{name}")
        [rule] = ingress["spec"]["rules"]
        for path in rule["http"]["paths"]:
            target = path["backend"]["service"]
            assert target["name"] == NAME
            assert target["port"]["name"] in service
            found[rule["host"], path["path"], path["pathType"]] = target["port"]["name"]
    assert [target for target, port in found.items() if port == "webhook"] == [
        ("alerts.example.com", "/alerts", "Exact"),
        ("alerts.example.com", "/hooks/git", "Exact"),
    ]
    assert {host for (host, _, _), port in found.items() if port == "web"} == {
        "openfero.example.com"
    }
    ingress = named(objects, "Ingress", f"{NAME}-webhook")
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == PUBLISHED["ingress"]["webhook"]["tls"]
    assert ingress["metadata"]["labels"]["exposed"] == "yes"
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}
    assert "ingressClassName" not in named(objects, "Ingress", f"{NAME}-pages")["spec"]
    [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    hosts = [a for a in container["args"] if a.startswith("--allowed-host=")]
    assert hosts == ["--allowed-host=openfero.example.com", "--allowed-host=pages.example.com"]


def test_routes_publish_the_same() -> None:
    """The event stream of the pages is not ended by a timeout of the Gateway."""
    objects = rendered(PUBLISHED)
    webhook = named(objects, "HTTPRoute", f"{NAME}-webhook")["spec"]
    assert webhook["parentRefs"] == GATEWAY
    [rule] = webhook["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/alerts", "/hooks/git"]
    assert rule["backendRefs"] == [{"name": NAME, "port": 8080}]
    [rule] = named(objects, "HTTPRoute", f"{NAME}-pages")["spec"]["rules"]
    kinds = {match["path"]["value"]: match["path"]["type"] for match in rule["matches"]}
    assert (kinds["/"], kinds["/remediations"], kinds["/api"]) == (
        "Exact", "PathPrefix", "PathPrefix",
    )  # fmt: skip
    assert "/metrics" not in kinds
    assert rule["backendRefs"] == [{"name": NAME, "port": 8081}]
    assert rule["timeouts"] == {"request": "0s"}


@pytest.mark.parametrize("kind", ["ingress", "httpRoute"])
@pytest.mark.parametrize(
    ("values", "door", "reason"),
    [
        ({}, "pages", r"\.pages\.enabled publishes the pages, which requires authentication"),
        (
            {"web": {"auth": "basic", "existingSecret": "pages"}},
            "pages",
            "set web.expose to true, and web.auth to basic, bearer or proxy",
        ),
        (
            {"webhook": {"auth": "none"}},
            "webhook",
            "set webhook.auth to bearer or basic",
        ),
    ],
)
def test_nothing_is_published_without_authentication(
    kind: str, values: Values, door: str, reason: str
) -> None:
    """The installation stops and says what to set."""
    complete = {"enabled": True, "host": "a.example.com"}
    if kind == "httpRoute":
        complete = {"enabled": True, "parentRefs": GATEWAY}
    with pytest.raises(HelmError, match=reason):
        rendered({**values, kind: {door: complete}})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ingress": {"webhook": {"enabled": True}}}, "set ingress.webhook.host"),
        ({"httpRoute": {"webhook": {"enabled": True}}}, "set httpRoute.webhook.parentRefs"),
        (
            {
                **LOGIN,
                "ingress": {
                    "webhook": {"enabled": True, "host": "a.example.com"},
                    "pages": {"enabled": True, "host": "a.example.com"},
                },
            },
            "ingress.webhook.host and ingress.pages.host must differ",
        ),
        (
            {
                **LOGIN,
                "httpRoute": {
                    "webhook": {
                        "enabled": True,
                        "parentRefs": GATEWAY,
                        "hostnames": ["b.example.com", "a.example.com"],
                    },
                    "pages": {
                        "enabled": True,
                        "parentRefs": GATEWAY,
                        "hostnames": ["a.example.com"],
                    },
                },
            },
            "both have a.example.com, but they must differ",
        ),
        (
            {
                **LOGIN,
                "httpRoute": {
                    "webhook": {"enabled": True, "parentRefs": GATEWAY},
                    "pages": {
                        "enabled": True,
                        "parentRefs": GATEWAY,
                        "hostnames": ["a.example.com"],
                    },
                },
            },
            "httpRoute.pages.hostnames must both be set",
        ),
        (
            {
                "alertmanagerConfig": {"enabled": True},
                "webhook": {"auth": "basic", "existingSecret": "mine"},
            },
            "set webhook.auth to bearer",
        ),
        (
            {"alertmanagerConfig": {"enabled": True}, "tls": {"existingSecret": "certificate"}},
            "set alertmanagerConfig.tlsConfig",
        ),
    ],
)
def test_what_cannot_work_is_refused(values: Values, reason: str) -> None:
    """The message names the value to set."""
    with pytest.raises(HelmError, match=re.escape(reason)):
        rendered(values)


@pytest.mark.parametrize(
    ("values", "http_config"),
    [
        (
            {},
            {
                "authorization": {
                    "type": "Bearer",
                    "credentials": {"name": f"{NAME}-webhook", "key": "token"},
                }
            },
        ),
        (
            {"alertmanagerConfig": {"key": "alertmanager"}},
            {
                "authorization": {
                    "type": "Bearer",
                    "credentials": {"name": f"{NAME}-webhook", "key": "alertmanager"},
                }
            },
        ),
        (
            {"webhook": {"existingSecret": "mine", "key": "tokens"}},
            {
                "authorization": {
                    "type": "Bearer",
                    "credentials": {"name": "mine", "key": "tokens"},
                }
            },
        ),
        (
            {"webhook": {"auth": "basic"}},
            {
                "basicAuth": {
                    "username": {"name": f"{NAME}-webhook", "key": "username"},
                    "password": {"name": f"{NAME}-webhook", "key": "token"},
                }
            },
        ),
        (
            {
                "webhook": {"auth": "none"},
                "tls": {"existingSecret": "certificate"},
                "alertmanagerConfig": {"tlsConfig": {"insecureSkipVerify": True}},
            },
            {"tlsConfig": {"insecureSkipVerify": True}},
        ),
        ({"webhook": {"auth": "none"}}, None),
    ],
)
def test_alertmanager_has_the_credentials_of_the_webhook(
    values: Values, http_config: Object | None
) -> None:
    """The Secret has each key that the AlertmanagerConfig names, and they fit together."""
    objects = rendered(merged({"alertmanagerConfig": {"enabled": True}}, values))
    [receiver] = only(objects, "AlertmanagerConfig")["spec"]["receivers"]
    [webhook] = receiver["webhookConfigs"]
    scheme = "https" if "tls" in values else "http"
    assert webhook["url"] == f"{scheme}://{NAME}.team.svc:8080/alerts"
    assert webhook.get("httpConfig") == http_config
    if http_config is not None and f"{NAME}-webhook" in str(http_config):
        data = named(objects, "Secret", f"{NAME}-webhook")["data"]
        name, token, pair = (
            base64.b64decode(data[key]).decode() for key in ("username", "token", "basic")
        )
        assert pair == f"{name}:{token}"
        [key] = re.findall(r"'(?:credentials|password)': {.*'key': '(\w+)'", str(http_config))
        assert data[key] == data["token"]


def test_the_api_server_accepts_each_custom_resource(kubectl: Kubectl, namespace: str) -> None:
    """With the definitions of their projects, each object is valid and has no unknown field."""
    install_custom_resources(kubectl)
    kinds = {"Ingress", "HTTPRoute", "AlertmanagerConfig", "ServiceMonitor", "PrometheusRule"}
    objects: list[dict[str, Any]] = [
        {**each, "metadata": {**each["metadata"], "namespace": namespace}}
        for each in rendered(PUBLISHED)
        if each["kind"] in kinds or each["metadata"]["name"].startswith("openfero-")
        if each["kind"] in kinds | {"ConfigMap"}
    ]
    assert {each["kind"] for each in objects} == kinds | {"ConfigMap"}
    strict = ("create", "--validate=strict", "--dry-run=server", "-n", namespace, "-f", "-")
    manifest = {"apiVersion": "v1", "kind": "List", "items": objects}
    created = kubectl(*strict, stdin=json.dumps(manifest))
    assert len(created.splitlines()) == len(objects) == 10
    more = named(objects, "ConfigMap", "openfero-more")
    assert more["data"]["url"] == REPOSITORY["repository"]["url"]

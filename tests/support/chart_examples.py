"""Values of the chart that tests share, and what is read from its objects."""

from __future__ import annotations

from typing import Any

from tests.support.chart import NAME, Object, Values, only

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
    "ingress": {
        "webhook": {"enabled": True, "host": "alerts.example.com", "className": "nginx"},
        "pages": {"enabled": True, "host": "openfero.example.com", "annotations": {"a": "b"}},
    },
    "grafanaDashboard": {"enabled": True},
    "deploymentAnnotations": {"a": "b"},
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
#: Pages that are exposed to a proxy.
PROXY: Values = {"web": {"auth": "proxy", "trustedProxies": ["10.0.0.0/8"], "expose": True}}
PROXY_POD = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "oauth2-proxy"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "oauth2-proxy"}},
}


def secret(objects: list[Object], name: str) -> Object:
    """Return a Secret of the chart."""
    secrets = [item for item in objects if item["kind"] == "Secret"]
    [item] = [item for item in secrets if item["metadata"]["name"] == f"{NAME}-{name}"]
    return item


def container(objects: list[Object]) -> dict[str, Any]:
    """Return the controller's container."""
    [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)

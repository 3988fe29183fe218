from __future__ import annotations

import asyncio
import base64
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.cluster import kubeconfig
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.kubeconfig import ClusterAccess, find_access
from openfero_gitops.domain.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret-t0ken"


def content(**changes: Any) -> dict[str, Any]:
    """Return a kubeconfig with two contexts, some of its parts changed."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "one", "cluster": {"server": "http://one.example:6443"}},
            {"name": "two", "cluster": {"server": "http://two.example:6443/behind/a/path"}},
        ],
        "users": [{"name": "me", "user": {"token": SECRET}}],
        "contexts": [
            {"name": "one", "context": {"cluster": "one", "user": "me", "namespace": "shop"}},
            {"name": "two", "context": {"cluster": "two", "user": "me"}},
        ],
        "current-context": "one",
        **changes,
    }


def write(path: Path, **changes: Any) -> Path:
    """Write a kubeconfig."""
    path.write_text(json.dumps(content(**changes)))
    return path


def user(**fields: Any) -> list[dict[str, Any]]:
    """Return the list of users with one who authenticates like this."""
    return [{"name": "me", "user": fields}]


async def authorization(access: ClusterAccess) -> str | None:
    """Return what a request would be sent with."""
    settings: Any = await access.configuration.auth_settings()
    return settings["BearerToken"]["value"] if settings else None


async def test_current_context(tmp_path: Path) -> None:
    """A kubeconfig's current context gives server, namespace and token."""
    access = await find_access(write(tmp_path / "config"))
    assert access.configuration.host == "http://one.example:6443"
    assert access.namespace == "shop"
    assert await authorization(access) == f"Bearer {SECRET}"


async def test_other_context(tmp_path: Path) -> None:
    """A context can be chosen; without a namespace of its own it has `default`."""
    access = await find_access(write(tmp_path / "config"), "two")
    assert access.configuration.host == "http://two.example:6443/behind/a/path"
    assert access.namespace == "default"


async def test_order(tmp_path: Path) -> None:
    """A given file is before `$KUBECONFIG`, that before the Pod's own, and the home's is last."""
    home = tmp_path / ".kube" / "config"
    home.parent.mkdir()
    write(home, clusters=[{"name": "one", "cluster": {"server": "http://home.example"}}])
    listed = write(tmp_path / "listed")
    pod = pod_folder(tmp_path)
    environ = {"HOME": str(tmp_path)}
    access = await find_access(None, environ=environ, service_account=pod)
    assert access.configuration.host == "http://home.example"
    environ |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    access = await find_access(None, environ=environ, service_account=pod)
    assert access.configuration.host == "https://10.0.0.1:443"
    access = await find_access(None, "one", environ=environ, service_account=pod)
    assert access.configuration.host == "http://home.example"
    environ |= {"KUBECONFIG": str(listed)}
    access = await find_access(None, environ=environ, service_account=pod)
    assert access.configuration.host == "http://one.example:6443"
    other = write(tmp_path / "other", **{"current-context": "two"})
    access = await find_access(other, environ=environ, service_account=pod)
    assert access.configuration.host == "http://two.example:6443/behind/a/path"


async def test_several_files(tmp_path: Path) -> None:
    """`$KUBECONFIG` may name several files, some of which are not there."""
    users = tmp_path / "users"
    users.write_text(json.dumps({"users": user(token=SECRET)}))
    rest = write(tmp_path / "rest", users=[])
    listed = f"{tmp_path / 'missing'}:{rest}:{users}"
    access = await find_access(None, environ={"KUBECONFIG": listed})
    assert await authorization(access) == f"Bearer {SECRET}"


async def test_nothing_is_configured(tmp_path: Path) -> None:
    """Without a configuration, the error says what to set."""
    with pytest.raises(UsageError, match=r"^no cluster is configured; set --kubeconfig"):
        await find_access(None, environ={"HOME": str(tmp_path)})


async def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A kubeconfig that does not exist is named, and so is one of `$KUBECONFIG`."""
    path = tmp_path / "none"
    with pytest.raises(UsageError, match=f"there is no kubeconfig at {path}"):
        await find_access(path)
    with pytest.raises(UsageError, match=f"there is no kubeconfig at {path}"):
        await find_access(None, environ={"KUBECONFIG": str(path)})


MALFORMED: dict[str, tuple[str, str]] = {
    "empty": ("", "structure of a kubeconfig"),
    "text": ("hello", "structure of a kubeconfig"),
    "a list": ("[1, 2]", "structure of a kubeconfig"),
    "no YAML": ("a: [1\nb: {", "line [23] is not valid YAML"),
    "no context": (json.dumps(content(contexts=[])), "Expected object with name one"),
    "no current context": (json.dumps(content() | {"current-context": ""}), "Expected"),
    "no cluster": (json.dumps(content(clusters=[])), "Expected object with name one"),
    "no server": (
        json.dumps(content(clusters=[{"name": "one", "cluster": {"x": "y"}}])),
        "https://HOST:PORT",
    ),
    "a server without a scheme": (
        json.dumps(content(clusters=[{"name": "one", "cluster": {"server": "one.example"}}])),
        "https://HOST:PORT",
    ),
    "an authority that is not there": (
        json.dumps(
            content(
                clusters=[
                    {
                        "name": "one",
                        "cluster": {
                            "server": "https://one.example",
                            "certificate-authority": "/none/ca.crt",
                        },
                    }
                ]
            )
        ),
        "/none/ca.crt",
    ),
    "a token file that is not there": (
        json.dumps(content(users=user(tokenFile="/none/token"))),
        "/none/token: No such file or directory",
    ),
    "an exec plugin without a command": (
        json.dumps(content(users=user(exec={"apiVersion": "x", "env": [SECRET]}))),
        "returned no credentials",
    ),
    "an OIDC provider without its parts": (
        json.dumps(
            content(users=user(**{"auth-provider": {"name": "oidc", "config": {"secret": SECRET}}}))
        ),
        "cannot refresh",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes")
@pytest.mark.parametrize("malformed", MALFORMED)
async def test_malformed_files(tmp_path: Path, malformed: str) -> None:
    """A malformed kubeconfig is refused in one line with its path and without secrets."""
    text, message = MALFORMED[malformed]
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as refused:
        await find_access(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


async def test_missing_context_is_named(tmp_path: Path) -> None:
    """A context that is not in the file is named."""
    with pytest.raises(UsageError, match=r"context three of .* object with name three"):
        await find_access(write(tmp_path / "config"), "three")


async def test_certificates_that_are_none(tmp_path: Path) -> None:
    """An invalid CA certificate is refused when connecting."""
    authority = base64.b64encode(b"no certificate").decode()
    cluster = {"server": "https://one.example", "certificate-authority-data": authority}
    path = write(tmp_path / "config", clusters=[{"name": "one", "cluster": cluster}])
    with pytest.raises(UsageError, match=r"cannot use the certificates in"):
        await KubernetesApi.connect(path)


async def test_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token in a file is read again when it is old; if that fails, the last one is kept."""
    monkeypatch.setattr(kubeconfig, "RENEWAL_SECONDS", 0)
    token = tmp_path / "token"
    token.write_text("first\n")
    access = await find_access(write(tmp_path / "config", users=user(tokenFile=str(token))))
    assert await authorization(access) == "Bearer first"
    token.write_text("second\n")
    assert await authorization(access) == "Bearer second"
    token.unlink()
    assert await authorization(access) == "Bearer second"
    assert access.renewal.problem == f"{token}: No such file or directory"
    token.write_text("third")
    assert await authorization(access) == "Bearer third"
    assert access.renewal.problem == ""


async def test_credentials_are_not_read_at_every_request(tmp_path: Path) -> None:
    """A token is used for a minute."""
    token = tmp_path / "token"
    token.write_text("first")
    access = await find_access(write(tmp_path / "config", users=user(tokenFile=str(token))))
    token.write_text("second")
    assert await authorization(access) == "Bearer first"


async def test_one_renews_for_all() -> None:
    """One request renews the credentials; the others continue with the old ones."""
    loads = 0

    def load() -> kubeconfig.Configuration:
        nonlocal loads
        loads += 1
        return kubeconfig.Configuration(api_key={"BearerToken": f"Bearer {loads}"})

    now = 0.0
    configuration = kubeconfig.Configuration(api_key={"BearerToken": "Bearer 0"})
    renewal = kubeconfig.Renewal(load, lambda: now)
    assert renewal(configuration) is None
    now = 61.0
    renewals = [renewal(configuration) for _ in range(10)]
    waiting = [pending for pending in renewals if pending is not None]
    assert len(waiting) == 1
    await waiting[0]
    assert configuration.api_key == {"BearerToken": "Bearer 1"}
    assert renewal(configuration) is None


def plugin(directory: Path, script: str) -> list[dict[str, Any]]:
    """Return users with a credential plugin."""
    path = directory / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    version = "client.authentication.k8s.io/v1"
    return user(exec={"apiVersion": version, "command": str(path), "interactiveMode": "Never"})


async def test_credential_plugin(tmp_path: Path) -> None:
    """An exec plugin's token is used."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": SECRET},
    }
    users = plugin(tmp_path, f"echo '{json.dumps(credential)}'")
    access = await find_access(write(tmp_path / "config", users=users))
    assert await authorization(access) == f"Bearer {SECRET}"


async def test_credential_plugin_that_fails(tmp_path: Path) -> None:
    """A failed plugin is an error without its output, which may contain a secret."""
    users = plugin(tmp_path, f"echo {SECRET} >&2; exit 1")
    with pytest.raises(UsageError, match=r"plugin in .* returned no credentials") as refused:
        await find_access(write(tmp_path / "config", users=users))
    assert SECRET not in str(refused.value)


async def test_credential_plugin_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that hangs is ended."""
    monkeypatch.setattr(kubeconfig, "PLUGIN_SECONDS", 0.3)
    users = plugin(tmp_path, "exec sleep 3")
    async with asyncio.timeout(60):
        with pytest.raises(UsageError, match="did not finish"):
            await find_access(write(tmp_path / "config", users=users))


def pod_folder(directory: Path) -> Path:
    """Return a folder as the kubelet mounts it."""
    folder = directory / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("from-the-kubelet\n")
    (folder / "ca.crt").write_text("a certificate, perhaps")
    (folder / "namespace").write_text("openfero\n")
    return folder


IN_A_POD = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}


async def test_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pod has its namespace, authority, and a token that is read again."""
    monkeypatch.setattr(kubeconfig, "RENEWAL_SECONDS", 0)
    folder = pod_folder(tmp_path)
    access = await find_access(None, environ=IN_A_POD, service_account=folder)
    assert access.configuration.host == "https://[fd00::1]:443"
    assert access.configuration.ssl_ca_cert == str(folder / "ca.crt")
    assert access.namespace == "openfero"
    assert await authorization(access) == "bearer from-the-kubelet"
    (folder / "token").write_text("renewed")
    assert await authorization(access) == "bearer renewed"


async def test_in_a_pod_without_a_token(tmp_path: Path) -> None:
    """The error for a missing token says how to mount it."""
    with pytest.raises(UsageError, match="automountServiceAccountToken: true"):
        await find_access(None, environ=IN_A_POD, service_account=tmp_path)


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy.example:3128"}, "http://proxy.example:3128"),
        ({"https_proxy": "http://proxy.example:3128", "no_proxy": "one.example"}, None),
    ],
)
async def test_proxy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    proxy: str | None,
) -> None:
    """The proxy of the environment is used, unless the server is excepted."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cluster = {"name": "one", "cluster": {"server": "https://one.example:6443"}}
    access = await find_access(write(tmp_path / "config", clusters=[cluster]))
    assert access.configuration.proxy == proxy


async def test_another_user_to_act_as(tmp_path: Path) -> None:
    """`as` and its companions become headers, as with kubectl; the library ignores them."""
    fields = {
        "token": SECRET,
        "as": "ada@example.com",
        "as-groups": ["on-call", "auditors"],
        "as-uid": "42",
        "as-user-extra": {"Scopes/a": ["view", "edit"]},
    }
    access = await find_access(write(tmp_path / "config", users=user(**fields)))
    assert access.impersonation == (
        ("Impersonate-User", "ada@example.com"),
        ("Impersonate-Uid", "42"),
        ("Impersonate-Group", "on-call"),
        ("Impersonate-Group", "auditors"),
        ("Impersonate-Extra-scopes%2Fa", "view"),
        ("Impersonate-Extra-scopes%2Fa", "edit"),
    )
    assert (await find_access(write(tmp_path / "config"))).impersonation == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"as": "ada\r\nX: y"}, "is not text"),
        ({"as": 7}, "is not text"),
        ({"as-groups": ["on-call"]}, "need as"),
    ],
)
async def test_another_user_who_cannot_be_named(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    """Nothing is sent in the name of the real user instead."""
    with pytest.raises(UsageError, match=message):
        await find_access(write(tmp_path / "config", users=user(token=SECRET, **fields)))

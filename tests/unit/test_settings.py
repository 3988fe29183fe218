from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.signature import Verify
from openfero_gitops.settings import Auth, Settings, WebAuth, describe, load_settings
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from types import ModuleType


REPO = "https://git.example.com/operarios.git"
CONFIG = "OPENFERO_GITOPS_CONFIG"

#: Every setting as it is typed, twice, and what it then is.
ONE = {
    "repo": (REPO, REPO),
    "ref": ("main", "main"),
    "path": ("shop", "shop"),
    "follow_rewrites": ("true", True),
    "verify": ("commit", Verify.COMMIT),
    "allowed_signers_file": ("/run/one/signers", Path("/run/one/signers")),
    "openpgp_keyring_file": ("/run/one/keyring", Path("/run/one/keyring")),
    "mirror_key_file": ("/run/one/mirror", Path("/run/one/mirror")),
    "interval": ("1h30m", timedelta(minutes=90)),
    "git_timeout": ("90s", timedelta(seconds=90)),
    "git_credentials_file": ("/run/one/git", Path("/run/one/git")),
    "git_ssh_key_file": ("/run/one/ssh", Path("/run/one/ssh")),
    "git_known_hosts_file": ("/run/one/hosts", Path("/run/one/hosts")),
    "git_ca_file": ("/run/one/git-ca", Path("/run/one/git-ca")),
    "git_client_cert_file": ("/run/one/git-cert", Path("/run/one/git-cert")),
    "git_client_key_file": ("/run/one/git-key", Path("/run/one/git-key")),
    "git_proxy": ("http://one:3128", "http://one:3128"),
    "git_proxy_credentials_file": ("/run/one/proxy", Path("/run/one/proxy")),
    "git_no_proxy": ("one.example", "one.example"),
    "git_max_size": ("2Gi", 2**31),
    "git_max_memory": ("256Mi", 2**28),
    "cache_dir": ("/var/one", Path("/var/one")),
    "kubeconfig": ("/run/one/kube", Path("/run/one/kube")),
    "namespace": ("one", "one"),
    "jobs_namespace": ("one-jobs", "one-jobs"),
    "allowed_namespace": ("a, b,,c", ("a", "b", "c")),
    "kubernetes_version": ("1.33", "1.33"),
    "listen": ("127.0.0.1:81", "127.0.0.1:81"),
    "web_listen": ("127.0.0.1:82", "127.0.0.1:82"),
    "max_delivery_size": ("2Mi", 2**21),
    "max_alerts": ("100", 100),
    "max_waiting": ("100", 100),
    "replica_label": ("replica, host.name", ("replica", "host.name")),
    "webhook_auth": ("basic", Auth.BASIC),
    "webhook_credentials_file": ("/run/one/webhook", Path("/run/one/webhook")),
    "web_auth": ("bearer", WebAuth.BEARER),
    "web_credentials_file": ("/run/one/web", Path("/run/one/web")),
    "web_trusted_proxy": ("10.0.0.1, fd00::/64", (ip_network("10.0.0.1"), ip_network("fd00::/64"))),
    "web_user_header": ("X-Auth-Request-User", "X-Auth-Request-User"),
    "alertmanager_url": ("http://one:9093/, https://two/am", ("http://one:9093", "https://two/am")),
    "alertmanager_auth": ("basic", Auth.BASIC),
    "alertmanager_credentials_file": ("/run/one/am", Path("/run/one/am")),
    "alertmanager_ca_file": ("/run/one/am-ca", Path("/run/one/am-ca")),
    "external_url": ("https://one.example/heal/", "https://one.example/heal"),
    "commit_url": ("https://one.example/c/{commit}", "https://one.example/c/{commit}"),
    "file_url": ("https://one.example/{commit}/{path}", "https://one.example/{commit}/{path}"),
    "hook_secret_file": ("/run/one/hook", Path("/run/one/hook")),
    "tls_cert_file": ("/run/one/crt", Path("/run/one/crt")),
    "tls_key_file": ("/run/one/key", Path("/run/one/key")),
    "client_ca_file": ("/run/one/ca", Path("/run/one/ca")),
    "allowed_host": ("Heal.example.com, proxy", ("heal.example.com", "proxy")),
    "max_connections": ("100", 100),
    "max_connections_per_source": ("10", 10),
    "identity": ("one-0", "one-0"),
    "lease_duration": ("30s", timedelta(seconds=30)),
    "renew_deadline": ("20s", timedelta(seconds=20)),
    "retry_period": ("1s500ms", timedelta(seconds=1.5)),
    "shutdown_delay": ("10s", timedelta(seconds=10)),
    "log_format": ("json", "json"),
}
OTHER = {
    name: (
        (text.replace("one", "two"), Path(text.replace("one", "two")))
        if isinstance(value, Path)
        else (text, value)
    )
    for name, (text, value) in ONE.items()
} | {
    "repo": ("/srv/two.git", "/srv/two.git"),
    "ref": ("v2", "v2"),
    "path": ("jobs", "jobs"),
    "follow_rewrites": ("false", False),
    "verify": ("tag", Verify.TAG),
    "interval": ("2m", timedelta(minutes=2)),
    "git_timeout": ("2s", timedelta(seconds=2)),
    "git_proxy": ("http://two:3128", "http://two:3128"),
    "git_no_proxy": ("two.example,10.0.0.0/8", "two.example,10.0.0.0/8"),
    "git_max_size": ("500000000", 500_000_000),
    "git_max_memory": ("300000000", 300_000_000),
    "namespace": ("two", "two"),
    "jobs_namespace": ("two-jobs", "two-jobs"),
    "allowed_namespace": ("d", ("d",)),
    "kubernetes_version": ("1.34", "1.34"),
    "listen": (":83", ":83"),
    "web_listen": ("[::1]:84", "[::1]:84"),
    "max_delivery_size": ("4000000", 4_000_000),
    "max_alerts": ("200", 200),
    "max_waiting": ("200", 200),
    "webhook_auth": ("bearer", Auth.BEARER),
    "web_auth": ("basic", WebAuth.BASIC),
    "web_trusted_proxy": ("192.0.2.0/24", (ip_network("192.0.2.0/24"),)),
    "web_user_header": ("X-Forwarded-Email", "X-Forwarded-Email"),
    "alertmanager_url": ("http://[::1]:9093", ("http://[::1]:9093",)),
    "alertmanager_auth": ("bearer", Auth.BEARER),
    "external_url": ("http://two.example", "http://two.example"),
    "commit_url": ("http://two.example/{commit}", "http://two.example/{commit}"),
    "file_url": ("http://two.example/{path}@{commit}", "http://two.example/{path}@{commit}"),
    "allowed_host": ("two.example.com", ("two.example.com",)),
    "replica_label": ("cluster_member", ("cluster_member",)),
    "max_connections": ("200", 200),
    "max_connections_per_source": ("20", 20),
    "identity": ("two-0", "two-0"),
    "lease_duration": ("40s", timedelta(seconds=40)),
    "renew_deadline": ("25s", timedelta(seconds=25)),
    "retry_period": ("3s", timedelta(seconds=3)),
    "shutdown_delay": ("0", timedelta(0)),
    "log_format": ("console", "console"),
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings from the environment."""
    for name in os.environ:
        if name.upper().startswith("OPENFERO_GITOPS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the path of the settings file, which is not there yet."""
    path = tmp_path / "settings.yaml"
    monkeypatch.setenv(CONFIG, str(path))
    return path


def set_environment(monkeypatch: pytest.MonkeyPatch, samples: dict[str, tuple[str, Any]]) -> None:
    """Set the variable of each setting."""
    for name, (text, _) in samples.items():
        monkeypatch.setenv(f"OPENFERO_GITOPS_{name.upper()}", text)


def texts(samples: dict[str, tuple[str, Any]]) -> dict[str, str]:
    """Return each setting as it is typed."""
    return {name: text for name, (text, _) in samples.items()}


def values(samples: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Return each setting as it then is."""
    return {name: value for name, (_, value) in samples.items()}


def read(settings: Settings) -> dict[str, Any]:
    """Return every setting by its name."""
    return {name: getattr(settings, name) for name in Settings.model_fields}


def complaint(flags: dict[str, Any]) -> str:
    """Return the error message for invalid settings, which must be one line."""
    with pytest.raises(UsageError) as caught:
        load_settings(flags)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Where a setting comes from


def test_every_setting_is_known_here() -> None:
    """A setting that is added is added to the samples above, too."""
    assert list(Settings.model_fields) == list(ONE)
    for name in ONE:
        assert ONE[name][1] != OTHER[name][1]


def test_every_setting_as_a_flag() -> None:
    """Each setting can be given as a flag."""
    assert read(load_settings(texts(ONE))) == values(ONE)


def test_every_setting_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting can be given as a variable, OPENFERO_GITOPS_ and its name in capitals."""
    set_environment(monkeypatch, ONE)
    assert read(load_settings({})) == values(ONE)


@pytest.mark.parametrize("dash", ["-", "_"])
def test_every_setting_in_the_file(file: Path, dash: str) -> None:
    """Each setting can be given in the file, under its flag's name or with underscores."""
    lines = [f"{name.replace('_', dash)}: '{text}'" for name, text in texts(ONE).items()]
    file.write_text("\n".join(lines))
    assert read(load_settings({})) == values(ONE)


def test_the_file_may_be_json_or_hold_lists(file: Path) -> None:
    """JSON is YAML; several namespaces may be a list, a switch may be a truth value."""
    file.write_text('{"repo": "/r", "allowed-namespace": ["a", "b,c"], "follow-rewrites": true}')
    settings = load_settings({})
    assert settings.allowed_namespace == ("a", "b", "c")
    assert settings.follow_rewrites is True


def test_flags_win_over_the_environment_over_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every setting the flag counts first, then the variable, then the file."""
    file.write_text("\n".join(f"{name}: '{text}'" for name, text in texts(OTHER).items()))
    assert read(load_settings({})) == values(OTHER)
    set_environment(monkeypatch, ONE)
    assert read(load_settings({})) == values(ONE)
    assert read(load_settings(texts(OTHER))) == values(OTHER)


def test_each_source_fills_in_what_the_others_leave_open(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three sources are read together."""
    file.write_text("repo: /srv/file.git\nref: of-the-file\ninterval: 5m\n")
    monkeypatch.setenv("OPENFERO_GITOPS_REF", "of-the-environment")
    settings = load_settings({"interval": "7m"})
    assert settings.repo == "/srv/file.git"
    assert settings.ref == "of-the-environment"
    assert settings.interval == timedelta(minutes=7)


def test_what_is_empty_is_not_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable, as a chart writes one, neither counts nor hides the file."""
    for name in Settings.model_fields:
        monkeypatch.setenv(f"OPENFERO_GITOPS_{name.upper()}", "")
    file.write_text("repo: /r\nlisten: ':81'\n")
    settings = load_settings({})
    assert (settings.repo, settings.listen) == ("/r", ":81")
    assert settings.kubeconfig is None
    assert settings.webhook_auth is Auth.NONE
    monkeypatch.setenv(CONFIG, "")
    assert complaint({}) == "--repo is required; set it or OPENFERO_GITOPS_REPO"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n---\n"])
def test_an_empty_file_sets_nothing(file: Path, text: str) -> None:
    """A file without settings is no error."""
    file.write_text(text)
    assert load_settings({"repo": "/r"}).listen == ":8080"


def test_the_defaults() -> None:
    """The defaults are as documented."""
    settings = load_settings({"repo": "/r"})
    assert settings.model_dump(exclude={"repo", "identity", "log_format"}) == {
        "ref": "HEAD",
        "path": ".",
        "follow_rewrites": False,
        "verify": "none",
        "interval": timedelta(minutes=1),
        "git_timeout": timedelta(seconds=60),
        "git_proxy": "",
        "git_no_proxy": "",
        "git_max_size": 2**30,
        "git_max_memory": 192 * 2**20,
        "max_delivery_size": 2**23,
        "max_alerts": 10_000,
        "max_waiting": 10_000,
        "cache_dir": Path("/var/cache/openfero-gitops"),
        "allowed_namespace": (),
        "kubernetes_version": "1.36",
        "listen": ":8080",
        "webhook_auth": "none",
        "web_auth": "none",
        "web_trusted_proxy": (),
        "web_user_header": "X-Forwarded-User",
        "alertmanager_url": (),
        "alertmanager_auth": "none",
        "external_url": "",
        "commit_url": "",
        "file_url": "",
        "allowed_host": (),
        "replica_label": (),
        "max_connections": 512,
        "lease_duration": timedelta(seconds=15),
        "renew_deadline": timedelta(seconds=10),
        "retry_period": timedelta(seconds=2),
        "shutdown_delay": timedelta(seconds=5),
    } | dict.fromkeys(
        [
            *("git_credentials_file", "git_ssh_key_file", "git_known_hosts_file", "git_ca_file"),
            *("git_client_cert_file", "git_client_key_file", "git_proxy_credentials_file"),
            *("allowed_signers_file", "openpgp_keyring_file", "mirror_key_file"),
            *("kubeconfig", "namespace", "jobs_namespace", "web_listen"),
            *("webhook_credentials_file", "web_credentials_file", "hook_secret_file"),
            *("alertmanager_credentials_file", "alertmanager_ca_file"),
            *("tls_cert_file", "tls_key_file", "client_ca_file"),
            "max_connections_per_source",
        ]
    )


def test_two_replicas_of_one_host_are_told_apart() -> None:
    """Without a name a replica takes its host's and a random part."""
    first, second = (load_settings({"repo": "/r"}).identity for _ in range(2))
    assert first != second
    assert first.startswith(socket.gethostname() + "_")


def test_settings_do_not_change() -> None:
    """The value is frozen."""
    settings = load_settings({"repo": "/r"})
    with pytest.raises(ValidationError):
        settings.ref = "other"


# Wrong values


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("interval", "60", "'60' is not a duration: write a number with a unit, for example 60s"),
        ("interval", "soon", "'soon' is not a duration"),
        ("interval", "-1m", "'-1m' is not a duration"),
        ("interval", "1.5h", "'1.5h' is not a duration"),
        ("interval", "0", "must be greater than 0"),
        ("interval", "0s", "must be greater than 0"),
        ("interval", "99y", "longer than ten years"),
        ("interval", "9" * 5000 + "s", "is not a duration"),
        ("git_timeout", "1 minute", "'1 minute' is not a duration"),
        ("lease_duration", "15", "is not a duration"),
        ("allowed_host", "https://heal.example.com", "is not a host name; use a name without"),
        ("replica_label", "alertname", "alertname is not a replica label: it is the name"),
        ("replica_label", "pod,alertname", "alertname is not a replica label: it is the name"),
        ("replica_label", "x" * 1000, "the replica labels have more than 1024 characters"),
        ("max_connections", "0", "greater than or equal to 1"),
        ("max_connections", "many", "valid integer"),
        ("renew_deadline", "0", "must be greater than 0"),
        ("retry_period", "", "is not a duration"),
        (
            "git_max_size",
            "large",
            '"large" is not a size: write a number of bytes, or for example 500Mi or 1Gi',
        ),
        ("git_max_size", "1GB", '"1GB" is not a size'),
        ("git_max_size", "1023Ki", '"1023Ki" is not a size from 1Mi to 1Pi'),
        ("git_max_size", "-1Gi", '"-1Gi" is not a size from 1Mi to 1Pi'),
        ("git_max_size", "1e300", '"1e300" is not a size from 1Mi to 1Pi'),
        ("max_alerts", "0", "greater than 0"),
        ("max_waiting", "0", "greater than 0"),
        ("max_alerts", "many", "integer"),
        ("webhook_auth", "digest", "Input should be 'none', 'basic' or 'bearer'"),
        ("web_auth", "Basic", "Input should be 'none', 'basic', 'bearer' or 'proxy'"),
        ("web_trusted_proxy", "ingress", "'ingress' is not an address or a network such as 10.0."),
        ("web_trusted_proxy", "10.0.0.1/24", "host bits set"),
        ("web_trusted_proxy", "10.0.0.1,::/0", "'::/0' holds all addresses"),
        ("web_user_header", "X-User: x", "is not a header that names a user"),
        ("web_user_header", "Authorization", "is not a header that names a user"),
        ("log_format", "xml", "Input should be 'json' or 'console'"),
        ("follow_rewrites", "perhaps", "valid boolean"),
        ("namespace", "Shop", "'Shop' is not a valid namespace name"),
        ("namespace", "a/b", "'a/b' is not a valid namespace name"),
        ("jobs_namespace", "x" * 64, "is not a valid namespace name"),
        ("allowed_namespace", "shop,../default", "'../default' is not a valid namespace name"),
        ("allowed_namespace", "a b", "'a b' is not a valid namespace name"),
    ],
)
def test_a_wrong_value_is_named_by_its_flag(name: str, text: str, why: str) -> None:
    """The message is one short line that names the flag and the error."""
    message = complaint({"repo": "/r", name: text})
    assert message.startswith(f"--{name.replace('_', '-')}: ")
    assert why in message
    assert len(message) < 250


def test_a_wrong_value_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message about a variable names the flag of the same setting."""
    monkeypatch.setenv("OPENFERO_GITOPS_LEASE_DURATION", "15")
    assert complaint({"repo": "/r"}).startswith("--lease-duration: '15' is not a duration")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("interval: 60", "--interval: '60' is not a duration"),
        ("interval: 1:30", "--interval: "),
        ("interval: null", "--interval: 'None' is not a duration"),
        ("interval: [1m]", "--interval: "),
        ("ref: 1234567", "--ref: Input should be a valid string"),
        ("ref: null", "--ref: Input should be a valid string"),
        ("path: {a: b}", "--path: Input should be a valid string"),
        ("allowed-namespace: [1, a]", "--allowed-namespace: Input should be a valid string"),
        ("allowed-namespace: {a: b}", "--allowed-namespace: Input should be a valid tuple"),
        ("webhook-auth: 1", "--webhook-auth: Input should be"),
        ("kubeconfig: 1", "--kubeconfig: Input is not a valid path"),
        ("follow-rewrites: sometimes", "--follow-rewrites: Input should be a valid boolean"),
    ],
)
def test_a_wrong_value_of_the_file(file: Path, line: str, message: str) -> None:
    """The message about a value of the wrong type names the flag; a number needs a unit."""
    file.write_text(f"repo: /r\n{line}\n")
    assert complaint({}).startswith(message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"webhook_auth": "basic"}, "--webhook-auth basic requires --webhook-credentials-file"),
        ({"web_auth": "bearer"}, "--web-auth bearer requires --web-credentials-file"),
        ({"web_auth": "proxy"}, "--web-auth proxy requires --web-trusted-proxy"),
        (
            {"web_auth": "proxy", "web_trusted_proxy": "::1", "web_credentials_file": "/t"},
            "--web-credentials-file requires --web-auth basic or bearer",
        ),
        ({"webhook_auth": "proxy"}, "--webhook-auth: Input should be 'none', 'basic' or 'bearer'"),
        ({"webhook_credentials_file": "/t"}, "--webhook-credentials-file requires --webhook-auth"),
        (
            {"web_credentials_file": "/t"},
            "--web-credentials-file requires --web-auth basic or bearer",
        ),
        (
            {"alertmanager_url": "http://am", "alertmanager_auth": "basic"},
            "--alertmanager-auth basic requires --alertmanager-credentials-file",
        ),
        (
            {"alertmanager_ca_file": "/ca"},
            "--alertmanager-auth and --alertmanager-ca-file require --alertmanager-url",
        ),
        ({"alertmanager_url": "am:9093"}, "--alertmanager-url: must be http://HOST:PORT or"),
        ({"alertmanager_url": "http://am:x"}, "--alertmanager-url: is not a URL; write http://"),
        ({"alertmanager_url": "http://a:b@am"}, "--alertmanager-url: contains credentials; put"),
        ({"commit_url": "http://h/"}, "--commit-url: must contain {commit}"),
        ({"external_url": "http://h/?q"}, "--external-url: must not contain ? or #"),
        ({"external_url": "http://h/a b"}, "--external-url: contains characters that are not"),
        ({"tls_cert_file": "/c"}, "--tls-cert-file and --tls-key-file require each other"),
        ({"tls_key_file": "/k"}, "--tls-cert-file and --tls-key-file require each other"),
        (
            {"max_alerts": "20000"},
            "--max-alerts 20000 requires --max-delivery-size 10240000 or more",
        ),
        ({"client_ca_file": "/ca"}, "--client-ca-file requires --tls-cert-file"),
        (
            {"lease_duration": "10s"},
            "renew-deadline (10 s) must be shorter than lease-duration (10 s)",
        ),
        ({"renew_deadline": "2s400ms"}, "retry-period (2 s) times 1.2 must be shorter than"),
        ({"retry_period": "9s"}, "retry-period (9 s) times 1.2 must be shorter than"),
    ],
)
def test_settings_that_do_not_go_together(flags: dict[str, str], message: str) -> None:
    """The message names both settings."""
    assert message in complaint({"repo": "/r", **flags})


# The file itself


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"repo: /r\nlisten-on: ':80'\n", "unknown setting 'listen-on'"),
        (b"repo: /r\nConfig: x\n", "unknown setting 'Config'"),
        (b"repo: /r\nlisten: ':1'\nlisten: ':2'\n", ':3:1: key "listen" occurs twice'),
        (b"repo: /r\nweb-listen: ':1'\nweb_listen: ':2'\n", "web_listen is set twice"),
        (b"repo: /r\n\tlisten: x\n", ":2:"),
        (b"repo: [\n", ":2:1: "),
        (b"repo: \xff\n", "UTF-8"),
        (b"https://git.example.com/x.git: 1\n", "keys must be names of settings"),
        (b"REPO: /r\n", "unknown setting 'REPO'"),
        (b"- repo\n", "must be one mapping of settings"),
        (b"/r\n", "must be one mapping of settings"),
        (b"repo: /r\n---\nref: main\n", "must be one mapping of settings"),
        (b"repo: !!python/object/apply:os.system [id]\n", "tag"),
    ],
)
def test_a_file_that_cannot_be_meant(file: Path, content: bytes, message: str) -> None:
    """The message names the file and, if possible, line and column."""
    file.write_bytes(content)
    error = complaint({})
    assert error.startswith(str(file))
    assert message in error


def test_a_file_that_cannot_be_read(file: Path) -> None:
    """A file that was named and is not there is an error, not a file without settings."""
    assert complaint({"repo": "/r"}) == f"{CONFIG}: cannot read {file}: No such file or directory"
    file.mkdir()
    assert complaint({"repo": "/r"}).endswith(f"cannot read {file}: Is a directory")


# Secrets


def test_no_secret_is_shown(file: Path) -> None:
    """A password in the URL is neither in the repr nor in error messages."""
    url = "https://user:s3cret@git.example.com/x.git"
    settings = load_settings_of(file, f"repo: {url}\n")
    assert settings.repo == url
    assert "s3cret" not in repr(settings) + str(settings)
    for flags in ({"interval": "soon"}, {"web_auth": "basic"}, {"namespace": "A"}):
        assert "s3cret" not in complaint({"repo": url, **flags})
    for text in (f"{url}: 1", f"repo: {{{url}: 1}}", f"repo:{url}", f"repo: {url}\nrepo: {url}"):
        file.write_text(text)
        assert "s3cret" not in complaint({})


def load_settings_of(file: Path, text: str) -> Settings:
    """Read settings from a file alone."""
    file.write_text(text)
    return load_settings({})


def test_every_secret_is_the_path_of_a_file() -> None:
    """Secrets are only given by the path of a file."""
    for setting in describe():
        if re.search("credential|secret|token|password|key", setting.name):
            assert setting.name.endswith("_file")


# Documentation


@pytest.fixture
def make_docs() -> ModuleType:
    """Give the script that writes the documentation."""
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documentation_is_current() -> None:
    """The pages that are made from the code are as they would be made now."""
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_docs.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_documentation_that_is_not_current(
    make_docs: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--check` names pages that are missing or out of date; without it they are written."""
    monkeypatch.setattr(make_docs, "ROOT", tmp_path)

    page = tmp_path / "docs/reference/settings.md"
    assert make_docs.main(["--check"]) == 1
    assert "docs/reference/settings.md" in capsys.readouterr().err
    assert not page.exists()
    assert make_docs.main([]) == 0
    assert make_docs.main(["--check"]) == 0
    page.write_text(page.read_text() + "more\n")
    assert make_docs.main(["--check"]) == 1
    assert make_docs.main(["--chekc"]) == 2


def test_every_setting_is_documented() -> None:
    """The table has a row with flag, variable, default and meaning for each setting."""
    rows = {
        cells[1].strip(" `"): [cell.strip() for cell in cells[2:-1]]
        for line in (ROOT / "docs/reference/settings.md").read_text().splitlines()
        if len(cells := line.split("|")) == 6 and "--" in cells[1] and "---|" not in line
    }
    assert list(rows) == ["--" + name.replace("_", "-") for name in Settings.model_fields]
    assert all(meaning for _, _, meaning in rows.values())
    assert rows["--interval"] == ["`OPENFERO_GITOPS_INTERVAL`", "`1m`", "Time between two syncs."]
    assert rows["--kubeconfig"][1] == "$KUBECONFIG, the Pod's ServiceAccount, ~/.kube/config"
    assert rows["--follow-rewrites"][1] == "`false`"


def test_the_design_is_kept() -> None:
    """The flags that users were promised are there."""
    promised = (
        "repo ref path interval kubeconfig namespace jobs-namespace allowed-namespace listen "
        "web-listen webhook-auth web-auth webhook-credentials-file web-credentials-file "
        "tls-cert-file tls-key-file client-ca-file cache-dir identity lease-duration "
        "renew-deadline retry-period"
    )
    assert {f"--{name}" for name in promised.split()} <= {setting.flag for setting in describe()}

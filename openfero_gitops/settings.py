"""Reads the settings of `serve` from flags, the environment and a file into one frozen value.

A secret is always given by the path of the file that contains it. An empty flag or variable counts
as not set.
"""

from __future__ import annotations

import os
import secrets
import socket
import typing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.duration import format_duration
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.lease import LeaseDurations
from openfero_gitops.domain.quantity import format_size
from openfero_gitops.domain.signature import Verify
from openfero_gitops.setting_types import (
    Bytes,
    Delay,
    Duration,
    Header,
    Hosts,
    LabelNames,
    Namespace,
    Namespaces,
    Networks,
    Size,
    Template,
    Url,
    Urls,
)

ENVIRONMENT_PREFIX: Final = "OPENFERO_GITOPS_"
#: The variable with the path of the settings file.
CONFIG_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"
#: So that a delivery within the limits always fits in the memory for deliveries.
_MIN_BYTES_PER_ALERT: Final = 512


class Auth(StrEnum):
    """How a client authenticates."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"


class WebAuth(StrEnum):
    """How users of the pages and the API authenticate."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    PROXY = "proxy"


#: What needs a file with credentials.
_SCHEMES: Final = ("basic", "bearer")


@dataclass(frozen=True, slots=True)
class ResolvedNamespaces:
    """The namespaces of a controller; `allowed` holds the jobs namespace first."""

    controller: str
    jobs: str
    allowed: tuple[str, ...]


class Settings(BaseSettings):
    """The settings of `serve`; durations are written as in Prometheus (`1m30s`)."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    # (Not in the repr: before it is parsed, it may contain a password.)
    repo: str = Field(
        repr=False,
        description="Git repository with the operarios: https://, ssh://, file:// or a local path.",
    )
    ref: str = Field(
        "HEAD",
        description="Branch, tag or full commit SHA to follow; HEAD is the default branch.",
    )
    path: str = Field(".", description="Folder of the repository that contains the operarios.")
    follow_rewrites: bool = Field(
        default=False,
        description="Also activate commits that do not descend from the active commit (for "
        "example after a force push).",
    )
    verify: Verify = Field(
        Verify.NONE,
        description="Which signature to require from a trusted signer: none, commit (of the "
        "commit that the ref names) or tag (the ref is a signed annotated tag).",
    )
    allowed_signers_file: Path | None = Field(
        None,
        description="Trusted SSH keys, in the ALLOWED SIGNERS format of ssh-keygen(1).",
    )
    openpgp_keyring_file: Path | None = Field(
        None, description="Trusted OpenPGP public keys, as written by gpg --export."
    )
    mirror_key_file: Path | None = Field(
        None,
        description="Keys that authenticate the mirror (the copy of the catalog in ConfigMaps), "
        "one per line, at least 16 characters each. The first signs; all are accepted at startup.",
    )
    interval: Duration = Field(timedelta(minutes=1), description="Time between two syncs.")
    git_timeout: Duration = Field(
        timedelta(seconds=60), description="Maximum duration of one Git operation."
    )
    git_credentials_file: Path | None = Field(
        None, description="username:password, or a token, for https. The first line counts."
    )
    git_ssh_key_file: Path | None = Field(
        None, description="Private key without a passphrase, for ssh."
    )
    git_known_hosts_file: Path | None = Field(
        None, description="Host keys of the Git server (known_hosts), for ssh."
    )
    git_ca_file: Path | None = Field(
        None, description="CA certificate of the Git server, in PEM format."
    )
    git_client_cert_file: Path | None = Field(
        None,
        description="Client certificate in PEM format, with its chain, for https servers that "
        "require one.",
    )
    git_client_key_file: Path | None = Field(
        None,
        description="Private key of the client certificate, in PEM format, without a passphrase.",
    )
    git_proxy: str = Field(
        "",
        description="Proxy for https repositories: http://host:port, https://host:port, or "
        "socks5h://host:port. Proxy variables of the environment are ignored.",
    )
    git_proxy_credentials_file: Path | None = Field(
        None, description="username:password for the proxy."
    )
    git_no_proxy: str = Field("", description="Comma-separated hosts to reach without the proxy.")
    git_max_size: Bytes = Field(
        Size(2**30),
        description="Maximum size of the repository's history on disk, in bytes or with a unit, "
        "such as 1Gi.",
    )
    git_max_memory: Bytes = Field(
        Size(192 * 2**20),
        description="Maximum memory of each Git process, in bytes or with a unit, such as 192Mi. "
        "Few run at once, and together with the controller they must fit into its memory limit.",
    )
    cache_dir: Path = Field(
        Path("/var/cache/openfero-gitops"),
        description="Folder for the bare clone. If it is lost, the repository is cloned again.",
    )
    kubeconfig: Path | None = Field(
        None,
        description="kubeconfig file. Default: $KUBECONFIG, the Pod's ServiceAccount, "
        "~/.kube/config",
    )
    namespace: Namespace | None = Field(
        None,
        description="Namespace of the controller (Lease and mirror). Default: the current "
        "context's namespace",
    )
    jobs_namespace: Namespace | None = Field(
        None,
        description="Namespace for Jobs whose operario names none. Default: the controller's "
        "namespace",
    )
    allowed_namespace: Namespaces = Field(
        (),
        description="Another namespace that operarios may use. Repeat the flag, or separate "
        "namespaces by commas.",
    )
    kubernetes_version: str = Field(
        DEFAULT,
        description="Kubernetes version to validate Jobs against. Fields that a later version "
        "introduced are dropped with a warning.",
    )
    listen: str = Field(":8080", description="Address of the webhook.")
    web_listen: str | None = Field(
        None, description="Address of the pages and the API. Default: the webhook's address"
    )
    max_delivery_size: Bytes = Field(
        Size(8 * 2**20),
        description="Maximum size of a delivery, in bytes or with a unit. A larger one is refused "
        "(413), and Alertmanager does not retry it: set max_alerts in Alertmanager if its groups "
        "can be so large. All deliveries in progress may use 16 times this in memory.",
    )
    max_alerts: int = Field(
        10_000,
        gt=0,
        description="Maximum number of alerts in a delivery. One with more is refused (413), and "
        "Alertmanager does not retry it: set max_alerts in Alertmanager to at most this number. "
        "Each needs at least 512 bytes of --max-delivery-size.",
    )
    max_waiting: int = Field(
        10_000,
        gt=0,
        description="Maximum number of waiting Jobs. At the limit, alerts without a Job get none: "
        "the answer is 503, so that Alertmanager repeats them. Each Job takes about 4 KiB of "
        "memory, at most 25 KiB.",
    )
    replica_label: LabelNames = Field(
        (),
        description="Label that only says which of several identical Prometheus servers sent an "
        "alert. Alerts that differ in such labels alone are one alert with one Job, and the labels "
        "are never part of its target. prometheus_replica, __replica__, thanos_ruler_replica and "
        "rule_replica always count. Repeat the flag, or separate labels by commas; all replicas of "
        "the controller need the same.",
    )
    webhook_auth: Auth = Field(
        Auth.NONE, description="How Alertmanager authenticates: none, basic or bearer."
    )
    webhook_credentials_file: Path | None = Field(
        None, description="Accepted user:password pairs or tokens of the webhook, one per line."
    )
    web_auth: WebAuth = Field(
        WebAuth.NONE,
        description="How users of the pages and the API authenticate: none, basic, bearer, or "
        "proxy (a reverse proxy authenticates them and names them in a header).",
    )
    web_credentials_file: Path | None = Field(
        None,
        description="Accepted user:password pairs or tokens of the pages and the API, one per "
        "line.",
    )
    web_trusted_proxy: Networks = Field(
        (),
        description="Address or network (CIDR) of a reverse proxy in front of the pages and the "
        "API. X-Forwarded-For and, with --web-auth proxy, the user header are accepted only from "
        "these addresses. Repeat the flag, or separate networks by commas.",
    )
    web_user_header: Header = Field(
        "X-Forwarded-User",
        description="Header in which the proxy names the user, with --web-auth proxy.",
    )
    alertmanager_url: Urls = Field(
        (),
        description="Alertmanager that the leader sends alerts to, so that people are notified of "
        "remediations that fail, do not help or wait for approval. Repeat the flag, or separate "
        "URLs by commas, for each member of a cluster: they do not exchange alerts, so a Service "
        "that load-balances between them is not enough.",
    )
    alertmanager_auth: Auth = Field(
        Auth.NONE,
        description="How to authenticate to Alertmanager: none, basic or bearer.",
    )
    alertmanager_credentials_file: Path | None = Field(
        None, description="user:password, or a token, for Alertmanager."
    )
    alertmanager_ca_file: Path | None = Field(
        None,
        description="CA certificate of Alertmanager, in PEM format. Default: the CAs of the system",
    )
    external_url: Url = Field(
        "",
        description="Address under which people reach the pages, for links in the alerts that are "
        "sent to Alertmanager.",
    )
    commit_url: Template = Field(
        "",
        description="Address of a commit on your forge, with {commit}, for links on the pages. "
        "Default: derived from --repo for GitHub, GitLab, Gitea, Forgejo, Gogs, Bitbucket and "
        "Azure DevOps, where the host name contains the name of the forge.",
    )
    file_url: Template = Field(
        "",
        description="Address of a file at a commit on your forge, with {commit} and {path}. "
        "Default: derived in the same way as --commit-url.",
    )
    hook_secret_file: Path | None = Field(
        None,
        description="Secrets of push hooks (POST /hooks/git), one per line. Without it, push "
        "hooks are off.",
    )
    tls_cert_file: Path | None = Field(
        None, description="Certificate chain in PEM format; turns on https."
    )
    tls_key_file: Path | None = Field(
        None, description="Private key of the certificate, in PEM format."
    )
    client_ca_file: Path | None = Field(
        None,
        description="CA certificate in PEM format. Clients need a certificate that it issued, "
        "except for probes and metrics.",
    )
    allowed_host: Hosts = Field(
        (),
        description="Host name under which a reverse proxy serves the controller. Pages of this "
        "host may send requests, and a listener on loopback accepts requests for it. Repeat the "
        "flag, or separate names by commas.",
    )
    max_connections: int = Field(
        512,
        ge=1,
        description="Maximum number of open connections. At the limit, a new connection replaces "
        "the one that has been idle or incomplete for longest. With TLS, each takes about 120 KiB "
        "of memory.",
    )
    max_connections_per_source: int | None = Field(
        None,
        ge=1,
        description="Maximum number of open connections of one client address. All clients behind "
        "one proxy, one node or in one IPv6 /64 network count as one. Default: half of all",
    )
    identity: str = Field(
        default_factory=lambda: f"{socket.gethostname()}_{secrets.token_hex(4)}",
        description="Name of this replica. Default: the host name and a random suffix",
    )
    lease_duration: Duration = Field(
        timedelta(seconds=15),
        description="Time after the last renewal when another replica may become leader.",
    )
    renew_deadline: Duration = Field(
        timedelta(seconds=10),
        description="Time after the last renewal when a leader stops leading.",
    )
    retry_period: Duration = Field(
        timedelta(seconds=2),
        description="Time between two attempts to become leader or to renew the lease.",
    )
    shutdown_delay: Delay = Field(
        timedelta(seconds=5),
        description="Time after SIGTERM during which deliveries are still accepted; 0 for none. "
        "Leadership is released at once. The address of a Pod leaves its Service only some "
        "seconds after SIGTERM, and until then deliveries arrive. SIGINT stops without this delay.",
    )
    log_format: Literal["json", "console"] = Field(
        default_factory=lambda: "console" if os.isatty(2) else "json",
        description="Log format: json or console. Default: console on a terminal, else json",
    )

    def resolve_namespaces(self, default: str) -> ResolvedNamespaces:
        """Fill in the namespaces that the settings leave open; `default` is the kubeconfig's."""
        controller = self.namespace or default
        jobs = self.jobs_namespace or controller
        allowed = dict.fromkeys((jobs, *self.allowed_namespace))
        return ResolvedNamespaces(controller, jobs, tuple(allowed))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature of the library
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give flags precedence over the environment, and that over the file."""
        file = InitSettingsSource(settings_cls, read_settings_file())
        return (init_settings, env_settings, file)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        for name, auth, file in (
            ("webhook", self.webhook_auth, self.webhook_credentials_file),
            ("web", self.web_auth, self.web_credentials_file),
            ("alertmanager", self.alertmanager_auth, self.alertmanager_credentials_file),
        ):
            if auth in _SCHEMES and file is None:
                raise ValueError(f"--{name}-auth {auth} requires --{name}-credentials-file")
            if auth not in _SCHEMES and file is not None:
                raise ValueError(
                    f"--{name}-credentials-file requires --{name}-auth basic or bearer"
                )
        if self.web_auth is WebAuth.PROXY and not self.web_trusted_proxy:
            raise ValueError(f"--web-auth {self.web_auth} requires --web-trusted-proxy")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("--tls-cert-file and --tls-key-file require each other")
        if self.client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("--client-ca-file requires --tls-cert-file and --tls-key-file")
        if not self.alertmanager_url and (
            self.alertmanager_auth is not Auth.NONE or self.alertmanager_ca_file is not None
        ):
            raise ValueError(
                "--alertmanager-auth and --alertmanager-ca-file require --alertmanager-url"
            )
        if self.max_delivery_size < self.max_alerts * _MIN_BYTES_PER_ALERT:
            raise ValueError(
                f"--max-alerts {self.max_alerts} requires --max-delivery-size "
                f"{self.max_alerts * _MIN_BYTES_PER_ALERT} or more"
            )
        self.lease_durations()
        return self

    def lease_durations(self) -> LeaseDurations:
        """Return the durations of the lease.

        Raises:
            UsageError: they do not fit together.
        """
        return LeaseDurations(
            self.lease_duration.total_seconds(),
            self.renew_deadline.total_seconds(),
            self.retry_period.total_seconds(),
        )


def load_settings(flags: dict[str, Any]) -> Settings:
    """Read flags, the environment and the file.

    Raises:
        UsageError: a value is missing or invalid; the message names its flag.
    """
    try:
        return Settings(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:
            raise UsageError(first["msg"].removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        flag = flag_of(name)
        if first["type"] == "missing":
            raise UsageError(f"{flag} is required; set it or {variable_of(name)}") from error
        raise UsageError(f"{flag}: {first['msg'].removeprefix('Value error, ')}") from error


def read_settings_file() -> dict[str, Any]:
    """Return the settings of the file that the environment names; none if it names none.

    Raises:
        UsageError: the file cannot be read or is invalid.
    """
    config = os.environ.get(CONFIG_VARIABLE)
    return _read_file(Path(config)) if config else {}


def _read_file(file: Path) -> dict[str, Any]:
    """Read the settings file: YAML whose keys are flag names, with - or _ (`jobs-namespace`).

    Raises:
        UsageError: the file cannot be read or is invalid.
    """
    try:
        documents = [document for document in load(file.read_bytes()) if document is not None]
    except OSError as error:
        raise UsageError(f"{CONFIG_VARIABLE}: cannot read {file}: {error.strerror}") from error
    except Unreadable as error:
        raise UsageError(f"{file}:{error.line}:{error.column}: {error}") from error
    if not documents:
        return {}
    if len(documents) > 1 or not isinstance(documents[0], dict):
        raise UsageError(f"{file}: must be one mapping of settings, such as `interval: 2m`")
    settings: dict[str, Any] = {}
    for key, value in documents[0].items():
        name = key.replace("-", "_")
        if name not in Settings.model_fields:
            # (A key that is not a name may be a misplaced value, and that may be a secret.)
            raise UsageError(
                f"{file}: unknown setting {key!r}"
                if name.isidentifier()
                else f"{file}: keys must be names of settings, such as `interval: 2m`"
            )
        if name in settings:
            raise UsageError(f"{file}: {key} is set twice, once with _ and once with -")
        settings[name] = value
    return settings


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """A setting, for `--help` and the documentation.

    `default` is a value, `default_text` describes a default that is determined at startup; both
    are empty if there is none. `type` names the type of the value, `choices` lists its values if
    there are only a few. A `switch` needs no value.
    """

    name: str
    flag: str
    variable: str
    default: str
    default_text: str
    description: str
    type: str
    choices: tuple[str, ...]
    repeatable: bool
    switch: bool


def describe() -> list[SettingDoc]:
    """List all settings, in the order of the class."""
    return [
        _describe(name, field.annotation, field.get_default(), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def written(value: object) -> str:
    """Write a value as people write it in the settings; empty if there is none."""
    match value:
        case None:
            return ""
        case tuple():
            return ", ".join(map(written, value))
        case timedelta():
            return format_duration(value)
        case bool():
            return str(value).lower()
        case Size():
            return format_size(value)
        case _:
            return str(value)


def _describe(name: str, annotation: Any, default: Any, description: str) -> SettingDoc:
    description, _, default_text = description.partition(" Default: ")
    described = isinstance(default, timedelta | str | Path | int)
    default_value = written(default) if described else ""
    return SettingDoc(
        name=name,
        flag=flag_of(name),
        variable=variable_of(name),
        default=default_value,
        default_text=default_text,
        description=description,
        type=_type_name(name, annotation),
        choices=_choices(annotation),
        repeatable=typing.get_origin(annotation) is tuple,
        switch=annotation is bool,
    )


def _type_name(name: str, annotation: Any) -> str:
    """The type of a setting's value, in capitals, as `--help` shows it."""
    if Namespace in (annotation, *typing.get_args(annotation)):
        return "NAMESPACE"
    if Path in (annotation, *typing.get_args(annotation)):
        return "DIR" if name.endswith("_dir") else "FILE"
    return {timedelta: "DURATION", Size: "SIZE", int: "NUMBER", int | None: "NUMBER"}.get(
        annotation, "TEXT"
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(annotation)
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()

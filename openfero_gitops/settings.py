"""What `serve` is told: flags, then the environment, then a file, to one frozen value.

A secret is only ever named by the path of the file that holds it. An empty flag or variable counts
as not given.
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
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from openfero_gitops.catalog.validation.schema import DEFAULT
from openfero_gitops.catalog.yaml.compose import Unreadable
from openfero_gitops.catalog.yaml.document import load
from openfero_gitops.domain.dns import is_dns_label
from openfero_gitops.domain.duration import format_duration, parse_duration
from openfero_gitops.domain.errors import UsageError
from openfero_gitops.domain.quantity import format_size, parse_size
from openfero_gitops.domain.signature import Verify

ENVIRONMENT_PREFIX: Final = "OPENFERO_GITOPS_"
#: Names the settings file.
CONFIG_VARIABLE: Final = ENVIRONMENT_PREFIX + "CONFIG"


class Auth(StrEnum):
    """How a caller proves who it is."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"


def _duration(value: object) -> object:
    # (A bare number would be taken for seconds.)
    return value if isinstance(value, timedelta) else parse_duration(str(value))


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than 0")
    return value


def _split(value: object) -> object:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return value
    return tuple(part.strip() for item in value for part in item.split(",") if part.strip())


def _namespace(name: str) -> str:
    if not is_dns_label(name):
        raise ValueError(f"{name!r} is no namespace's name")
    return name


class Size(int):
    """A number of bytes, which people write as a Kubernetes quantity."""

    __slots__ = ()


def _size(value: object) -> object:
    return value if isinstance(value, Size) else Size(parse_size(str(value)))


Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
Bytes = Annotated[Size, PlainValidator(_size)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Namespaces = Annotated[tuple[Namespace, ...], NoDecode, BeforeValidator(_split)]


@dataclass(frozen=True, slots=True)
class ResolvedNamespaces:
    """The namespaces of a controller; `allowed` holds the jobs namespace first."""

    controller: str
    jobs: str
    allowed: tuple[str, ...]


class Settings(BaseSettings):
    """Every setting of `serve`; durations are Prometheus' (`1m30s`)."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    # (Kept out of the repr: until it is parsed, it may hold a password.)
    repo: str = Field(
        repr=False,
        description="Git repository of the operarios: https://, ssh://, file:// or a local path",
    )
    ref: str = Field("HEAD", description="branch, tag or full commit; HEAD is the remote's default")
    path: str = Field(".", description="folder inside the repository that holds the operarios")
    follow_rewrites: bool = Field(
        default=False,
        description="take commits too that do not continue the one in force (a rewritten branch)",
    )
    verify: Verify = Field(
        Verify.NONE,
        description="what somebody whom you trust must have signed: none, commit (the one that the "
        "ref names) or tag (the ref, an annotated tag); docs/trust.md",
    )
    allowed_signers_file: Path | None = Field(
        None, description="ssh keys of those whom you trust, an ALLOWED SIGNERS of ssh-keygen(1)"
    )
    openpgp_keyring_file: Path | None = Field(
        None, description="OpenPGP keys of those whom you trust, as gpg --export writes them"
    )
    mirror_key_file: Path | None = Field(
        None,
        description="file with secrets, a line each, 16 characters or longer: the first marks the "
        "mirror, any is accepted at a start",
    )
    interval: Duration = Field(timedelta(minutes=1), description="time between two syncs")
    git_timeout: Duration = Field(
        timedelta(seconds=60), description="longest time one Git operation may take"
    )
    git_credentials_file: Path | None = Field(
        None, description="file with username:password or a token, for https"
    )
    git_ssh_key_file: Path | None = Field(None, description="private key file, for ssh")
    git_known_hosts_file: Path | None = Field(None, description="known_hosts file, for ssh")
    git_ca_file: Path | None = Field(None, description="PEM file of the CA of the Git server")
    git_proxy: str = Field(
        "",
        description="http://host:port of the proxy before an https repository; the environment's "
        "is not used",
    )
    git_no_proxy: str = Field(
        "", description="hosts, with commas between them, that are reached without it"
    )
    git_max_size: Bytes = Field(
        Size(2**30),
        description="most that the repository's history may take on the disk, in bytes or like 1Gi",
    )
    cache_dir: Path = Field(
        Path("/var/cache/openfero-gitops"), description="folder for the bare clone; may be lost"
    )
    kubeconfig: Path | None = Field(
        None, description="kubeconfig file; default: $KUBECONFIG, the Pod's own, ~/.kube/config"
    )
    namespace: Namespace | None = Field(
        None, description="the controller's own namespace (Lease, mirror); default: the context's"
    )
    jobs_namespace: Namespace | None = Field(
        None, description="where Jobs go that name no namespace; default: the controller's"
    )
    allowed_namespace: Namespaces = Field(
        (), description="further namespace that operarios may name (repeat, or separate by comma)"
    )
    kubernetes_version: str = Field(
        DEFAULT,
        description="Kubernetes whose Jobs operarios are judged by; a field that came later is "
        "dropped with a warning",
    )
    listen: str = Field(":8080", description="address of the webhook")
    web_listen: str | None = Field(
        None, description="address of pages and API; default: the webhook's"
    )
    webhook_auth: Auth = Field(
        Auth.NONE, description="how Alertmanager proves who it is: none, basic or bearer"
    )
    webhook_credentials_file: Path | None = Field(
        None, description="file with user:password, or with a token, a line each"
    )
    web_auth: Auth = Field(
        Auth.NONE,
        description="how readers of pages and API prove who they are: none, basic or bearer",
    )
    web_credentials_file: Path | None = Field(None, description="the same, for pages and API")
    hook_secret_file: Path | None = Field(
        None,
        description="file with the secret of push hooks (POST /hooks/git), a line each; without "
        "it they are off",
    )
    tls_cert_file: Path | None = Field(None, description="PEM certificate chain to serve https")
    tls_key_file: Path | None = Field(None, description="PEM private key of that certificate")
    client_ca_file: Path | None = Field(
        None, description="PEM file of the CA that clients' certificates must come from"
    )
    identity: str = Field(
        default_factory=lambda: f"{socket.gethostname()}_{secrets.token_hex(4)}",
        description="this replica's name; default: host name and a random part",
    )
    lease_duration: Duration = Field(
        timedelta(seconds=15), description="time after which another replica may lead"
    )
    renew_deadline: Duration = Field(
        timedelta(seconds=10), description="time after which a leader stops that could not renew"
    )
    retry_period: Duration = Field(
        timedelta(seconds=2), description="time between two tries to lead, or to renew"
    )
    log_format: Literal["json", "console"] = Field(
        default_factory=lambda: "console" if os.isatty(2) else "json",
        description="json or console; default: console on a terminal, json elsewhere",
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
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, the environment over the file."""
        config = os.environ.get(CONFIG_VARIABLE)
        file = _read_file(Path(config)) if config else {}
        return (init_settings, env_settings, InitSettingsSource(settings_cls, file))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for what, auth, file in (
            ("webhook", self.webhook_auth, self.webhook_credentials_file),
            ("web", self.web_auth, self.web_credentials_file),
        ):
            if auth is not Auth.NONE and file is None:
                raise ValueError(f"--{what}-auth {auth} needs --{what}-credentials-file")
            if auth is Auth.NONE and file is not None:
                # Nobody gives credentials to leave the door open.
                raise ValueError(
                    f"--{what}-credentials-file needs --{what}-auth basic or --{what}-auth bearer"
                )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("--tls-cert-file and --tls-key-file go together")
        if self.client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("--client-ca-file needs --tls-cert-file and --tls-key-file")
        if not self.lease_duration > self.renew_deadline > self.retry_period * 1.2:
            raise ValueError(
                "--lease-duration must be longer than --renew-deadline, and that longer than 1.2 "
                "times --retry-period"
            )
        return self


def load_settings(flags: dict[str, Any]) -> Settings:
    """Read every source.

    Raises:
        UsageError: a value is missing or wrong; the text names its flag.
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
            raise UsageError(f"{flag} is missing: give it, or set {variable_of(name)}") from error
        raise UsageError(f"{flag}: {first['msg'].removeprefix('Value error, ')}") from error


def _read_file(file: Path) -> dict[str, Any]:
    """Read the settings file: YAML, with the flags' names as keys (`jobs-namespace`, or `_`).

    Raises:
        UsageError: it cannot be read, or is not of that shape.
    """
    try:
        documents = [one for one in load(file.read_bytes()) if one is not None]
    except OSError as error:
        raise UsageError(f"{CONFIG_VARIABLE}: {file} cannot be read: {error.strerror}") from error
    except Unreadable as error:
        raise UsageError(f"{file}:{error.line}:{error.column}: {error}") from error
    if not documents:
        return {}
    if len(documents) > 1 or not isinstance(documents[0], dict):
        raise UsageError(f"{file}: write one mapping of settings, such as `interval: 2m`")
    settings: dict[str, Any] = {}
    for key, value in documents[0].items():
        name = key.replace("-", "_")
        if name not in Settings.model_fields:
            # (What is no name at all may be a value in the wrong place, and a secret.)
            raise UsageError(
                f"{file}: there is no setting {key!r}"
                if name.isidentifier()
                else f"{file}: write one setting a line, such as `interval: 2m`"
            )
        if name in settings:
            raise UsageError(f"{file}: {key} stands there twice, once with _ and once with -")
        settings[name] = value
    return settings


@dataclass(frozen=True, slots=True)
class Described:
    """A setting, for `--help` and the documentation.

    `default` is a value, `otherwise` describes a default that is determined at the start; both are
    empty if there is none. `type` names the type of the value, `choices` are its values if there
    are only a few. A flag with `many` is repeatable, a `switch` needs no value.
    """

    name: str
    flag: str
    variable: str
    default: str
    otherwise: str
    meaning: str
    type: str
    choices: tuple[str, ...]
    many: bool
    switch: bool


def describe() -> list[Described]:
    """Every setting, in the order of the class."""
    return [
        _describe(name, field.annotation, field.get_default(), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _describe(name: str, annotation: Any, default: Any, description: str) -> Described:
    meaning, _, otherwise = description.partition("; default: ")
    given = ""
    if isinstance(default, timedelta):
        given = format_duration(default)
    elif isinstance(default, bool):
        given = str(default).lower()
    elif isinstance(default, Size):
        given = format_size(default)
    elif isinstance(default, str | Path):
        given = str(default)
    return Described(
        name=name,
        flag=flag_of(name),
        variable=variable_of(name),
        default=given,
        otherwise=otherwise,
        meaning=meaning,
        type=_type_name(name, annotation),
        choices=_choices(annotation),
        many=typing.get_origin(annotation) is tuple,
        switch=annotation is bool,
    )


def _type_name(name: str, annotation: Any) -> str:
    """The type of a setting's value, in capitals, as `--help` shows it."""
    if Namespace in (annotation, *typing.get_args(annotation)):
        return "NAMESPACE"
    if Path in (annotation, *typing.get_args(annotation)):
        return "DIR" if name.endswith("_dir") else "FILE"
    return {timedelta: "DURATION", Size: "SIZE"}.get(annotation, "TEXT")


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(annotation)
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def flag_of(name: str) -> str:
    """A setting's flag."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """A setting's environment variable."""
    return ENVIRONMENT_PREFIX + name.upper()

"""What `serve` is told: flags, then the environment, then a file, to one frozen value.

A secret is only ever named by the path of the file that holds it.
"""

from __future__ import annotations

import os
import secrets
import socket
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from openfero_gitops.domain.duration import parse_duration
from openfero_gitops.domain.errors import UsageError

ENVIRONMENT_PREFIX = "OPENFERO_GITOPS_"


class Auth(StrEnum):
    """How a caller proves who it is."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than 0")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting of `serve`; durations are Prometheus' (`1m30s`)."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
    )

    repo: str = Field(
        description="Git repository of the operarios: https://, ssh://, file:// or a local path"
    )
    ref: str = Field("HEAD", description="branch, tag or full commit; HEAD is the remote's default")
    path: str = Field(".", description="folder inside the repository that holds the operarios")
    follow_rewrites: bool = Field(
        default=False,
        description="take commits too that do not continue the one in force (a rewritten branch)",
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
    cache_dir: Path = Field(
        Path("/var/cache/openfero-gitops"), description="folder for the bare clone; may be lost"
    )
    kubeconfig: Path | None = Field(
        None, description="kubeconfig file; default: $KUBECONFIG, the Pod's own, ~/.kube/config"
    )
    namespace: str | None = Field(
        None, description="the controller's own namespace (Lease, mirror); default: the context's"
    )
    jobs_namespace: str | None = Field(
        None, description="where Jobs go that name no namespace; default: the controller's"
    )
    allowed_namespace: Names = Field(
        (), description="further namespace that operarios may name (repeat, or separate by comma)"
    )
    listen: str = Field(":8080", description="address of the webhook")
    web_listen: str | None = Field(
        None, description="address of pages and API; default: the webhook's"
    )
    webhook_auth: Auth = Field(Auth.NONE, description="how Alertmanager proves who it is")
    webhook_credentials_file: Path | None = Field(
        None, description="file with user:password, or with a token, a line each"
    )
    web_auth: Auth = Field(Auth.NONE, description="how readers of pages and API prove who they are")
    web_credentials_file: Path | None = Field(None, description="the same, for pages and API")
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
    log_format: Annotated[str, Field(pattern="^(json|console)$")] = Field(
        "console" if os.isatty(2) else "json", description="json or console"
    )

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
        config = os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")
        return (
            init_settings,
            env_settings,
            *([YamlConfigSettingsSource(settings_cls, yaml_file=config)] if config else []),
        )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for what, auth, file in (
            ("webhook", self.webhook_auth, self.webhook_credentials_file),
            ("web", self.web_auth, self.web_credentials_file),
        ):
            if auth is not Auth.NONE and file is None:
                raise ValueError(f"--{what}-auth {auth} needs --{what}-credentials-file")
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
        where = ".".join(str(part) for part in first["loc"])
        if not where:
            raise UsageError(first["msg"].removeprefix("Value error, ")) from error
        flag = "--" + where.replace("_", "-")
        if first["type"] == "missing":
            variable = ENVIRONMENT_PREFIX + where.upper()
            raise UsageError(f"{flag} is missing: give it, or set {variable}") from error
        if first["type"] == "extra_forbidden":
            raise UsageError(f"the settings file has an unknown key {where!r}") from error
        raise UsageError(f"{flag}: {first['msg'].removeprefix('Value error, ')}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the settings file cannot be read: {error}") from error

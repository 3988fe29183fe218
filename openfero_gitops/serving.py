"""Wires the server of a replica: its listeners, who may read them, and what they show of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops import __version__, build
from openfero_gitops.delivery.alertmanager import PayloadLimits
from openfero_gitops.domain.health import About
from openfero_gitops.domain.labels import with_replica_labels
from openfero_gitops.settings import WebAuth
from openfero_gitops.web.auth import Credentials, Door, Guard, SecretLines
from openfero_gitops.web.connections.table import ConnectionLimits
from openfero_gitops.web.forges import check_secrets
from openfero_gitops.web.hooks import PushHook
from openfero_gitops.web.proxies import TrustedProxies
from openfero_gitops.web.repository_links import RepositoryLinks
from openfero_gitops.web.server import Server, parse_address
from openfero_gitops.web.tls import load_tls
from openfero_gitops.web.webhook import Intake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openfero_gitops.delivery.submitter import Submitter
    from openfero_gitops.domain.setting import SettingInUse
    from openfero_gitops.metrics import Metrics
    from openfero_gitops.ports import Traces
    from openfero_gitops.settings import Auth, ResolvedNamespaces, Settings
    from openfero_gitops.state import State
    from openfero_gitops.web.evidence import EvidenceReader
    from openfero_gitops.web.reviewed import ReviewedReader
    from openfero_gitops.web.stream.streams import EventStreams


def describe_replica(
    settings: Settings,
    namespaces: ResolvedNamespaces,
    cluster: str,
    listed_settings: tuple[SettingInUse, ...],
) -> About:
    """Describe a replica; `cluster` describes its API server."""
    return About(
        version=__version__,
        identity=settings.identity,
        namespace=namespaces.controller,
        jobs_namespace=namespaces.jobs,
        allowed_namespaces=namespaces.allowed,
        cluster=cluster,
        commit=build.COMMIT,
        build_date=build.DATE,
        replica_labels=with_replica_labels(settings.replica_label),
        settings=listed_settings,
    )


def build_server(
    settings: Settings,
    *,
    state: State,
    streams: EventStreams,
    deliveries: Submitter,
    metrics: Metrics,
    evidence: EvidenceReader,
    reviewed: ReviewedReader,
    request_sync: Callable[[], None],
    block_seconds: Callable[[], float],
    report_refused_delivery: Callable[[str], None],
    traces: Traces,
) -> Server:
    """Build the server of a replica; it does not listen yet.

    `request_sync` starts a sync after a push, unless the Git server blocks for `block_seconds`.

    Raises:
        UsageError: a setting is not usable.
    """
    return Server(
        state=state,
        streams=streams,
        deliveries=deliveries,
        exposition=metrics,
        evidence=evidence,
        links=RepositoryLinks(settings.repo, settings.commit_url, settings.file_url),
        reviewed=reviewed,
        webhook_guard=_guard_webhook(settings, metrics),
        web_guard=_guard_pages(settings, metrics),
        listen=parse_address(settings.listen, "--listen"),
        web_listen=parse_address(settings.web_listen, "--web-listen")
        if settings.web_listen
        else None,
        tls=load_tls(settings.tls_cert_file, settings.tls_key_file, settings.client_ca_file),
        allowed_hosts=settings.allowed_host,
        limits=ConnectionLimits(
            connections=settings.max_connections,
            connections_per_source=settings.max_connections_per_source
            or (settings.max_connections + 1) // 2,
        ),
        push=PushHook(
            request_sync,
            settings.ref,
            SecretLines(settings.hook_secret_file, check_secrets)
            if settings.hook_secret_file
            else None,
            block_seconds,
        ),
        intake=Intake(
            PayloadLimits(settings.max_delivery_size, settings.max_alerts),
            report_refused_delivery,
        ),
        traces=traces,
    )


def _guard_webhook(settings: Settings, metrics: Metrics) -> Guard:
    return Guard(
        _credentials(settings.webhook_auth, settings.webhook_credentials_file),
        certificate=settings.client_ca_file is not None,
        door=Door.WEBHOOK,
        count=metrics.unauthenticated,
    )


def _guard_pages(settings: Settings, metrics: Metrics) -> Guard:
    return Guard(
        _credentials(settings.web_auth, settings.web_credentials_file),
        certificate=settings.client_ca_file is not None,
        proxies=TrustedProxies(
            settings.web_trusted_proxy,
            settings.web_user_header if settings.web_auth is WebAuth.PROXY else "",
        ),
        door=Door.PAGES,
        count=metrics.unauthenticated,
    )


def _credentials(scheme: Auth | WebAuth, file: Path | None) -> Credentials | None:
    """Read the credentials of a door; None if it needs none."""
    return Credentials(scheme.value, file) if file is not None else None

"""Builds the clients of Git and Alertmanager from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfero_gitops.alertmanager.client import Access, Alertmanager
from openfero_gitops.sources.git.access import GitAccess
from openfero_gitops.sources.git.signatures import Trust
from openfero_gitops.sources.git.source import GitSettings, GitSource

if TYPE_CHECKING:
    from openfero_gitops.settings import Settings


def git_source(settings: Settings) -> GitSource:
    """Build the Git source of the operarios.

    Raises:
        UsageError: a setting is not usable.
    """
    return GitSource(
        GitSettings(
            url=settings.repo,
            ref=settings.ref,
            path=settings.path,
            cache_dir=settings.cache_dir,
            access=GitAccess(
                credentials_file=settings.git_credentials_file,
                ssh_key_file=settings.git_ssh_key_file,
                known_hosts_file=settings.git_known_hosts_file,
                ca_file=settings.git_ca_file,
                client_cert_file=settings.git_client_cert_file,
                client_key_file=settings.git_client_key_file,
                proxy=settings.git_proxy,
                proxy_credentials_file=settings.git_proxy_credentials_file,
                no_proxy=settings.git_no_proxy,
                timeout=settings.git_timeout.total_seconds(),
                pack_bytes=settings.git_max_size,
                memory_bytes=settings.git_max_memory,
            ),
            trust=Trust(
                settings.verify, settings.allowed_signers_file, settings.openpgp_keyring_file
            ),
        )
    )


def alertmanagers(settings: Settings) -> list[Alertmanager]:
    """Build the Alertmanagers that get alerts.

    Raises:
        UsageError: a file of credentials or certificates is not usable.
    """
    access = Access(
        settings.alertmanager_auth.value,
        settings.alertmanager_credentials_file,
        settings.alertmanager_ca_file,
    )
    return [Alertmanager(url, access) for url in settings.alertmanager_url]

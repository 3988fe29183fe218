"""Connects commands to a cluster, with the time by which its replicas decide."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops import __version__
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.clock import Clock
from openfero_gitops.domain.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


#: Not the controller's, so that the API server distinguishes what they write to a Job.
_USER_AGENT: Final = f"openfero-gitops-cli/{__version__}"


@contextlib.asynccontextmanager
async def connection(kubeconfig: Path | None) -> AsyncIterator[tuple[KubernetesApi, Clock]]:
    """Connect to a cluster as the current user, and compare the clock of this machine with its own.

    `kubeconfig` None means `$KUBECONFIG`, then `~/.kube/config`.

    Raises:
        UsageError: there is no usable kubeconfig.
        ApiError: the API server does not answer.
    """
    clock = Clock(now_here, time.monotonic, log=False)
    async with api_client(kubeconfig, clock=clock) as api:
        # A refusal has a Date, too.
        with contextlib.suppress(Forbidden):
            await api.version()
        yield api, clock


@contextlib.asynccontextmanager
async def api_client(
    kubeconfig: Path | None, context: str | None = None, clock: Clock | None = None
) -> AsyncIterator[KubernetesApi]:
    """Prepare the connection to a cluster as the current user; no request is sent yet.

    Args:
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        context: of the kubeconfig; None means its current one.
        clock: compared with the API server's.

    Raises:
        UsageError: there is no usable kubeconfig.
    """
    api = await KubernetesApi.connect(kubeconfig, context, user_agent=_USER_AGENT, clock=clock)
    try:
        yield api
    finally:
        await api.close()


def now_here() -> datetime:
    """The time by the clock of this machine, UTC."""
    return datetime.now(UTC)

"""Connects commands to a cluster, with the time by which its replicas decide."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.clock import Clock
from openfero_gitops.domain.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def connection(kubeconfig: Path | None) -> AsyncIterator[tuple[KubernetesApi, Clock]]:
    """Connect to a cluster as the current user, and compare the clock of this machine with its own.

    `kubeconfig` None means `$KUBECONFIG`, then `~/.kube/config`.

    Raises:
        UsageError: there is no usable kubeconfig.
        ApiError: the API server does not answer.
    """
    clock = Clock(now_here, time.monotonic, log=False)
    api = await KubernetesApi.connect(kubeconfig, clock=clock)
    try:
        # A refusal has a Date, too.
        with contextlib.suppress(Forbidden):
            await api.version()
        yield api, clock
    finally:
        await api.close()


def now_here() -> datetime:
    """The time by the clock of this machine, UTC."""
    return datetime.now(UTC)

"""Pause and resume admission as the current user.

Everything goes through the Kubernetes API, so permissions are plain RBAC on the ConfigMap
`openfero-control`.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.pause import LABELS, STILL_PAUSED_BY, request_data
from openfero_gitops.admission.pause import NAME as CONTROL
from openfero_gitops.cluster.client import KubernetesApi
from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.domain.errors import Forbidden, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_POLL_SECONDS: Final = 0.2


async def pause(
    paused: bool,  # noqa: FBT001 - one function serves two commands
    kubeconfig: Path | None,
    namespace: str | None,
    timeout_seconds: float,
) -> str:
    """Pause or resume admission as the current user, and wait for the leader's confirmation.

    Args:
        paused: False resumes.
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: the controller's own; None means the context's.
        timeout_seconds: how long to wait for the confirmation.

    Returns:
        the sentence to print.

    Raises:
        UsageError: RBAC forbids it, or no leader confirmed it in time.
        ApiError: the API server did not do it.
    """
    api = await KubernetesApi.connect(kubeconfig)
    async with contextlib.AsyncExitStack() as exits:
        exits.push_async_callback(api.close)
        store = ConfigMapStore(api, namespace or api.default_namespace)
        return await write_pause(
            store, paused=paused, username=await api.whoami(), timeout_seconds=timeout_seconds
        )


async def write_pause(
    store: ConfigMapStore, *, paused: bool, username: str, timeout_seconds: float
) -> str:
    """Write the request to the control ConfigMap, and wait for the leader's confirmation.

    Returns:
        the sentence to print.

    Raises:
        UsageError: RBAC forbids it, no leader confirmed it in time, or somebody else requested
            the opposite.
        ApiError: the API server did not do it.
    """
    request = request_data(username, datetime.now(UTC), paused=paused)
    try:
        await store.merge(CONTROL, request, LABELS)
    except Forbidden as error:
        raise UsageError(
            f"{username} has no permission to write ConfigMap {CONTROL} in namespace "
            f"{store.namespace!r}: {error}"
        ) from error
    try:
        async with asyncio.timeout(timeout_seconds):
            while (  # noqa: ASYNC110 - a ConfigMap has no event to wait for
                confirmation := await _confirmation(store, request["paused"])
            ) is None:
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise UsageError(
            f"{'Pause' if paused else 'Resume'} requested, but no leader confirmed it within "
            f"{timeout_seconds:.0f} s. Is the controller running in namespace "
            f'"{store.namespace}"? The next leader will apply the request.'
        ) from None
    others = confirmation.get(STILL_PAUSED_BY)
    if others and not paused:
        return f"pause ended by {username}, but admission is still paused: {others}"
    return f"admission {'paused' if paused else 'resumed'} by {username}"


async def _confirmation(store: ConfigMapStore, paused: str) -> dict[str, str] | None:
    """Read the ConfigMap; None until a leader has confirmed the last request of any user.

    Raises:
        UsageError: somebody else requested the opposite.
    """
    control = await store.get(CONTROL)
    data: dict[str, str] = (control or {}).get("data") or {}
    if data.get("paused") != paused:
        raise UsageError(
            f"somebody else changed ConfigMap {CONTROL} at the same time: "
            "check whether admission is paused, then try again"
        )
    return data if data.get("acknowledged") == data.get("request") else None

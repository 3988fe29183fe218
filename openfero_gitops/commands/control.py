"""Pause and resume admission, and sync every replica, as the current user.

Everything goes through the Kubernetes API, so permissions are plain RBAC on the ConfigMap
`openfero-control`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from openfero_gitops.cluster.config_maps import ConfigMapStore
from openfero_gitops.commands.connection import connection
from openfero_gitops.domain.control import (
    LABELS,
    NAME,
    STILL_PAUSED_BY,
    read_members,
    read_pause,
    write_pause,
)
from openfero_gitops.domain.errors import Forbidden, UsageError
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_seconds, format_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta
    from pathlib import Path

    from openfero_gitops.cluster.client import KubernetesApi
    from openfero_gitops.cluster.clock import Clock

_POLL_SECONDS: Final = 0.2
_MAX_MESSAGE_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class PauseChange:
    """A pause, or the end of one, that the leader has confirmed.

    `still_paused_by` is why admission is paused nevertheless, empty if it is not.
    """

    paused: bool
    by: str
    at: datetime
    until: datetime | None = None
    reason: str = ""
    still_paused_by: str = ""

    def __str__(self) -> str:
        """The sentence to print."""
        if self.paused:
            until = f" until {format_seconds(self.until)}" if self.until else ""
            reason = f": {self.reason}" if self.reason else ""
            return f"admission paused by {self.by}{until}{reason}"
        if self.still_paused_by:
            return (
                f"pause ended by {self.by}, but admission is still paused: {self.still_paused_by}"
            )
        return f"admission resumed by {self.by}"

    def members(self) -> dict[str, Any]:
        """The members of the JSON to print."""
        return {
            "paused": self.paused or bool(self.still_paused_by),
            "by": self.by,
            "at": format_time(self.at),
            "until": format_time(self.until) if self.until else None,
            "reason": self.reason or None,
            "stillPausedBy": self.still_paused_by or None,
        }


@dataclass(frozen=True, slots=True)
class UserSession:
    """The current user, and the ConfigMaps of the controller's namespace.

    `clock` has been compared with the API server's.
    """

    api: KubernetesApi
    store: ConfigMapStore
    username: str
    clock: Clock

    def now(self) -> datetime:
        """The time by the API server's clock, to which replicas compare theirs."""
        return self.clock.server_now()


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path | None, namespace: str | None) -> AsyncIterator[UserSession]:
    """Connect to the cluster as the current user.

    Args:
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: the controller's own; None means the context's.

    Raises:
        UsageError: there is no usable kubeconfig.
        ApiError: the API server does not answer.
    """
    async with connection(kubeconfig) as (api, clock):
        store = ConfigMapStore(api, namespace or api.default_namespace)
        yield UserSession(api, store, await api.whoami(), clock)


async def pause(
    kubeconfig: Path | None,
    namespace: str | None,
    timeout_seconds: float,
    *,
    duration: timedelta | None = None,
    reason: str = "",
) -> PauseChange:
    """Pause admission as the current user, and wait for the leader's confirmation.

    Args:
        kubeconfig: None means `$KUBECONFIG`, then `~/.kube/config`.
        namespace: the controller's own; None means the context's.
        timeout_seconds: how long to wait for the confirmation.
        duration: after which the pause ends by itself; None means that it does not.
        reason: recorded and shown.

    Raises:
        UsageError: RBAC forbids it, or no leader confirmed it in time.
        ApiError: the API server did not do it.
    """
    async with connect(kubeconfig, namespace) as session:
        at = session.now()
        request = write_pause(
            session.username,
            at,
            paused=True,
            until=at + duration if duration else None,
            reason=reason,
        )
        return await request_pause(session.store, request, timeout_seconds)


async def resume(
    kubeconfig: Path | None, namespace: str | None, timeout_seconds: float
) -> PauseChange:
    """Resume admission as the current user, and wait for the leader's confirmation.

    Arguments and errors are those of `pause`.
    """
    async with connect(kubeconfig, namespace) as session:
        request = write_pause(session.username, session.now(), paused=False)
        return await request_pause(session.store, request, timeout_seconds)


async def request_pause(
    store: ConfigMapStore, request: Mapping[str, str], timeout_seconds: float
) -> PauseChange:
    """Write what `write_pause` returned, and wait for the leader's confirmation.

    Raises:
        UsageError: RBAC forbids it, no leader confirmed it in time, or somebody else requested
            something else.
        ApiError: the API server did not do it.
    """
    pausing = read_pause(request)
    by = request["by"]
    await write_request(store, by, request)
    try:
        async with asyncio.timeout(timeout_seconds):
            while (  # noqa: ASYNC110 - a ConfigMap has no event to wait for
                still_paused_by := await _confirmation(store, request["paused"])
            ) is None:
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise UsageError(
            f"{'Pause' if pausing else 'Resume'} requested, but no leader confirmed it within "
            f"{timeout_seconds:.0f} s. Is the controller running in namespace "
            f'"{store.namespace}"? The next leader will apply the request.'
        ) from None
    return PauseChange(
        paused=pausing is not None,
        by=by,
        at=datetime.fromisoformat(request["at"]),
        until=pausing.until if pausing else None,
        reason=pausing.reason if pausing else "",
        still_paused_by="" if pausing else still_paused_by,
    )


async def write_request(store: ConfigMapStore, username: str, members: Mapping[str, str]) -> None:
    """Write members of the ConfigMap `openfero-control` as a user.

    Raises:
        UsageError: RBAC forbids it.
        ApiError: the API server did not do it.
    """
    try:
        await store.merge(NAME, members, LABELS)
    except Forbidden as error:
        raise UsageError(
            f"{username} has no permission to write ConfigMap {NAME} in namespace "
            f"{store.namespace!r}: {error}"
        ) from error


async def _confirmation(store: ConfigMapStore, paused: str) -> str | None:
    """Read what still pauses admission; None until a leader has confirmed the last request.

    Raises:
        UsageError: somebody else requested something else.
    """
    control = await store.get(NAME)
    members = read_members(control)
    if members.get("paused") != paused:
        raise UsageError(
            f"somebody else changed ConfigMap {NAME} at the same time: "
            "check whether admission is paused, then try again"
        )
    if members.get("acknowledged") != members.get("request"):
        return None
    data: dict[str, Any] = (control or {}).get("data") or {}
    return printable(str(data.get(STILL_PAUSED_BY, "")), _MAX_MESSAGE_CHARACTERS)

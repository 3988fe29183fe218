"""Removes members of the shared ConfigMap whose replicas no longer exist.

Replicas come and go, with other names: what they wrote must not fill the ConfigMap.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.domain.control import NAME
from openfero_gitops.domain.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

_MAX_AGE: Final = timedelta(hours=1)


def stale_members(
    times: Mapping[str, datetime | None], now: datetime, max_members: int
) -> list[str]:
    """Return the keys of members that are to be removed.

    These are the ones that are older than an hour or damaged (their time is None), and the oldest
    ones beyond `max_members`.
    """
    oldest = now - _MAX_AGE
    stale = [key for key, at in times.items() if at is None or at < oldest]
    recent = sorted((at, key) for key, at in times.items() if at is not None and at >= oldest)
    return stale + [key for _, key in recent[: max(len(recent) - max_members, 0)]]


async def remove_members(store: ConfigMaps, members: list[str]) -> None:
    """Remove members; what cannot be removed stays until the next time."""
    if not members:
        return
    try:
        await store.patch(NAME, [{"op": "remove", "path": f"/data/{key}"} for key in members])
    except ApiError as error:  # most likely another replica removed one of them
        _log.debug("old members not removed", configmap=NAME, error=str(error))

"""Syncs that somebody asks for: a push hook, SIGHUP, or another replica that was asked.

However often they ask, one sync is under way and one more waits. A hook reaches one replica alone,
so that one writes down that it was asked (`openfero-control`), and the others, which read there
every few seconds anyway, follow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from openfero_gitops.domain.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)

#: Seconds between two syncs that are asked for: a flood of hooks is answered by few of them.
_APART: Final = 2.0


class Notice(Protocol):
    """Where replicas tell each other that a sync was asked for."""

    async def ask_for_sync(self, by: str) -> None:
        """Write it down; raises ApiError."""
        ...


class Asked:
    """Passes on that a sync was asked for."""

    def __init__(
        self,
        *,
        sync: Callable[[], None],
        notice: Notice,
        identity: str,
        wanted: asyncio.Event,
    ) -> None:
        """Take what starts a sync here, where the other replicas read of it, and who asks."""
        self._sync = sync
        self._notice = notice
        self._identity = identity
        self._asked = wanted

    def ask(self) -> None:
        """Ask for a sync here and on the other replicas; returns at once."""
        self._asked.set()

    async def run(self) -> None:
        """Pass on until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._sync()
            try:
                await self._notice.ask_for_sync(self._identity)
            except ApiError as error:
                # They sync at their interval.
                _log.info("the other replicas were not told of a sync", error=str(error))
            await asyncio.sleep(_APART)

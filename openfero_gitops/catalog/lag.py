"""Whether this replica has come as far as the leader, which mirrors what it has in force.

Every replica fetches Git itself, so one that cannot is behind without knowing it; the mirror tells.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.catalog.mirror import HEAD, read_revision
from openfero_gitops.domain.errors import ApiError, SourceError
from openfero_gitops.domain.sync import Standing, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.ports import ConfigMaps, History

_log = structlog.get_logger(__name__)

#: Seconds between two looks.
_LOOK: Final = 10.0
_OUT_OF_STEP: Final = frozenset({Step.BEHIND, Step.APART})


class Comparer:
    """Compares what is in force here with what the leader has mirrored."""

    def __init__(
        self,
        *,
        store: ConfigMaps,
        history: History,
        catalog: Callable[[], Catalog | None],
        now: Callable[[], datetime],
        patience: timedelta,
    ) -> None:
        """Take what is compared; nothing is started.

        `patience` is how long replicas may differ before it is told as trouble.
        """
        self._store = store
        self._history = history
        self._catalog = catalog
        self._now = now
        self._patience = patience
        #: None where nothing is mirrored, or nothing in force.
        self.standing: Standing | None = None

    @property
    def trouble(self) -> str:
        """What is amiss, empty where this replica keeps up."""
        standing = self.standing
        if standing is None or standing.step not in _OUT_OF_STEP:
            return ""
        if self._now() - standing.since < self._patience:
            return ""
        how = "behind" if standing.step is Step.BEHIND else "on another history than"
        return (
            f"this replica is {how} the leader, which has commit {standing.leader[:12]} in force; "
            f"they have been out of step since {standing.since:%Y-%m-%dT%H:%M:%SZ}"
        )

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """Look once; where the mirror cannot be read, the last answer stands."""
        try:
            head = await self._store.get(HEAD)
            leader = read_revision(head).commit if head is not None else ""
        except (ApiError, SourceError) as error:
            _log.debug("the leader's revision could not be read", error=str(error))
            return
        catalog = self._catalog()
        if not leader or catalog is None:
            self.standing = None
            return
        step = await self._step(catalog.revision.commit, leader)
        before = self.standing
        # Behind an ever newer commit, or on a history that first looked like the leader's own, is
        # out of step all the while.
        if before is not None and (before.step is step or {before.step, step} <= _OUT_OF_STEP):
            since = before.since
        else:
            since = self._now()
        self.standing = Standing(step, leader, since)
        if before is not None and before.step is not step:
            _log.info("beside the leader", step=step.value, leader=leader)

    async def _step(self, own: str, leader: str) -> Step:
        if own == leader:
            return Step.SAME
        # (Replicas differ for a moment at every commit: that is no reason to fetch all history.)
        try:
            if await self._history.is_ancestor(leader, own, deepen=False):
                return Step.AHEAD  # it is about to be mirrored, or the leader is behind
        except SourceError:
            return Step.APART
        try:
            behind = await self._history.is_ancestor(own, leader, deepen=False)
        except SourceError:
            return Step.BEHIND  # of a commit that was not fetched here yet
        return Step.BEHIND if behind else Step.APART

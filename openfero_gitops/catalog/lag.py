"""Whether this replica has activated the same commit as the leader.

Every replica fetches Git itself, so a replica that cannot fetch does not know that it lags; the
mirror has the leader's commit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.catalog.mirror import HEAD, read_history, read_revision
from openfero_gitops.catalog.revisions import RevisionHistory
from openfero_gitops.domain.errors import ApiError, SourceError
from openfero_gitops.domain.location import Location, same_repository
from openfero_gitops.domain.sync import LagState, ReplicaLag

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.ports import ConfigMaps, History

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 30.0
_OUT_OF_SYNC: Final = frozenset({LagState.BEHIND, LagState.APART})


class LagMonitor:
    """Compares the active commit of this replica with the one that the leader mirrored."""

    def __init__(
        self,
        *,
        store: ConfigMaps,
        history: History,
        catalog: Callable[[], Catalog | None],
        now: Callable[[], datetime],
        tolerance: timedelta,
    ) -> None:
        """Prepare; a difference is reported as a problem after `tolerance`."""
        self._store = store
        self._history = history
        self._catalog = catalog
        self._now = now
        self._tolerance = tolerance
        #: When which revision was active on the leader, as the leader recorded it.
        self.history = RevisionHistory()
        #: None if nothing is mirrored or no catalog is active.
        self.lag: ReplicaLag | None = None

    @property
    def message(self) -> str:
        """What is wrong; empty while this replica keeps up."""
        lag = self.lag
        if lag is None or lag.state not in _OUT_OF_SYNC:
            return ""
        if self._now() - lag.since < self._tolerance:
            return ""
        since = f"they have differed since {lag.since:%Y-%m-%dT%H:%M:%SZ}"
        if lag.elsewhere:
            catalog = self._catalog()
            own = f" {catalog.revision.repository}" if catalog else " another repository"
            return f"this replica follows{own}, but the leader follows {lag.elsewhere}; {since}"
        relation = "is behind" if lag.state is LagState.BEHIND else "has another history than"
        return (
            f"this replica {relation} the leader, whose active commit is {lag.leader[:12]}; {since}"
        )

    async def run(self) -> None:
        """Compare repeatedly, until cancelled."""
        while True:
            await self.compare()
            await asyncio.sleep(_POLL_SECONDS)

    async def compare(self) -> None:
        """Compare once; if the mirror cannot be read, the previous result is kept."""
        try:
            head = await self._store.get(HEAD)
            revision = read_revision(head) if head is not None else None
            self.history = read_history(head) if head is not None else RevisionHistory()
        except (ApiError, SourceError) as error:
            _log.debug("cannot read the leader's revision", error=str(error))
            return
        catalog = self._catalog()
        if revision is None or not revision.commit or catalog is None:
            self.lag = None
            return
        leader = revision.commit
        elsewhere = ""
        if not same_repository(revision.repository, catalog.revision.repository):
            elsewhere = str(Location(revision.repository, revision.ref, ""))
        state = LagState.APART if elsewhere else await self._state(catalog.revision.commit, leader)
        before = self.lag
        # A replica that is behind ever newer commits, or whose commit first looked like the
        # leader's history and then did not, has differed all the time.
        if before is not None and (before.state is state or {before.state, state} <= _OUT_OF_SYNC):
            since = before.since
        else:
            since = self._now()
        self.lag = ReplicaLag(state, leader, since, elsewhere)
        if before is not None and before.state is not state:
            _log.info("lag behind the leader changed", state=state.value, leader=leader)

    async def _state(self, own: str, leader: str) -> LagState:
        if own == leader:
            return LagState.SAME
        # Replicas differ for a moment at every commit: that is no reason to fetch all history.
        try:
            if await self._history.is_ancestor(leader, own, deepen=False):
                return LagState.AHEAD  # it is about to be mirrored, or the leader is behind
        except SourceError:
            return LagState.APART
        try:
            behind = await self._history.is_ancestor(own, leader, deepen=False)
        except SourceError:
            return LagState.BEHIND  # of a commit that was not fetched here yet
        return LagState.BEHIND if behind else LagState.APART

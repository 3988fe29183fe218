"""What the leader tells people of: each remediation's turns, and what became of each sync.

It looks at what others have done (the view, the last decisions, the sync) and takes no part in
it: nothing waits for it. What was so when its term began was told by the leader before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.admission.decide import Wait
from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.event import Event, Subject
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sync import SyncStatus
from openfero_gitops.events.events import of_change, of_loss, of_sync, of_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import ConfigMaps, Counts

_log = structlog.get_logger(__name__)

# Seconds.
_GATHER: Final = 0.5
_LOOK_AGAIN: Final = 2.0


class Announcer:
    """Tells of changes for as long as it leads."""

    def __init__(
        self,
        *,
        view: View,
        decided: Callable[[], Iterable[tuple[Remediation, Decision]]],
        syncer: Syncer,
        store: ConfigMaps,
        counts: Counts,
        tell: Callable[[Event], None],
    ) -> None:
        """Take what is looked at, and who is told; nothing is started.

        `decided` gives the leader's last decisions on what waits.
        """
        self._view = view
        self._decided = decided
        self._syncer = syncer
        self._store = store
        self._counts = counts
        self._tell = tell

    async def run(self) -> None:
        """Tell until cancelled."""
        news = self._view.subscribe()
        try:
            known: dict[str, Remediation] | None = None
            waits: dict[str, Reason] = {}
            synced: tuple[SyncStatus, Catalog | None] = (SyncStatus(), None)
            while True:
                news.clear()
                if known is None and self._view.whole:
                    known = {one.uid: one for one in self._view}
                elif known is not None:
                    known = self._tell_changes(known)
                    waits = self._tell_waits(waits)
                synced = await self._tell_sync(synced)
                try:
                    async with asyncio.timeout(_LOOK_AGAIN):
                        await news.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_GATHER)
        finally:
            self._view.unsubscribe(news)
            self._counts.waiting({})

    def _tell_changes(self, before: Mapping[str, Remediation]) -> dict[str, Remediation]:
        now = {one.uid: one for one in self._view}
        for uid, one in now.items():
            was = before.get(uid)
            if was is not one:
                for event in of_change(was, one):
                    self._tell(event)
        for uid in before.keys() - now.keys():
            if (loss := of_loss(before[uid])) is not None:
                self._tell(loss)
        return now

    def _tell_waits(self, before: Mapping[str, Reason]) -> dict[str, Reason]:
        """Tell once of each reason, not at each look."""
        waits: dict[str, Reason] = {}
        for judged, decision in self._decided():
            one = self._view.get(judged.key)
            if not isinstance(decision, Wait) or one is None or not one.waiting:
                continue
            if decision.reason is Reason.APPROVAL and one.phase is not Phase.AWAITING_APPROVAL:
                continue  # the API server will not have it changed now: that is in the log
            waits[one.uid] = decision.reason
            if before.get(one.uid) is not decision.reason:
                self._tell(of_wait(one, decision))
        self._counts.waiting(Counter(waits.values()))
        return waits

    async def _tell_sync(
        self, before: tuple[SyncStatus, Catalog | None]
    ) -> tuple[SyncStatus, Catalog | None]:
        after = (self._syncer.status, self._syncer.catalog)
        if after[0] is before[0]:
            return after
        about = Subject("v1", "ConfigMap", self._store.namespace, HEAD)
        if not list(of_sync(before, after, about)):
            return after
        try:
            head = await self._store.get(HEAD)
        except ApiError as error:
            _log.info("the catalog's ConfigMap cannot be read", error=str(error))
            return before
        uid = head["metadata"]["uid"] if head else ""
        about = Subject("v1", "ConfigMap", self._store.namespace, HEAD, uid)
        for event in of_sync(before, after, about):
            self._tell(event)
        return after

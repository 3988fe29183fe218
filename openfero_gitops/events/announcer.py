"""Finds what the leader reports as Events: changes of remediations, waits, and syncs.

It only reads (the view, the last decisions, the sync), and nothing waits for it. The state at the
start of its term is not reported: an earlier leader did.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.admission.decide import Wait
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.background import wait_for_event
from openfero_gitops.catalog.mirror import HEAD
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.event import Event, ObjectReference
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.sync import SyncStatus
from openfero_gitops.events.events import (
    of_change,
    of_foreign,
    of_loss,
    of_pause,
    of_sync,
    of_wait,
)
from openfero_gitops.jobs.changes import JobChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.admission.pause import Control
    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.jobs.view import View
    from openfero_gitops.ports import ConfigMaps, Counts

_log = structlog.get_logger(__name__)

#: Changes within this time are reported together.
_BATCH_WINDOW_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 2.0
#: Anybody may create foreign Jobs, so they must not decide how many Events are written.
_MAX_FOREIGN_EVENTS: Final = 10
#: Until the leader knows whether admission is paused.
_UNKNOWN: Final = Pause(PauseCause.UNKNOWN, "")


class Announcer:
    """Reports changes while this replica leads."""

    def __init__(
        self,
        *,
        view: View,
        decisions: Callable[[], Iterable[tuple[Remediation, Decision]]],
        control: Control,
        syncer: Syncer,
        store: ConfigMaps,
        counts: Counts,
        record: Callable[[Event], None],
        now: Callable[[], datetime],
    ) -> None:
        """Take what is read, and where events go; `decisions` are the leader's last ones."""
        self._view = view
        self._decisions = decisions
        self._control = control
        self._syncer = syncer
        self._store = store
        self._counts = counts
        self._record = record
        self._now = now

    async def run(self) -> None:
        """Report until cancelled."""
        changed = self._view.subscribe()
        record = self._view.record_changes()
        started = self._now()
        try:
            complete = False
            waits: dict[str, Reason] = {}
            foreign: set[str] = set()
            synced: tuple[SyncStatus, Catalog | None] = (SyncStatus(), None)
            pause: Pause | None = _UNKNOWN
            while True:
                changed.clear()
                if not complete and self._view.complete:
                    complete = True
                    record.take()
                    # (A Job may be created and admitted before the first look at all of them.)
                    new = [JobChange(None, job) for job in self._view if job.received_at >= started]
                    self._report_changes(new)
                    foreign = {job.uid for job in self._view.foreign}
                elif complete:
                    self._report_changes(record.take())
                    foreign = self._report_foreign(foreign)
                    waits = self._report_waits(waits)
                synced = await self._report_sync(synced)
                pause = self._report_pause(pause)
                if await wait_for_event(changed, _POLL_SECONDS):
                    await asyncio.sleep(_BATCH_WINDOW_SECONDS)
        finally:
            self._view.unsubscribe(changed)
            self._view.end_record(record)
            self._counts.waiting({})

    def _report_changes(self, changes: Iterable[JobChange]) -> None:
        foreign = {job.uid for job in self._view.foreign}
        for before, after in changes:
            if after is not None:
                for event in of_change(before, after):
                    self._record(event)
            elif before is None or before.uid in foreign:
                continue
            elif (loss := of_loss(before)) is not None:
                self._record(loss)

    def _report_foreign(self, before: set[str]) -> set[str]:
        """Report each foreign Job once; of very many at once, the log and the pages have the rest.

        Returns the uids of all that are there now.
        """
        jobs = self._view.foreign
        for job in [job for job in jobs if job.uid not in before][:_MAX_FOREIGN_EVENTS]:
            self._record(of_foreign(job))
        return {job.uid for job in jobs}

    def _report_waits(self, before: Mapping[str, Reason]) -> dict[str, Reason]:
        """Report each reason of a wait once."""
        waits: dict[str, Reason] = {}
        for judged, decision in self._decisions():
            current = self._view.get(judged.key)
            if not isinstance(decision, Wait) or current is None or not current.waiting:
                continue
            (remediation,) = with_requirements([current], self._syncer.catalog)
            if (
                decision.reason is Reason.APPROVAL
                and remediation.phase is not Phase.AWAITING_APPROVAL
            ):
                continue  # it is blocked since the API server rejects changes, which is logged
            waits[remediation.uid] = decision.reason
            if before.get(remediation.uid) is not decision.reason:
                self._record(of_wait(remediation, decision))
        self._counts.waiting(Counter(waits.values()))
        return waits

    def _report_pause(self, before: Pause | None) -> Pause | None:
        after = self._control.pause
        if not self._control.was_read or (after and after.cause is PauseCause.UNKNOWN):
            return before
        if before is not _UNKNOWN:
            about, author = self._control.reference, self._control.author
            if (event := of_pause(before, after, author, about, self._now())) is not None:
                self._record(event)
        return after

    async def _report_sync(
        self, before: tuple[SyncStatus, Catalog | None]
    ) -> tuple[SyncStatus, Catalog | None]:
        after = (self._syncer.status, self._syncer.catalog)
        if after[0] is before[0]:
            return after
        about = ObjectReference("v1", "ConfigMap", self._store.namespace, HEAD)
        if not list(of_sync(before, after, about)):
            return after
        try:
            head = await self._store.get(HEAD)
        except ApiError as error:
            _log.info("cannot read the catalog's ConfigMap", configmap=HEAD, error=str(error))
            return before
        uid = head["metadata"]["uid"] if head else ""
        about = ObjectReference("v1", "ConfigMap", self._store.namespace, HEAD, uid)
        for event in of_sync(before, after, about):
            self._record(event)
        return after

"""Requests to sync: by a push hook or SIGHUP on this replica, or by anybody on all replicas.

A push hook or SIGHUP reaches one replica, which records the request in the ConfigMap
`openfero-control`; the others read it there within seconds. `openfero-gitops sync` writes a request
itself. It waits for an answer of each replica, which the replica writes when it has read the
request and when a sync has ended that began after that.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.catalog.replica_members import remove_members, stale_members
from openfero_gitops.domain.control import LABELS, NAME
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.sync_answer import (
    SyncAnswer,
    answer_key,
    read_answers,
    write_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from openfero_gitops.catalog.syncer import Syncer
    from openfero_gitops.domain.catalog import Revision
    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

#: Between two requested syncs; limits the effect of a flood of push hooks.
_SECONDS_BETWEEN_REQUESTS: Final = 2.0
_MAX_WRITES: Final = 5  # of one answer
_RETRY_SECONDS: Final = 2.0
_MAX_ANSWERS: Final = 100


class SyncRequests:
    """Handles requests for a sync, here and on the other replicas."""

    def __init__(
        self,
        *,
        syncer: Syncer,
        sync: Callable[[], None],
        store: ConfigMaps,
        identity: str,
        now: Callable[[], datetime],
        requested: asyncio.Event,
    ) -> None:
        """Prepare for requests; `run` handles them.

        `sync` lets `work` run soon, now or after the current run. `identity` is the name of this
        replica. Setting `requested` is a request.
        """
        self._syncer = syncer
        self._sync = sync
        self._store = store
        self._identity = identity
        self._now = now
        self._requested = requested
        #: The last requests that were read; None before the first read.
        self._read: tuple[str, str] | None = None
        self._own_request = ""
        self._last_read = ""  # the last request that is answered
        self._unanswered = ""  # a request whose sync has not begun
        self._answer: SyncAnswer | None = None  # to be written
        self._answer_changed = asyncio.Event()

    def request(self) -> None:
        """Request a sync here and on the other replicas; returns at once."""
        self._requested.set()

    def observe(self, members: Mapping[str, str]) -> None:
        """Handle the requests in the ConfigMap; those from before the first read are ignored."""
        before = self._read
        self._read = request, with_answer = members.get("sync", ""), members.get("sync-request", "")
        if before is None:
            return
        if with_answer not in ("", before[1]):
            self._begin(with_answer)
        elif request not in ("", before[0], self._own_request, with_answer):
            self._sync()

    async def work(self) -> None:
        """Sync once, and answer the request that was read before, if any."""
        request, self._unanswered = self._unanswered, ""
        before = self._syncer.status.revision
        try:
            await self._syncer.sync()
        except Exception as error:
            self._finish(request, before, f"unexpected {type(error).__name__}: {error}", 0.0)
            raise
        status = self._syncer.status
        self._finish(request, before, status.error or "", status.seconds)

    async def run(self) -> None:
        """Handle requests and write answers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._handle_requests(), name="sync requests")
            tasks.create_task(self._write_answers(), name="sync answers")

    async def _handle_requests(self) -> None:
        while True:
            await self._requested.wait()
            self._requested.clear()
            self._sync()
            try:
                await self._publish()
            except ApiError as error:
                # The other replicas sync at their interval.
                _log.info("sync request not published to other replicas", error=str(error))
            await asyncio.sleep(_SECONDS_BETWEEN_REQUESTS)

    async def _publish(self) -> None:
        self._own_request = f"{uuid.uuid4().hex} {self._identity}"
        await self._store.merge(NAME, {"sync": self._own_request}, LABELS)

    def _begin(self, request: str) -> None:
        self._last_read = request
        answer = SyncAnswer(self._identity, request, self._now())
        if block := self._syncer.block_seconds:
            status = self._syncer.status
            commit = status.revision.commit if status.revision else ""
            error = (
                f"the Git server accepts no requests for another {block:.0f} s (Retry-After); the "
                "replica syncs after that"
            )
            answer = replace(answer, finished=True, before=commit, commit=commit, error=error)
        else:
            self._unanswered = request
        self._put_answer(answer)
        self._sync()

    def _finish(self, request: str, before: Revision | None, error: str, seconds: float) -> None:
        """Answer a request, unless a later one was read: the answer to that counts for both."""
        if not request or request != self._last_read:
            return
        after = self._syncer.status.revision
        self._put_answer(
            SyncAnswer(
                self._identity,
                request,
                self._now(),
                finished=True,
                before=before.commit if before else "",
                commit=after.commit if after else "",
                error=error,
                seconds=seconds,
            )
        )

    def _put_answer(self, answer: SyncAnswer) -> None:
        self._answer = answer
        self._answer_changed.set()

    async def _write_answers(self) -> None:
        while True:
            await self._answer_changed.wait()
            self._answer_changed.clear()
            for _ in range(_MAX_WRITES):
                answer = self._answer  # a later one replaces one that could not be written
                if answer is None:
                    break
                try:
                    await self._write(answer)
                except ApiError as error:
                    _log.info("answer to a sync request not written", error=str(error))
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if self._answer is answer:
                    self._answer = None

    async def _write(self, answer: SyncAnswer) -> None:
        own = answer_key(self._identity)
        await self._store.merge(NAME, {own: write_answer(answer)}, LABELS)
        if answer.finished:
            return
        answers = read_answers(await self._store.get(NAME))
        times = {key: other.at if other else None for key, other in answers.items() if key != own}
        await remove_members(self._store, stale_members(times, answer.at, _MAX_ANSWERS - 1))

"""Shares the record of unanswered alerts between replicas.

Each replica writes what was delivered to it to a ConfigMap, its share, and reads those of the
others every two seconds. A share is never changed: a new one is created under a name that is the
digest of its content, then the old one is deleted. So a replica that dies at any moment leaves at
least one, and a replica that starts reads what it wrote in an earlier life like any other share.

The leader takes shares that have not been replaced for ten minutes over into its own, and deletes
them once its own is written. Their replicas are dead, or nothing was delivered to them; in that
case they write everything again with the next alert. Two leaders at once lose nothing either.

New alerts are written at once, and mere repetitions every 30 seconds; both less often if the share
is large. Deliveries never wait for any of this.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.delivery.unanswered import (
    EMPTY,
    RETENTION,
    UnansweredRecord,
    has_news,
    has_no_job,
    merge,
    merge_all,
    recent,
    record_of,
    trimmed,
)
from openfero_gitops.delivery.unanswered_text import Unreadable, read_record, write_record
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError, Conflict
from openfero_gitops.domain.text import printable, without_surrogates
from openfero_gitops.domain.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from openfero_gitops.domain.answer import Answer, Item
    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

SELECTOR: Final = f"{keys.ALERTS}=true"
_LABELS: Final = {keys.ALERTS: "true", keys.MANAGED_BY: keys.MANAGER}
_PREFIX: Final = "openfero-alerts-"
_NAME: Final = re.compile(f"{_PREFIX}[0-9a-f]{{32}}")
_DIGEST_CHARACTERS: Final = 32
_MEMBER: Final = "alerts.json.zlib"
#: Alerts that were delivered and are not recorded yet; more are not recorded.
_MAX_QUEUED: Final = 10_000
#: Alerts that are recorded before other tasks run: a few milliseconds.
_ALERTS_PER_TURN: Final = 100
#: After this time what was not heard for too long is removed, if nothing else changes the record.
_MERGE_SECONDS: Final = 60.0
#: Shares that are read, the newest first: far more than there are replicas.
_MAX_SHARES: Final = 50


@dataclass(frozen=True, slots=True)
class SharingPace:
    """How often a replica reads and writes.

    Args:
        poll: between two reads of the shares; also the shortest time between two writes.
        repetitions: between two writes if no new alert came.
        fold_after: the age at which the leader takes over a share.
        bytes_per_second: what a replica writes at most, on average.
    """

    poll: timedelta = timedelta(seconds=2)
    repetitions: timedelta = timedelta(seconds=30)
    fold_after: timedelta = timedelta(minutes=10)
    bytes_per_second: int = 50_000


@dataclass(frozen=True, slots=True)
class _Share:
    """A ConfigMap; `record` is None if it cannot be read."""

    created: datetime | None
    record: UnansweredRecord | None


class UnansweredAlerts:
    """Records the alerts that get no Job, on all replicas together."""

    def __init__(
        self,
        *,
        store: ConfigMaps,
        identity: str,
        now: Callable[[], datetime],
        is_leading: Callable[[], bool],
        replica_labels: frozenset[str],
        pace: SharingPace | None = None,
    ) -> None:
        """Take where shares are, the name of this replica, UTC, and whether this replica leads."""
        self._store = store
        self._identity = identity
        self._now = now
        self._is_leading = is_leading
        self._replica_labels = replica_labels
        self._pace = pace or SharingPace()
        self._queue: deque[Item] = deque(maxlen=_MAX_QUEUED)
        self._queued = asyncio.Event()
        self._own = EMPTY
        self._others: dict[str, _Share] = {}
        self._merged = EMPTY
        self._listeners: list[Callable[[], None]] = []
        self._is_changed = False  # since the share was written
        self._news = asyncio.Event()
        self._written_at: float | None = None  # by the event loop's clock
        self._written_bytes = 0
        self._share = ""  # the name of the share that was written last
        self._folded: set[str] = set()  # the shares whose content is in the own record
        self._superseded: set[str] = set()  # those whose content is in `_share`
        self._listed: dict[str, dict[str, Any]] = {}  # the metadata of all shares
        self._merged_at = -_MERGE_SECONDS  # by the event loop's clock
        self._error = OnChange(_log.warning, "alerts without a Job are not shared")

    @property
    def record(self) -> UnansweredRecord:
        """The alerts without a Job of all replicas, as far as they are known here."""
        return self._merged

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this when the record has changed."""
        self._listeners.append(listener)

    def receive(self, answer: Answer) -> None:
        """Note the answer to a delivery; it is recorded in the background."""
        before = len(self._queue)
        self._queue.extend(item for item in answer.items if has_no_job(item))
        if len(self._queue) > before or before:
            self._queued.set()

    async def run(self) -> None:
        """Record and share until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._record_queued(), name="record unanswered alerts")
            tasks.create_task(self._share_always(), name="share unanswered alerts")

    async def flush(self, timeout_seconds: float) -> None:
        """Write what is not written yet, if that is possible within this time."""
        while self._queue:
            self._record_turn()
        try:
            async with asyncio.timeout(timeout_seconds):
                if self._is_changed:
                    await self._write()
                await self._delete_superseded()
        except (TimeoutError, ApiError) as error:
            _log.info("alerts without a Job not written before the end", error=str(error))

    async def _record_queued(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                self._record_turn()
                await asyncio.sleep(0)
            self._report_change()

    def _record_turn(self) -> None:
        items = [self._queue.popleft() for _ in range(min(len(self._queue), _ALERTS_PER_TURN))]
        heard = record_of(items, self._now(), self._replica_labels)
        if has_news(self._own, heard):
            self._news.set()
        self._own = trimmed(merge(self._own, heard))
        self._merged = trimmed(merge(self._merged, heard))
        self._is_changed = True

    def _report_change(self) -> None:
        for listener in self._listeners:
            listener()

    async def _share_always(self) -> None:
        while True:
            try:
                await self._share_once()
            except ApiError as error:
                self._error.set(str(error))
            else:
                self._error.clear()
            await asyncio.sleep(self._pace.poll.total_seconds())

    async def _share_once(self) -> None:
        await self._read()
        if self._is_leading():
            self._take_over()
        if self._is_write_due():
            await self._write()
        await self._delete_superseded()

    async def _read(self) -> None:
        """Read the shares that are new, and forget those that do not exist any more."""
        listed: dict[str, dict[str, Any]] = {}

        def read(config_map: dict[str, Any]) -> None:
            metadata = config_map["metadata"]
            if _NAME.fullmatch(metadata["name"]):
                listed[metadata["name"]] = metadata

        await self._store.labelled(SELECTOR, read)
        self._listed = listed
        newest = sorted(listed, key=lambda name: listed[name]["creationTimestamp"], reverse=True)
        wanted = [name for name in newest[:_MAX_SHARES] if name != self._share]
        others = {name: self._others[name] for name in wanted if name in self._others}
        for name in wanted:
            if name not in others:
                config_map = await self._store.get(name)
                if config_map is not None:
                    others[name] = await asyncio.to_thread(_read_share, config_map)
        elapsed = asyncio.get_running_loop().time() - self._merged_at
        if others.keys() != self._others.keys() or elapsed >= _MERGE_SECONDS:
            self._others = others
            await self._merge()

    async def _merge(self) -> None:
        """Put the record together again, without what was not heard for too long."""
        self._merged_at = asyncio.get_running_loop().time()
        now = self._now()
        own = recent(self._own, now)
        if len(own.kinds) < len(self._own.kinds):
            self._is_changed = True
        self._own = own
        records = [share.record for share in self._others.values() if share.record is not None]
        # In a thread, as it may take 0.1 s. What is recorded meanwhile is in the own record.
        merged = await asyncio.to_thread(merge_all, [own, *records], now)
        self._merged = trimmed(merge(merged, self._own))
        self._report_change()

    def _take_over(self) -> None:
        """Take over the shares that other replicas have not replaced for a long time."""
        now = self._now()
        for name, share in self._others.items():
            age = now - share.created if share.created else timedelta()
            if name in self._folded or age < self._pace.fold_after:
                continue
            if share.record is not None:
                self._own = recent(trimmed(merge(self._own, share.record)), now)
            elif age < RETENTION:
                # Perhaps a newer version of the controller wrote it, which is being installed.
                continue
            self._folded.add(name)
            self._is_changed = True
            self._news.set()

    def _is_write_due(self) -> bool:
        if not self._is_changed:
            return False
        if self._written_at is None:
            return True
        interval = self._pace.poll if self._news.is_set() else self._pace.repetitions
        seconds = max(interval.total_seconds(), self._written_bytes / self._pace.bytes_per_second)
        return asyncio.get_running_loop().time() - self._written_at >= seconds

    async def _write(self) -> None:
        """Create a share with everything in the own record; the last one is superseded."""
        own, folded = recent(self._own, self._now()), set(self._folded)
        self._is_changed = False
        self._news.clear()
        name = ""
        try:
            data, written = await asyncio.to_thread(write_record, own)
            if written.kinds:
                name = _name(self._identity, data)
                await self._store.create(_config_map(name, self._identity, data))
        except BaseException:
            self._is_changed = True
            self._news.set()
            raise
        self._written_at = asyncio.get_running_loop().time()
        self._written_bytes = len(data)
        self._superseded = (self._superseded | folded | {self._share}) - {name, ""}
        self._share = name

    async def _delete_superseded(self) -> None:
        """Delete the shares whose content is in another one that is written."""
        for name in sorted(self._superseded & self._listed.keys()):
            try:
                await self._store.delete({"metadata": self._listed[name]})
            except Conflict:  # it was changed by somebody; it is listed again
                continue
        self._superseded &= self._listed.keys()
        self._folded &= self._listed.keys()


def _name(identity: str, data: bytes) -> str:
    digest = hashlib.sha256(identity.encode(errors="replace") + b"\0" + data).hexdigest()
    return _PREFIX + digest[:_DIGEST_CHARACTERS]


def _config_map(name: str, identity: str, data: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": _LABELS,
            "annotations": {keys.RECEIVED_BY: without_surrogates(identity)},
        },
        "immutable": True,
        "binaryData": {_MEMBER: base64.b64encode(data).decode()},
    }


def _read_share(config_map: dict[str, Any]) -> _Share:
    """Read a ConfigMap, which anybody with access may have written."""
    metadata = config_map["metadata"]
    created = parse_time(metadata.get("creationTimestamp"))
    try:
        text = (config_map.get("binaryData") or {}).get(_MEMBER, "")
        return _Share(created, read_record(base64.b64decode(text, validate=True)))
    except (Unreadable, binascii.Error) as error:
        _log.warning(
            "a ConfigMap with alerts cannot be read, and is ignored",
            configmap=metadata["name"],
            error=printable(str(error)),
        )
        return _Share(created, None)

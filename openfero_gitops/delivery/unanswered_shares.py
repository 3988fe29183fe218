"""Shares the record of unanswered alerts between replicas.

Each replica writes what was delivered to it to a ConfigMap, its share, and reads those of the
others every three seconds. A share is never changed: a new one is created under a name that is the
digest of its content, then the old one is deleted. So a replica that dies at any moment leaves at
least one, and a replica that starts reads what it wrote in an earlier life like any other share.

The leader takes shares that have not been replaced for ten minutes over into its own, and deletes
them once its own is written. Their replicas are dead, or nothing was delivered to them; in that
case they write everything again with the next alert. Two leaders at once lose nothing either.

New alerts are written within two seconds, so that all replicas know them within five seconds;
mere repetitions are written every 30 seconds. If the share is too large to be written that often,
a small one with the new alerts alone is written first: an *addition*, which the next complete share
supersedes. A replica that has written as much as it may in 30 seconds, or eight additions, writes
no more of them; then new alerts are known to the others with the next complete share.

Deliveries never wait for any of this. Records are values, so that large ones can be put together
in a thread; what comes meanwhile is merged afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections import deque
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.background import OnChange, wait_for_event
from openfero_gitops.delivery.unanswered import (
    EMPTY,
    RETENTION,
    UnansweredRecord,
    has_news,
    has_no_job,
    merge,
    merge_all,
    record_of,
    seconds_of,
    trimmed,
)
from openfero_gitops.delivery.unanswered_text import UnreadableShare, read_record, write_record
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError, Conflict
from openfero_gitops.domain.text import printable, without_surrogates
from openfero_gitops.domain.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
#: Alerts that are recorded before the limits of a record are applied again, which takes longer.
_ALERTS_PER_TRIMMING: Final = 1000
#: What is written before complete shares may be: as much as the average rate allows in this time.
_MAX_DEBT_SECONDS: Final = 30.0
#: Without new alerts the next read is so many polls later than with some.
_IDLE_POLLS: Final = 0.5
#: After this time what was not heard for too long is removed, if nothing else changes the record.
_MERGE_SECONDS: Final = 60.0
_MAX_ADDITIONS: Final = 8
#: Shares that are read, the newest first: more than replicas have, with all additions.
_MAX_SHARES: Final = 50


@dataclass(frozen=True, slots=True)
class SharingPace:
    """How often a replica reads and writes.

    Args:
        poll: the shortest time between two reads of the shares, and between two writes.
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
        self._has_dropped = False
        self._own = EMPTY
        self._others: dict[str, _Share] = {}
        self._merged = EMPTY
        self._is_read = False
        self._untrimmed = 0  # alerts that were recorded since the limits were applied
        # What is recorded while a thread puts records together.
        self._meanwhile: UnansweredRecord | None = None
        self._added = EMPTY  # what was recorded since something was written
        self._is_changed = False  # since the share was written
        self._news = asyncio.Event()
        self._written_at: float | None = None  # by the event loop's clock
        self._complete_due = 0.0  # when a complete share may be written, by the same clock
        self._additions: set[str] = set()  # written since the complete share
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

    @property
    def is_read(self) -> bool:
        """Whether the shares have been read since the start."""
        return self._is_read

    def receive(self, answer: Answer) -> None:
        """Note the answer to a delivery; it is recorded in the background."""
        items = [item for item in answer.items if has_no_job(item)]
        if len(self._queue) + len(items) > _MAX_QUEUED:
            if not self._has_dropped:
                _log.warning(
                    "more alerts without a Job came than can be recorded", at_once=_MAX_QUEUED
                )
            self._has_dropped = True
        self._queue.extend(items)  # (drops the first ones)
        if self._queue:
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

    def _record_turn(self) -> None:
        items = [self._queue.popleft() for _ in range(min(len(self._queue), _ALERTS_PER_TURN))]
        heard = record_of(items, self._now(), self._replica_labels)
        if self._has_dropped and not self._queue:
            heard = replace(heard, dropped_until=seconds_of(self._now()))
            self._has_dropped = False
            self._news.set()
        if has_news(self._own, heard):
            self._news.set()
        self._own, self._merged = merge(self._own, heard), merge(self._merged, heard)
        if self._meanwhile is not None:
            self._meanwhile = merge(self._meanwhile, heard)
        self._added = merge(self._added, heard)
        self._is_changed = True
        self._untrimmed += len(items)
        if self._untrimmed >= _ALERTS_PER_TRIMMING:
            self._untrimmed = 0
            self._own, self._merged = trimmed(self._own), trimmed(self._merged)
            self._added = trimmed(self._added)

    async def _share_always(self) -> None:
        while True:
            try:
                await self._share_once()
            except ApiError as error:
                self._error.set(str(error))
            else:
                self._error.clear()
            poll_seconds = self._pace.poll.total_seconds()
            await asyncio.sleep(poll_seconds)
            await wait_for_event(self._news, poll_seconds * _IDLE_POLLS)

    async def _share_once(self) -> None:
        await self._read()
        if self._is_leading():
            await self._take_over()
        await self._write_if_due()
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
        own = self._additions | {self._share}
        wanted = [name for name in newest[:_MAX_SHARES] if name not in own]
        others = {name: self._others[name] for name in wanted if name in self._others}
        for name in wanted:
            if name not in others:
                config_map = await self._store.get(name)
                if config_map is not None:
                    others[name] = await asyncio.to_thread(_read_share, config_map)
        new = [others[name] for name in others if name not in self._others]
        self._others = others
        elapsed = asyncio.get_running_loop().time() - self._merged_at
        if elapsed >= _MERGE_SECONDS:
            await self._merge_everything()
        elif new:
            # What shares that are gone had is in newer ones.
            await self._merge([self._merged, *_records(new)])
        self._is_read = True

    async def _merge_everything(self) -> None:
        """Put the record together again, without what was not heard for too long."""
        self._merged_at = asyncio.get_running_loop().time()
        before = self._own
        await self._merge_own([])
        if len(self._own.kinds) < len(before.kinds):
            self._is_changed = True
        await self._merge([self._own, *_records(self._others.values())])

    async def _merge(self, records: list[UnansweredRecord]) -> None:
        self._merged = await self._put_together(records)

    async def _merge_own(self, records: list[UnansweredRecord]) -> None:
        self._own = await self._put_together([self._own, *records])

    async def _put_together(self, records: list[UnansweredRecord]) -> UnansweredRecord:
        """Merge records in a thread, and what is recorded meanwhile."""
        self._meanwhile = EMPTY
        try:
            merged = await asyncio.to_thread(merge_all, records, self._now())
            return merge(merged, self._meanwhile)
        finally:
            self._meanwhile = None

    async def _take_over(self) -> None:
        """Take over the shares that other replicas have not replaced for a long time."""
        now = self._now()
        taken: dict[str, _Share] = {}
        for name, share in self._others.items():
            age = now - share.created if share.created else timedelta()
            if name in self._folded or age < self._pace.fold_after:
                continue
            if share.record is None and age < RETENTION:
                # Perhaps a newer version of the controller wrote it, which is being installed.
                continue
            taken[name] = share
        if taken:
            await self._merge_own(_records(taken.values()))
            self._folded |= taken.keys()
            self._is_changed = True
            self._news.set()

    async def _write_if_due(self) -> None:
        time = asyncio.get_running_loop().time()
        if not self._is_changed:
            return
        if self._written_at is not None:
            interval = self._pace.poll if self._news.is_set() else self._pace.repetitions
            if time - self._written_at < interval.total_seconds():
                return
        if time >= self._complete_due:
            await self._write()
        elif (
            self._news.is_set()
            and len(self._additions) < _MAX_ADDITIONS
            and time > self._complete_due - _MAX_DEBT_SECONDS
        ):
            await self._write_addition()

    async def _write(self) -> None:
        """Create a share with everything in the own record; the last ones are superseded."""
        folded = set(self._folded)
        self._is_changed = False
        try:
            name = await self._create(self._own)
        except BaseException:
            self._is_changed = True
            raise
        self._superseded = (self._superseded | folded | self._additions | {self._share}) - {
            name,
            "",
        }
        self._additions = set()
        self._share = name

    async def _write_addition(self) -> None:
        """Create a share with what was recorded since something was written."""
        name = await self._create(self._added)
        self._superseded.discard(name)
        self._additions |= {name} - {""}

    async def _create(self, record: UnansweredRecord) -> str:
        """Create a share and return its name, which is empty if there is nothing to write."""
        added, self._added = self._added, EMPTY
        self._news.clear()
        name = ""
        try:
            data, written = await asyncio.to_thread(_write_recent, record, self._now())
            if written.kinds:
                name = _name(self._identity, data)
                await self._store.create(_config_map(name, self._identity, data))
        except BaseException:
            self._added = merge(added, self._added)
            self._news.set()
            raise
        time = asyncio.get_running_loop().time()
        self._written_at = time
        debt = len(data) / self._pace.bytes_per_second
        self._complete_due = max(self._complete_due, time) + debt
        return name

    async def _delete_superseded(self) -> None:
        """Delete the shares whose content is in another one that is written."""
        for name in sorted(self._superseded & self._listed.keys()):
            try:
                await self._store.delete({"metadata": self._listed[name]})
            except Conflict:  # it was changed by somebody; it is listed again
                continue
        self._superseded &= self._listed.keys()
        self._folded &= self._listed.keys()


def _records(shares: Iterable[_Share]) -> list[UnansweredRecord]:
    return [share.record for share in shares if share.record is not None]


def _write_recent(record: UnansweredRecord, now: datetime) -> tuple[bytes, UnansweredRecord]:
    return write_record(merge_all([record], now))


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
    except (UnreadableShare, binascii.Error) as error:
        _log.warning(
            "a ConfigMap with alerts cannot be read, and is ignored",
            configmap=metadata["name"],
            error=printable(str(error)),
        )
        return _Share(created, None)

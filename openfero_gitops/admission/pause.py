"""ConfigMap `openfero-control`: pauses admission, and passes requests between replicas.

If the ConfigMap cannot be read, the last answer stays valid. A leader that has not read it in
its own term treats admission as paused: it cannot know that it is not.

To wait for a pause to take effect, write a new `request` with it: the leader copies that to
`acknowledged` as soon as no Job can start any more that the pause forbids. A replica that
receives a sync request writes `sync`, and the others sync too.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.text import printable
from openfero_gitops.domain.timestamp import format_seconds, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

NAME: Final = "openfero-control"
LABELS: Final = {keys.MANAGED_BY: keys.MANAGER}
#: Written by the leader beside `acknowledged`: the message of a pause in Git, or empty.
STILL_PAUSED_BY: Final = "still-paused-by"
#: Values of `paused` that do not pause; anything else does.
_NOT_PAUSED: Final = ("", "false", "no", "0")
_READ: Final = ("paused", "request", "acknowledged", "by", "at", "sync")
_MAX_VALUE_CHARACTERS: Final = 1024
#: Age in seconds at which the ConfigMap is read again to decide.
_MAX_AGE_SECONDS: Final = 1.0
#: Seconds between two reads on a replica that only shows the pause.
_POLL_SECONDS: Final = 5.0
_UNREAD: Final = Pause(PauseCause.UNKNOWN, f"ConfigMap {NAME} has not been read yet")


def request_data(by: str, at: datetime, *, paused: bool) -> dict[str, str]:
    """The members to write to pause or resume admission."""
    return {
        "paused": str(paused).lower(),
        "request": uuid.uuid4().hex,
        "by": by,
        "at": format_time(at),
    }


def _pause_by_command(data: Mapping[str, Any]) -> Pause | None:
    """Read the members that anybody with access may have written."""
    if str(data.get("paused", "false")).strip().lower() in _NOT_PAUSED:
        return None
    by = printable(str(data.get("by", ""))) or "somebody"
    since = parse_time(str(data.get("at", "")))
    at = f" at {format_seconds(since)}" if since else ""
    return Pause(
        PauseCause.COMMAND,
        f"{by} paused admission{at}; run `openfero-gitops resume` to resume",
        by,
        since,
    )


def _members(control: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the data of the ConfigMap; values that are longer than anybody needs are cut.

    A request that was cut is not acknowledged.
    """
    data: Mapping[str, Any] = (control or {}).get("data") or {}
    return {key: str(data[key]).strip()[:_MAX_VALUE_CHARACTERS] for key in _READ if key in data}


class Control:
    """Whether admission is paused, and by what."""

    def __init__(
        self,
        store: ConfigMaps,
        clock: Callable[[], float],
        pause_in_git: Callable[[], Pause | None] = lambda: None,
    ) -> None:
        """Take the store, a monotonic clock in seconds, and the pause that Git asks for."""
        self._store = store
        self._clock = clock
        self._pause_in_git = pause_in_git
        self._lock = asyncio.Lock()
        self._read_at: float | None = None
        self._was_read = False
        self._read_error = OnChange(_log.warning, "cannot read the ConfigMap")
        self._pause: Pause | None = _UNREAD
        self._request = ""
        self._acknowledged = ""
        self._sync = ""
        self._own_sync = ""
        self._on_sync: Callable[[], None] | None = None

    @property
    def pause(self) -> Pause | None:
        """What pauses admission as far as is known without reading; None before the first read."""
        return self._pause_in_git() or (self._pause if self._was_read else None)

    @property
    def trouble(self) -> str:
        """Why it is unknown whether admission is paused; empty if it is known."""
        unknown = self._pause is not None and self._pause.cause is PauseCause.UNKNOWN
        return self._pause.message if self._pause and unknown and self._read_error.text else ""

    def on_sync(self, listener: Callable[[], None]) -> None:
        """Call this when another replica was asked to sync."""
        self._on_sync = listener

    async def request_sync(self, by: str) -> None:
        """Ask the other replicas to sync.

        Raises:
            ApiError: it could not be written.
        """
        self._own_sync = f"{uuid.uuid4().hex} {by}"
        await self._store.merge(NAME, {"sync": self._own_sync}, LABELS)

    def begin_term(self) -> None:
        """Discard what was read before this replica became leader."""
        self._read_at = None
        self._pause = _UNREAD

    async def run(self) -> None:
        """Read the ConfigMap regularly, also on replicas that do not lead, until cancelled."""
        while True:
            try:
                await self.read_pause()
            except Exception:  # noqa: BLE001 - nothing here may end the replica
                _log.exception("cannot check for a pause", configmap=NAME)
            await asyncio.sleep(_POLL_SECONDS)

    async def read_pause(self) -> Pause | None:
        """What pauses admission, at most a second old unless the API server fails."""
        async with self._lock:  # an answer that is late must not replace a newer one
            now = self._clock()
            if self._read_at is None or now - self._read_at >= _MAX_AGE_SECONDS:
                self._read_at = now
                await self._read()
            return self._pause_in_git() or self._pause

    async def acknowledge(self, check: Callable[[], None]) -> None:
        """Confirm the last request: every Job that starts from now on respects it.

        Call it when no admission is in flight that was decided before `read_pause`; `check` raises
        if the term has ended.
        """
        request = self._request
        if not request or request == self._acknowledged:
            return
        check()
        in_git = self._pause_in_git()
        still_paused_by = in_git.message if in_git else ""
        try:
            await self._store.patch(
                NAME,
                [
                    {"op": "test", "path": "/data/request", "value": request},
                    {"op": "add", "path": "/data/acknowledged", "value": request},
                    {"op": "add", "path": f"/data/{STILL_PAUSED_BY}", "value": still_paused_by},
                ],
            )
        except ApiError as error:
            _log.info("cannot acknowledge a request yet", configmap=NAME, error=str(error))
            self._request = ""  # the next read finds it again
        else:
            self._acknowledged = request

    async def _read(self) -> None:
        try:
            control = await self._store.get(NAME)
        except ApiError as error:
            self._read_error.set(str(error), configmap=NAME)
            if self._pause is not None and self._pause.cause is PauseCause.UNKNOWN:
                self._pause = Pause(
                    PauseCause.UNKNOWN,
                    f"cannot read ConfigMap {NAME}, so the leader starts no Jobs: {error}",
                )
            return
        self._read_error.clear()
        data = _members(control)
        sync = str(data.get("sync", ""))
        if (
            self._was_read
            and sync not in ("", self._sync, self._own_sync)
            and self._on_sync is not None
        ):
            self._on_sync()
        self._sync = sync
        self._was_read = True
        pause = _pause_by_command(data)
        if (pause is None) != (self._pause is None):
            _log.info("admission is paused" if pause else "admission is not paused")
        self._pause = pause
        self._request = str(data.get("request", ""))
        self._acknowledged = str(data.get("acknowledged", ""))

"""Whether admission is paused, read from the ConfigMap `openfero-control`.

If the ConfigMap cannot be read, the last answer stays valid. A leader that has not read it in
its own term treats admission as paused: it cannot know that it is not.

To wait for a pause to take effect, write a new `request` with it: the leader copies that to
`acknowledged` as soon as no Job can start any more that the pause forbids. A pause with an end is
over at that moment, on every replica: nobody has to write anything.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.background import OnChange
from openfero_gitops.domain.control import (
    NAME,
    STILL_PAUSED_BY,
    read_author,
    read_members,
    read_pause,
)
from openfero_gitops.domain.errors import ApiError
from openfero_gitops.domain.event import ObjectReference
from openfero_gitops.domain.pause import Pause, PauseCause
from openfero_gitops.domain.timestamp import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

#: Age in seconds at which the ConfigMap is read again to decide.
_MAX_AGE_SECONDS: Final = 1.0
#: The same to show the pause, and to notice requests: with the shortest sleep it is 5 seconds.
_POLL_SECONDS: Final = 4.9
_MIN_SLEEP_SECONDS: Final = 0.1
_UNREAD: Final = Pause(PauseCause.UNKNOWN, f"ConfigMap {NAME} has not been read yet")


def _now() -> datetime:
    return datetime.now(UTC)


class Control:
    """Whether admission is paused, and by what."""

    def __init__(
        self,
        store: ConfigMaps,
        clock: Callable[[], float],
        pause_in_git: Callable[[], Pause | None] = lambda: None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Take the store, a monotonic clock in seconds, the pause that Git asks for, and UTC."""
        self._store = store
        self._clock = clock
        self._pause_in_git = pause_in_git
        self._now = now
        self._lock = asyncio.Lock()
        self._read_at: float | None = None
        #: Whether the ConfigMap was ever read.
        self.was_read = False
        self._read_error = OnChange(_log.warning, "cannot read the ConfigMap")
        self._pause: Pause | None = _UNREAD
        self._logged_pause: Pause | None = None
        self._request = ""
        self._acknowledged = ""
        self._uid = ""
        self._listeners: list[Callable[[Mapping[str, str]], None]] = []
        #: Who requested the last pause, or its end.
        self.author = ""

    @property
    def pause(self) -> Pause | None:
        """What pauses admission now, as far as is known without reading; None if nothing does.

        None also before the first read.
        """
        return self._pause_in_git() or (self._pause_by_command() if self.was_read else None)

    @property
    def trouble(self) -> str:
        """Why it is unknown whether admission is paused; empty if it is known."""
        unknown = self._pause is not None and self._pause.cause is PauseCause.UNKNOWN
        return self._pause.message if self._pause and unknown and self._read_error.text else ""

    @property
    def reference(self) -> ObjectReference:
        """A reference to the ConfigMap; its uid is empty until it was read."""
        return ObjectReference("v1", "ConfigMap", self._store.namespace, NAME, self._uid)

    def on_read(self, listener: Callable[[Mapping[str, str]], None]) -> None:
        """Call this with the members of the ConfigMap each time that it was read."""
        self._listeners.append(listener)

    def begin_term(self) -> None:
        """Discard what was read before this replica became leader."""
        self._read_at = None
        self._pause = _UNREAD

    async def run(self) -> None:
        """Read the ConfigMap regularly, also on replicas that do not lead, until cancelled."""
        while True:
            try:
                await self.read_pause(_POLL_SECONDS)
                self._log_change()
            except Exception:  # noqa: BLE001 - nothing here may end the replica
                _log.exception("cannot check for a pause", configmap=NAME)
            # A leader reads more often, to decide.
            age = self._clock() - (self._read_at or 0.0)
            await asyncio.sleep(min(max(_POLL_SECONDS - age, _MIN_SLEEP_SECONDS), _POLL_SECONDS))

    async def read_pause(self, max_age_seconds: float = _MAX_AGE_SECONDS) -> Pause | None:
        """What pauses admission, at most so old unless the API server fails.

        It may have ended by itself, see `Pause.is_over`.
        """
        async with self._lock:  # an answer that is late must not replace a newer one
            now = self._clock()
            if self._read_at is None or now - self._read_at >= max_age_seconds:
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
        self._uid = control["metadata"].get("uid", "") if control else ""
        members = read_members(control)
        self.was_read = True
        self._pause = read_pause(members)
        self.author = read_author(members)
        self._request = members.get("request", "")
        self._acknowledged = members.get("acknowledged", "")
        self._log_change()
        for listener in self._listeners:
            listener(members)

    def _pause_by_command(self) -> Pause | None:
        pause = self._pause
        return None if pause is not None and pause.is_over(self._now()) else pause

    def _log_change(self) -> None:
        """Log when a pause by command begins, changes or ends."""
        pause = self._pause_by_command()
        if pause == self._logged_pause or (pause is not None and pause.cause is PauseCause.UNKNOWN):
            return
        before, self._logged_pause = self._logged_pause, pause
        if pause is not None:
            _log.info(
                "admission is paused",
                by=pause.by,
                reason=pause.reason or None,
                until=format_seconds(pause.until) if pause.until else None,
            )
        elif before is not None and before.is_over(self._now()):
            _log.info("admission is not paused: the pause has ended", by=before.by)
        else:
            _log.info("admission is not paused", by=self.author)

"""What a human said to the controller as a whole: ConfigMap `openfero-control`.

Where it cannot be read, the last that was read holds; where it never was in a leader's term,
admission is paused, since nobody knows that it is not.

A replica that was asked for a sync says so there too (`sync`), since the others were not.

Whoever asks for a pause writes a `request` of their own beside it, and waits until the leader
has written the same as `acknowledged`: after that, nothing starts.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.domain import keys
from openfero_gitops.domain.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.ports import ConfigMaps

_log = structlog.get_logger(__name__)

NAME: Final = "openfero-control"
LABELS: Final = {keys.MANAGED_BY: keys.MANAGER}
#: The member in which a leader that acknowledges says what else pauses, empty where nothing does.
STILL_PAUSED_BY: Final = "still-paused-by"
#: Seconds that an answer is used again.
_FRESH: Final = 1.0
#: Seconds between two looks for the pages' sake.
_SHOWN: Final = 5.0


class Control:
    """Whether admission is paused."""

    def __init__(
        self,
        store: ConfigMaps,
        clock: Callable[[], float],
        also: Callable[[], bool] = lambda: False,
        others: Callable[[], str] = lambda: "",
    ) -> None:
        """Take the store, a monotonic clock in seconds, and what else may pause admission.

        `others` says in words what else does, for a person who resumes.
        """
        self._others = others
        self._store = store
        self._clock = clock
        self._also = also
        self._request = ""
        self._acknowledged = ""
        self._one_at_a_time = asyncio.Lock()
        self._asked_at: float | None = None
        self._trouble = ""
        self._was_read = False
        self._known = False  # since this replica began to lead, if it does
        self._sync = ""
        self._own_sync = ""
        self._on_sync: Callable[[], None] | None = None
        self.last_known = True

    @property
    def paused_as_known(self) -> bool:
        """The same without asking, for those who only show it; not paused where never asked."""
        return self._also() or (self._was_read and self.last_known)

    @property
    def trouble(self) -> str:
        """Why nobody knows whether admission is paused; empty where it is known."""
        if self._known or not self._trouble:
            return ""
        return (
            f"whoever leads starts nothing, since nobody knows whether it is paused: ConfigMap "
            f"{NAME} could not be read: {self._trouble}"
        )

    def on_sync(self, listener: Callable[[], None]) -> None:
        """Be told when another replica was asked for a sync."""
        self._on_sync = listener

    async def ask_for_sync(self, by: str) -> None:
        """Tell the other replicas that a sync was asked for.

        Raises:
            ApiError: it could not be written.
        """
        asked = f"{uuid.uuid4().hex} {by}"
        self._own_sync = asked  # no news to us, whenever it is read
        await self._store.merge(NAME, {"sync": asked}, LABELS)

    def begin_term(self) -> None:
        """Trust nothing that was read before this replica led."""
        self._asked_at = None
        self._known = False
        self.last_known = True

    async def run(self) -> None:
        """Keep what is known fresh, on replicas that do not lead too, until cancelled."""
        while True:
            try:
                await self.paused()
            except Exception:  # noqa: BLE001, whatever it is: it must not end the replica
                _log.exception("the control was not looked at", name=NAME)
            await asyncio.sleep(_SHOWN)

    async def paused(self) -> bool:
        """Whether admission is paused, at most a second old where the API server answers."""
        async with self._one_at_a_time:  # an answer that is late undoes none that is newer
            now = self._clock()
            if self._asked_at is None or now - self._asked_at >= _FRESH:
                self._asked_at = now
                await self._read()
            return self.last_known or self._also()

    async def acknowledge(self, check: Callable[[], None]) -> None:
        """Tell whoever asked last that all that starts from here on goes by what they said.

        To be called when nothing is under way that was decided before `paused` was asked; `check`
        raises where the term has ended.
        """
        request = self._request
        if not request or request == self._acknowledged:
            return
        check()
        try:
            await self._store.patch(
                NAME,
                [
                    {"op": "test", "path": "/data/request", "value": request},
                    {"op": "add", "path": "/data/acknowledged", "value": request},
                    {"op": "add", "path": f"/data/{STILL_PAUSED_BY}", "value": self._others()},
                ],
            )
        except ApiError as error:
            _log.info("a request could not be acknowledged yet", error=str(error))
            self._request = ""  # the next read tells of it again
        else:
            self._acknowledged = request

    async def _read(self) -> None:
        try:
            control = await self._store.get(NAME)
        except ApiError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                _log.warning("the control could not be read", name=NAME, error=str(error))
            return
        self._trouble = ""
        data = (control or {}).get("data") or {}
        asked = str(data.get("sync", ""))
        known = ("", self._sync, self._own_sync)
        if self._was_read and asked not in known and self._on_sync is not None:
            self._on_sync()
        self._sync = asked
        self._was_read = self._known = True
        paused = str(data.get("paused", "false")).strip().lower() not in ("", "false", "no", "0")
        if paused != self.last_known:
            _log.info("admission is paused" if paused else "admission is not paused")
        self.last_known = paused
        self._request = str(data.get("request", ""))
        self._acknowledged = str(data.get("acknowledged", ""))

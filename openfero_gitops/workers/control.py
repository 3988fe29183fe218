"""What a human said to the controller as a whole: ConfigMap `openfero-control`.

Where it cannot be read, the last that was read holds; where it never was, admission is paused,
since nobody knows that it is not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from openfero_gitops.domain.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)

NAME: Final = "openfero-control"
#: Seconds that an answer is used again.
_FRESH: Final = 1.0
#: Seconds between two looks for the pages' sake.
_SHOWN: Final = 5.0


class ConfigMaps(Protocol):
    """The ConfigMaps of the controller's namespace."""

    async def get(self, name: str) -> dict[str, Any] | None:
        """One ConfigMap, None where there is none; raises ApiError."""
        ...


class Control:
    """Whether admission is paused."""

    def __init__(self, store: ConfigMaps, clock: Callable[[], float]) -> None:
        """Take the store and a monotonic clock in seconds."""
        self._store = store
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._asked_at: float | None = None
        self._trouble = ""
        self._was_read = False
        self.last_known = True

    @property
    def paused_as_known(self) -> bool:
        """The same without asking, for those who only show it; not paused where never asked."""
        return self._was_read and self.last_known

    async def run(self) -> None:
        """Keep what is known fresh, on replicas that do not lead too, until cancelled."""
        while True:
            await self.paused()
            await asyncio.sleep(_SHOWN)

    async def paused(self) -> bool:
        """Whether admission is paused, at most a second old where the API server answers."""
        async with self._one_at_a_time:  # an answer that is late undoes none that is newer
            now = self._clock()
            if self._asked_at is None or now - self._asked_at >= _FRESH:
                self._asked_at = now
                await self._read()
            return self.last_known

    async def _read(self) -> None:
        try:
            control = await self._store.get(NAME)
        except ApiError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                _log.warning("the control could not be read", name=NAME, error=str(error))
            return
        self._trouble = ""
        self._was_read = True
        data = (control or {}).get("data") or {}
        paused = str(data.get("paused", "false")).strip().lower() not in ("", "false", "no", "0")
        if paused != self.last_known:
            _log.info("admission is paused" if paused else "admission is not paused")
        self.last_known = paused

"""An event loop whose time is virtual, and in which one process of several can be frozen.

Everything that a process does runs in a context that names it. A frozen process is one whose
callbacks are kept back: its clock goes on, timers run out and answers arrive, but nothing of it
runs until it is thawed. Then it meets all that at once, in order, as a real one does on SIGCONT.
"""

from __future__ import annotations

import asyncio  # noqa: TC003
import heapq
from asyncio.base_events import BaseEventLoop
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_MANY: Final = 100  # timers: cancelled ones among them are worth being removed

#: The process in whose context something runs; none is the world outside of them.
PROCESS: ContextVar[str] = ContextVar("process", default="")


class Loop(BaseEventLoop):
    """Where an ordinary loop would wait, time moves on. The same calls give the same order."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._frozen: dict[str, list[asyncio.Handle]] = {}

    def time(self) -> float:
        """Seconds since the loop began."""
        return self._now

    def freeze(self, process: str) -> None:
        """Run nothing of a process from here on."""
        self._frozen.setdefault(process, [])

    def thaw(self, process: str) -> None:
        """Let it run on, beginning with all that came in between."""
        self._ready.extend(self._frozen.pop(process, ()))

    def is_frozen(self, process: str) -> bool:
        """Whether a process is frozen."""
        return process in self._frozen

    def run_in_executor(  # type: ignore[override]
        self, _: Any, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        """Run it here and now: a thread would bring its own order."""
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the awaiting task receives it
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        """Run what is ready; where nothing is, leap to the next timer."""
        scheduled, ready = self._scheduled, self._ready
        if len(scheduled) > _MANY and self._timer_cancelled_count > len(scheduled) / 2:
            scheduled[:] = [timer for timer in scheduled if not timer._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise RuntimeError("everything waits for something that never comes")
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._frozen:
                backlog = self._frozen.get(handle._context.get(PROCESS, ""))
                if backlog is not None:
                    backlog.append(handle)
                    continue
            handle._run()

    def _write_to_self(self) -> None:
        """Nothing sleeps, so that nothing has to be woken."""


def context_of(process: str) -> Context:
    """A context in which that process runs."""
    context = copy_context()
    context.run(PROCESS.set, process)
    return context

"""What tasks share: waiting, taking turns, restarting after errors, logging an error once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from openfero_gitops.domain.errors import OpenFeroError

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterable

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_RESTART_SECONDS: Final = 30.0
#: Values that are processed before other tasks run: about 5 ms for alerts.
_VALUES_PER_TURN: Final = 100
#: Values of which it is known that they were there before.
_MAX_REMEMBERED: Final = 1000


async def wait_for_event(event: asyncio.Event, timeout_seconds: float | None) -> bool:
    """Wait until the event is set, at most so long if a time is given; return whether it is set."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def in_turns(values: Iterable[_T]) -> AsyncIterator[_T]:
    """Yield values, and let other tasks run from time to time: there may be many."""
    for number, value in enumerate(values):
        if number % _VALUES_PER_TURN == _VALUES_PER_TURN - 1:
            await asyncio.sleep(0)
        yield value


async def together(coroutines: Iterable[Coroutine[Any, Any, None]], name: str) -> None:
    """Run coroutines concurrently, in tasks with this name; a single one needs no task."""
    coroutines = list(coroutines)
    if len(coroutines) == 1:
        await coroutines[0]
    elif coroutines:
        async with asyncio.TaskGroup() as tasks:
            for coroutine in coroutines:
                tasks.create_task(coroutine, name=name)


async def in_thread(work: Callable[[], _T], stop: threading.Event, name: str = "thread") -> _T:
    """Run work in a thread; a cancelled caller sets `stop` and waits until the work has ended.

    Work that goes on after its caller would keep the process from ending.
    """
    task = asyncio.create_task(asyncio.to_thread(work), name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved, since the caller gets the cancellation instead
        raise


async def restart_on_error(
    work: Callable[[], Awaitable[None]], *, fatal: tuple[type[Exception], ...] = ()
) -> None:
    """Run work that nothing else depends on; if it fails, log why and run it again after a pause.

    Raises:
        Exception: one of the `fatal` types.
    """
    while True:
        try:
            return await work()
        except fatal:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the other work must go on
            log_failure(
                _log, "background work failed; restarting it", error, delay_seconds=_RESTART_SECONDS
            )
        await asyncio.sleep(_RESTART_SECONDS)


def log_failure(log: Any, event: str, error: BaseException, **fields: Any) -> None:
    """Log why work failed: known errors on one line, anything else with a traceback.

    A group, as a TaskGroup raises it, is known if each of its errors is.
    """
    errors = _ungrouped(error)
    if all(isinstance(each, OpenFeroError) for each in errors):
        log.warning(event, error="; ".join(dict.fromkeys(map(str, errors))), **fields)
    else:
        log.error(event, exc_info=error, **fields)


def _ungrouped(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _ungrouped(each)]
    return [error]


class OnChange:
    """A lasting error, logged when it begins and when its text changes, not at each attempt.

    `text` is the error as probes show it; empty while there is none.

        self._write_error = OnChange(_log.warning, "mirror not written")
        ...
        self._write_error.set(str(error))   # after a failure
        self._write_error.clear()           # after a success
    """

    def __init__(self, log: Callable[..., Any], event: str) -> None:
        """Log `event` through a bound log method, with the text as its field `error`."""
        self._log = log
        self._event = event
        self.text = ""

    def set(self, text: str, **fields: Any) -> None:
        """Record a failure; log it if the last attempt did not fail with the same text."""
        if text != self.text:
            self.text = text
            self._log(self._event, error=text, **fields)

    def clear(self) -> None:
        """Record a success."""
        self.text = ""


class OnceEach:
    """Tells what has not been there before, such as what must be logged once.

    It remembers the last thousand values, so that their number does not determine the memory.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._values: dict[Hashable, None] = {}

    def is_first(self, value: Hashable) -> bool:
        """Whether a value is there for the first time; from now on it is not."""
        if value in self._values:
            return False
        self._values[value] = None
        if len(self._values) > _MAX_REMEMBERED:
            del self._values[next(iter(self._values))]
        return True

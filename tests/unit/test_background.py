"""Waiting for events, restarting after errors, and logging a lasting error once."""

from __future__ import annotations

import asyncio
import threading

import pytest
import structlog
from structlog.testing import capture_logs

from openfero_gitops.background import (
    OnceEach,
    OnChange,
    in_thread,
    log_failure,
    restart_on_error,
    together,
    wait_for_event,
)
from openfero_gitops.domain.errors import Forbidden, SourceError, Unavailable
from tests.support.workers import in_background, in_virtual_time, seconds_so_far


async def test_an_event_that_is_set_ends_the_wait() -> None:
    """The wait returns True as soon as the event is set."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await wait_for_event(event, 60)


async def test_a_wait_without_an_event_ends_at_its_timeout() -> None:
    """The wait returns False after the timeout."""
    assert not await wait_for_event(asyncio.Event(), 0.001)


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_coroutines_run_concurrently_and_a_single_one_without_a_task(number: int) -> None:
    """Each runs to its end, and none has to wait for another."""
    barrier = asyncio.Barrier(max(number, 1))
    tasks = []

    async def meet() -> None:
        tasks.append(asyncio.current_task())
        await barrier.wait()

    async with asyncio.timeout(60):
        await together((meet() for _ in range(number)), "meet")
    assert len(tasks) == len(set(tasks)) == number
    assert (asyncio.current_task() in tasks) == (number == 1)


async def test_work_in_a_thread_returns_its_result() -> None:
    """The result, or the error, is the caller's."""
    stop = threading.Event()
    assert await in_thread(threading.get_ident, stop) != threading.get_ident()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_thread(fail, stop)
    assert not stop.is_set()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_caller_stops_its_thread_and_waits_for_it(times: int) -> None:
    """No thread goes on after its caller, however often that is cancelled."""
    stop = threading.Event()
    began, ended = threading.Event(), []

    def work() -> None:
        began.set()
        stop.wait()
        ended.append("work")
        raise ZeroDivisionError

    task = asyncio.create_task(in_thread(work, stop))
    await asyncio.to_thread(began.wait)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["work"]


@in_virtual_time
async def test_failed_work_is_restarted_after_a_pause() -> None:
    """It is restarted 30 s after each failure, however often it fails."""
    starts: list[float] = []

    async def work() -> None:
        starts.append(seconds_so_far())
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async with in_background(restart_on_error(work)):
        await asyncio.sleep(100)
    assert starts == [0, 31, 62, 93]


async def test_a_fatal_error_is_raised() -> None:
    """Work is not restarted after an error of a type that the caller declares fatal."""

    async def work() -> None:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        await restart_on_error(work, fatal=(OSError,))


def test_a_lasting_error_is_logged_when_it_begins_changes_and_begins_again() -> None:
    """Repeats of one text are logged once; a success in between makes it new."""
    with capture_logs() as logs:
        condition = OnChange(structlog.get_logger().warning, "mirror not written")
        for text in ("refused", "refused", "timed out"):
            condition.set(text, name="mirror")
        assert condition.text == "timed out"
        condition.clear()
        assert condition.text == ""
        condition.set("timed out", name="mirror")
    assert [entry["error"] for entry in logs] == ["refused", "timed out", "timed out"]
    assert logs[0] == {
        "event": "mirror not written",
        "error": "refused",
        "name": "mirror",
        "log_level": "warning",
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unavailable("no response within 10 s"), "no response within 10 s"),
        (ExceptionGroup("unhandled", [Unavailable("no response")]), "no response"),
        (
            ExceptionGroup(
                "unhandled",
                [ExceptionGroup("more", [Forbidden("a"), Forbidden("a")]), SourceError("b")],
            ),
            "a; b",
        ),
    ],
)
def test_a_known_failure_is_one_line(error: Exception, text: str) -> None:
    """An error of the API server or of Git is logged with its text, and without a traceback."""
    with capture_logs() as logs:
        log_failure(structlog.get_logger(), "work failed", error, term="a/1")
    assert logs == [{"event": "work failed", "log_level": "warning", "error": text, "term": "a/1"}]


def test_an_unknown_failure_has_a_traceback() -> None:
    """Any other error is a defect, also among known ones."""
    for error in (ZeroDivisionError(), ExceptionGroup("", [Unavailable("x"), ZeroDivisionError()])):
        with capture_logs() as logs:
            log_failure(structlog.get_logger(), "work failed", error)
        assert logs == [{"event": "work failed", "log_level": "error", "exc_info": error}]


def test_only_the_last_values_are_remembered() -> None:
    """Each is the first of its kind once, and again when a thousand others came since."""
    once = OnceEach()
    assert [once.is_first(value) for value in ("a", "b", "a")] == [True, True, False]
    assert all(once.is_first(number) for number in range(999))
    assert [once.is_first(value) for value in ("b", "a")] == [False, True]

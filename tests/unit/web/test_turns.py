from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from openfero_gitops.web.turns import Turns


async def test_others_have_the_event_loop_between_turns() -> None:
    """After each turn the event loop is free for as long, so that a delivery is not held up."""
    turns = Turns()
    request = make_mocked_request("GET", "/")
    ends: list[float] = []
    begins: list[float] = []

    async def read() -> None:
        async with turns.take(request):
            begins.append(time.perf_counter())
            time.sleep(0.05)  # noqa: ASYNC251 - what a page keeps the event loop busy
            ends.append(time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(read())
    pauses = [begin - end for begin, end in zip(begins[1:], ends, strict=False)]
    assert len(pauses) == 2
    assert min(pauses) >= 0.04


async def test_an_answer_does_not_wait_for_the_pause() -> None:
    """The pause after a turn holds up the next turn only."""
    turns = Turns()

    async def answer() -> None:
        async with turns.take(make_mocked_request("GET", "/")):
            time.sleep(0.2)  # noqa: ASYNC251 - what a page keeps the event loop busy

    answering = asyncio.create_task(answer())
    await asyncio.sleep(0)
    assert answering.done()


async def test_too_many_are_refused_and_those_that_leave_make_room() -> None:
    """At the limit requests are refused; one that ends, fails or is cancelled makes room."""
    turns = Turns(2)
    request = make_mocked_request("GET", "/")

    async def wait() -> None:
        async with turns.take(request):
            await asyncio.sleep(60)

    waiting = [asyncio.create_task(wait()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(web.HTTPServiceUnavailable):
        async with turns.take(request):
            pass
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(60):
        with pytest.raises(ZeroDivisionError):
            async with turns.take(request):
                raise ZeroDivisionError
        async with turns.take(request):
            pass

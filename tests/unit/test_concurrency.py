"""Slots are taken in order, are never lost, and their number follows the answers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Self

import pytest

from openfero_gitops.concurrency import AdaptiveSlots
from openfero_gitops.domain.concurrency import ConcurrencyLimit
from openfero_gitops.domain.errors import Conflict, Throttled, Unavailable
from tests.support.workers import in_virtual_time

LIMIT: Final = ConcurrencyLimit(1, 8, 4)


class Holders:
    """Tasks that each hold a slot until the test ends them."""

    def __init__(self, slots: AdaptiveSlots) -> None:
        self.slots = slots
        self.holding: list[int] = []  # in the order in which they got their slots
        self._ends: dict[int, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Return this."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def start(self, *numbers: int) -> list[asyncio.Task[None]]:
        """Start holders, and let them run until they hold a slot or wait."""
        tasks = [asyncio.create_task(self._hold(number)) for number in numbers]
        self._tasks += tasks
        await asyncio.sleep(0.01)
        return tasks

    async def end(self, number: int, error: Exception | None = None) -> None:
        """End one that holds a slot, and let others take it."""
        if error is None:
            self._ends[number].set_result(None)
        else:
            self._ends[number].set_exception(error)
        await asyncio.sleep(0.01)

    async def _hold(self, number: int) -> None:
        self._ends[number] = asyncio.get_running_loop().create_future()
        try:
            async with self.slots.take():
                self.holding.append(number)
                try:
                    await self._ends[number]
                finally:
                    self.holding.remove(number)
        except (Throttled, Unavailable, Conflict):
            pass


@in_virtual_time
async def test_slots_are_taken_in_order() -> None:
    """A free slot goes to the one that has waited longest."""
    async with Holders(AdaptiveSlots(ConcurrencyLimit.fixed(2))) as holders:
        tasks = await holders.start(1, 2, 3, 4, 5)
        assert holders.holding == [1, 2]
        await holders.end(2)
        assert holders.holding == [1, 3]
        await holders.start(6)
        await holders.end(1)
        await holders.end(3)
        assert holders.holding == [4, 5]
        assert [task.done() for task in tasks] == [True, True, True, False, False]


@in_virtual_time
async def test_a_cancelled_waiter_takes_no_slot() -> None:
    """The next one in the queue gets it."""
    async with Holders(AdaptiveSlots(ConcurrencyLimit.fixed(1))) as holders:
        _, second, _ = await holders.start(1, 2, 3)
        second.cancel()
        await holders.end(1)
        assert holders.holding == [3]
        assert second.cancelled()


@in_virtual_time
async def test_a_waiter_that_is_cancelled_as_it_gets_its_slot_passes_it_on() -> None:
    """In the same turn of the event loop, before it runs."""
    slots = AdaptiveSlots(ConcurrencyLimit.fixed(1))
    async with Holders(slots) as holders:
        async with slots.take():
            second, _ = await holders.start(2, 3)
        second.cancel()
        await asyncio.sleep(0.01)
        assert second.cancelled()
        assert holders.holding == [3]


@in_virtual_time
async def test_a_cancelled_holder_frees_its_slot_and_is_no_overload() -> None:
    """How long it would have taken is unknown."""
    async with Holders(AdaptiveSlots(ConcurrencyLimit(1, 1, 1))) as holders:
        first, _ = await holders.start(1, 2)
        first.cancel()
        await asyncio.sleep(0.01)
        assert holders.holding == [2]
        assert holders.slots._limit.requests == 0


@pytest.mark.parametrize("error", [Throttled("slow down"), Unavailable("no answer")])
@in_virtual_time
async def test_below_the_requests_in_flight_nobody_gets_a_slot(error: Exception) -> None:
    """A throttled request halves the number; others begin only when enough have ended."""
    async with Holders(AdaptiveSlots(LIMIT)) as holders:
        await holders.start(1, 2, 3, 4, 5, 6)
        assert holders.holding == [1, 2, 3, 4]
        await holders.end(1, error)
        assert holders.slots.current == 2
        await holders.end(2)
        assert holders.holding == [3, 4]
        await holders.end(3)
        assert holders.holding == [4, 5]


@in_virtual_time
async def test_other_errors_and_what_is_not_measured_teach_nothing() -> None:
    """They say nothing about the load of the API server."""
    slots = AdaptiveSlots(LIMIT)
    async with Holders(slots) as holders:
        await holders.start(1)
        await holders.end(1, Conflict("a concurrent write"))
        with contextlib.suppress(Throttled):
            async with slots.take() as slot:
                slot.measured = False
                raise Throttled("not sent")
        async with slots.take() as slot:
            slot.measured = False
        assert slots._limit == LIMIT


@in_virtual_time
async def test_the_number_grows_while_answers_are_fast() -> None:
    """Never more requests are in flight at the start of one than there are slots."""
    slots = AdaptiveSlots(ConcurrencyLimit(minimum=1, maximum=8, limit=4))
    in_flight = most = 0

    async def request() -> None:
        nonlocal in_flight, most
        async with slots.take():
            in_flight += 1
            assert in_flight <= slots.current
            most = max(most, in_flight)
            await asyncio.sleep(0.01)
            in_flight -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(200):
            tasks.create_task(request())
    assert most == 8
    assert slots.maximum == 8

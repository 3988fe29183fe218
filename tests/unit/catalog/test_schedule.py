"""Delays between syncs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.schedule import Schedule, delay_before_sync

NAMESPACE = "controller"
MINUTE = timedelta(minutes=1)


def test_retries_back_off_exponentially() -> None:
    """Retries follow after 5 s, 10 s, … up to five minutes; a success restores the interval."""
    pauses = [delay_before_sync(MINUTE, n, 0.5).total_seconds() for n in range(9)]
    assert pauses == [60, 5, 10, 20, 40, 80, 160, 300, 300]


def test_the_delay_does_not_exceed_the_interval() -> None:
    """After failures, the delay is at most a long interval, and is a short interval at once."""
    hour = timedelta(hours=1)
    assert delay_before_sync(hour, 40, 0.5) == hour
    assert delay_before_sync(timedelta(seconds=1), 1, 0.5) == timedelta(seconds=1)


@given(st.integers(1, 10**6), st.integers(0, 10**9), st.floats(0, 1))
def test_the_delay_has_jitter_and_a_maximum(seconds: int, failures: int, chance: float) -> None:
    """The delay varies by a tenth and does not exceed its maximum, whatever the failures."""
    interval = timedelta(seconds=seconds)
    pause = delay_before_sync(interval, failures, chance)
    middle = delay_before_sync(interval, failures, 0.5)
    assert middle * 0.899 <= pause <= middle * 1.101
    assert timedelta(0) < pause <= max(interval, timedelta(minutes=5)) * 1.101


@given(
    seconds=st.integers(1, 3600),
    failures=st.integers(0, 50),
    chance=st.floats(0, 1),
    block=st.integers(0, 3600),
)
def test_no_sync_starts_before_the_server_allows_it(
    seconds: int, failures: int, chance: float, block: int
) -> None:
    """Jitter only adds to the time for which the Git server wants no request."""
    delay = delay_before_sync(
        timedelta(seconds=seconds), failures, chance, timedelta(seconds=block)
    )

    assert delay >= timedelta(seconds=block)
    assert delay >= delay_before_sync(timedelta(seconds=seconds), failures, chance)


async def test_a_requested_sync_waits_until_the_server_allows_it() -> None:
    """Requests do not bypass the time for which the Git server wants no request."""
    clock = asyncio.get_running_loop().time
    blocked_until = 0.0
    runs: list[float] = []
    refused, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal blocked_until
        runs.append(clock())
        if len(runs) == 1:
            blocked_until = clock() + 1.0
            refused.set()
        else:
            done.set()

    schedule = Schedule(
        work,
        lambda: timedelta(hours=1),
        lambda: timedelta(seconds=max(0.0, blocked_until - clock())),
    )
    schedule.start()
    async with asyncio.timeout(60):
        await refused.wait()
        for _ in range(20):
            schedule.now()
            await asyncio.sleep(0.01)
        await done.wait()
    schedule.stop()

    assert len(runs) == 2
    assert runs[1] >= blocked_until


async def test_a_sync_requested_during_a_refused_one_waits() -> None:
    """A request that arrives while a sync is refused is carried out once, after the wait."""
    clock = asyncio.get_running_loop().time
    blocked_until = 0.0
    runs: list[float] = []
    begun, refused, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        nonlocal blocked_until
        runs.append(clock())
        if len(runs) > 1:
            done.set()
            return
        begun.set()
        await refused.wait()
        blocked_until = clock() + 0.5

    schedule = Schedule(
        work,
        lambda: timedelta(hours=1),
        lambda: timedelta(seconds=max(0.0, blocked_until - clock())),
    )
    schedule.start()
    async with asyncio.timeout(60):
        await begun.wait()
        schedule.now()
        await asyncio.sleep(0.1)  # until the second run waits for the first
        refused.set()
        await done.wait()
    schedule.stop()

    assert len(runs) == 2
    assert runs[1] >= blocked_until

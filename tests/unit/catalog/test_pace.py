"""How long to rest between syncs."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.catalog.pace import pause_before_sync

MINUTE = timedelta(minutes=1)


def test_failures_are_tried_again_soon_at_first_and_ever_more_rarely() -> None:
    """5 s, 10 s, … up to five minutes; a success goes back to the interval."""
    pauses = [pause_before_sync(MINUTE, n, 0.5).total_seconds() for n in range(9)]
    assert pauses == [60, 5, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_interval_is_its_own_ceiling() -> None:
    """Whoever syncs once an hour is not asked more rarely, nor more often for long."""
    hour = timedelta(hours=1)
    assert pause_before_sync(hour, 40, 0.5) == hour
    assert pause_before_sync(timedelta(seconds=1), 1, 0.5) == timedelta(seconds=1)


@given(st.integers(1, 10**6), st.integers(0, 10**9), st.floats(0, 1))
def test_it_varies_by_a_tenth_and_never_ends(seconds: int, failures: int, chance: float) -> None:
    """Whatever fails for however long, the next try is near the ceiling at the latest."""
    interval = timedelta(seconds=seconds)
    pause = pause_before_sync(interval, failures, chance)
    middle = pause_before_sync(interval, failures, 0.5)
    assert middle * 0.899 <= pause <= middle * 1.101
    assert timedelta(0) < pause <= max(interval, timedelta(minutes=5)) * 1.101

"""Exponential back-off."""

from __future__ import annotations

from openfero_gitops.domain.backoff import Backoff

BACKOFF = Backoff(first_seconds=1.0, max_seconds=10.0)


def test_delays_double_up_to_the_maximum() -> None:
    """Each consecutive failure doubles the delay, without overflow."""
    assert [BACKOFF.delay(failures) for failures in (0, 1, 2, 3, 4, 5, 5000)] == [
        0.0,
        1.0,
        2.0,
        4.0,
        8.0,
        10.0,
        10.0,
    ]


def test_the_server_may_ask_for_more_but_not_for_less() -> None:
    """`Retry-After` raises a delay beyond the maximum, and never shortens it."""
    assert BACKOFF.delay(1, retry_after=30.0) == 30.0
    assert BACKOFF.delay(3, retry_after=0.5) == 4.0

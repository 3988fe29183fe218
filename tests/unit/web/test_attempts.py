from __future__ import annotations

import pytest

from openfero_gitops.web.attempts import (
    FREE_ATTEMPTS,
    MAX_BLOCK_SECONDS,
    WINDOW_SECONDS,
    Attempts,
    Failures,
    add_failure,
)


def guess(number: int) -> bytes:
    """Return the digest of a wrong credential."""
    return number.to_bytes(32, "big")


def tried(count: int, now: float = 1000.0) -> Failures:
    """Return the failures of a source that tried so many different credentials."""
    failures = None
    for number in range(count):
        failures = add_failure(failures, guess(number), now)
    assert failures is not None
    return failures


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(1, 0), (9, 0), (10, 1), (11, 2), (12, 4), (15, 32), (16, 60), (1000, 60)],
)
def test_a_block_doubles_up_to_a_minute(count: int, seconds: float) -> None:
    """Nine wrong credentials are free; each further one blocks twice as long, at most a minute."""
    failures = tried(count)
    assert failures.count == count
    assert max(failures.blocked_until - 1000.0, 0) == seconds


def test_a_repeated_credential_is_one_guess() -> None:
    """A sender or a browser with an old password is not blocked, however often it repeats it."""
    attempts = Attempts()
    for second in range(1000):
        assert not attempts.failed("10.0.0.1", guess(second % 3), float(second))
    assert attempts.wait_seconds("10.0.0.1", 1000.0) == 0


def test_a_source_without_failures_starts_again() -> None:
    """After a quarter of an hour without a new wrong credential, the count begins at one."""
    failures = tried(100)
    assert add_failure(failures, guess(100), 1000 + WINDOW_SECONDS - 1).count == 101
    again = add_failure(failures, guess(100), 1000 + WINDOW_SECONDS)
    assert (again.count, again.guesses) == (1, (guess(100),))


def test_a_block_is_reported_once() -> None:
    """Of many wrong credentials, only the one that first blocks a source says so."""
    attempts = Attempts()
    reported = [attempts.failed("10.0.0.1", guess(n), float(n)) for n in range(100)]
    assert [n for n, first in enumerate(reported) if first] == [FREE_ATTEMPTS - 1]


def test_sources_do_not_affect_each_other() -> None:
    """One source is blocked, another is not."""
    attempts = Attempts()
    for number in range(20):
        attempts.failed("10.0.0.1", guess(number), 1.0)
    assert attempts.wait_seconds("10.0.0.1", 1.0) == MAX_BLOCK_SECONDS
    assert attempts.wait_seconds("10.0.0.1", 1.0 + MAX_BLOCK_SECONDS) == 0
    assert attempts.wait_seconds("10.0.0.2", 1.0) == 0


def test_a_credential_is_familiar_to_its_source_only() -> None:
    """What one address has used says nothing about another."""
    attempts = Attempts()
    attempts.accepted("10.0.0.1", guess(1))
    assert attempts.is_familiar("10.0.0.1", guess(1))
    assert not attempts.is_familiar("10.0.0.1", guess(2))
    assert not attempts.is_familiar("10.0.0.2", guess(1))


def test_the_memory_is_bounded() -> None:
    """Of many sources, those that failed or were accepted last are remembered."""
    attempts = Attempts()
    for number in range(20):
        attempts.failed("10.0.0.1", guess(number), 1.0)
    attempts.accepted("10.0.0.1", guess(1))
    for number in range(10_000):
        attempts.failed(f"fd00:0:0:{number:x}::/64", guess(number), 2.0)
        attempts.accepted(f"fd00:0:0:{number:x}::/64", guess(number))
    assert attempts.wait_seconds("10.0.0.1", 2.0) == 0
    assert not attempts.is_familiar("10.0.0.1", guess(1))
    assert attempts.is_familiar("fd00:0:0:0::/64", guess(0))
    assert len(attempts._failures) == len(attempts._familiar) == 10_000

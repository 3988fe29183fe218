"""The comparison of the clock with the API server's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from openfero_gitops.cluster.clock import TOLERANCE, Clock
from openfero_gitops.domain.errors import ClockWrong

NOW = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Watches:
    """A wall clock, a monotonic clock, and the API server's clock."""

    def __init__(self) -> None:
        self.wall = NOW
        self.steady = 1000.0
        self.server = NOW
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def pass_by(self, seconds: float) -> None:
        """Advance all clocks."""
        self.wall += timedelta(seconds=seconds)
        self.server += timedelta(seconds=seconds)
        self.steady += seconds

    def ask(self, takes: float = 0.01, answered_after: float = 0.0) -> None:
        """Simulate a request to the API server."""
        sent_at = self.clock.seconds()
        self.pass_by(answered_after)
        date = format_datetime(self.server.replace(microsecond=0), usegmt=True)
        self.pass_by(takes - answered_after)
        self.clock.compare(sent_at, date)


def test_users_have_the_time_of_the_api_server() -> None:
    """A clock that is wrong is corrected; a Date has no fractions of a second."""
    watches = Watches()
    watches.wall += HOUR
    watches.ask()
    watches.pass_by(10)
    assert timedelta(0) <= watches.clock.server_now() - watches.server <= timedelta(seconds=1)


def test_a_clock_that_agrees_is_trusted() -> None:
    """A clock counts as right before the first request, and long after the last one."""
    watches = Watches()
    assert watches.clock.now() == NOW
    watches.ask()
    watches.pass_by(86_400)
    assert watches.clock.trouble == ""
    assert watches.clock.now() == watches.wall


@pytest.mark.parametrize(("off", "words"), [(HOUR, "3599 s ahead"), (-HOUR, "3599 s behind")])
def test_a_clock_that_is_an_hour_off_is_not(off: timedelta, words: str) -> None:
    """A wrong clock reports the difference, and refuses to return the time."""
    watches = Watches()
    watches.wall += off
    watches.ask()
    assert words in watches.clock.trouble
    with pytest.raises(ClockWrong, match=words):
        watches.clock.now()


def test_a_jump_is_known_before_the_next_answer() -> None:
    """A clock that jumps is wrong at once, before the next response."""
    watches = Watches()
    watches.ask()
    watches.wall -= HOUR
    with pytest.raises(ClockWrong, match="jumped 3600 s back"):
        watches.clock.now()
    watches.wall += HOUR
    assert watches.clock.now() == watches.wall


def test_a_clock_that_was_set_right_is_trusted_again() -> None:
    """A clock that jumps to the right time is right after the next response."""
    watches = Watches()
    watches.wall += HOUR
    watches.ask()
    watches.wall -= HOUR
    watches.ask()
    assert watches.clock.now() == watches.wall


def test_the_api_server_that_jumps_with_everybody_is_followed() -> None:
    """If both clocks were set, the clock is right after one response."""
    watches = Watches()
    watches.ask()
    watches.wall += HOUR
    watches.server += HOUR
    assert watches.clock.trouble
    watches.ask()
    assert watches.clock.trouble == ""


@pytest.mark.parametrize("answered_after", [0.0, 3599.0])
def test_a_slow_answer_proves_nothing(answered_after: float) -> None:
    """A slow response cannot make a right clock look wrong."""
    watches = Watches()
    watches.ask(takes=3600.0, answered_after=answered_after)
    assert watches.clock.trouble == ""


def test_a_little_off_is_fine() -> None:
    """A difference within the tolerance is accepted."""
    watches = Watches()
    watches.wall += TOLERANCE
    watches.ask()
    assert watches.clock.trouble == ""


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        "yesterday",
        "Wed, 99 Nov 2026 07:28:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ],
)
def test_a_date_that_is_none_changes_nothing(date: str | None) -> None:
    """A response without a Date is ignored."""
    watches = Watches()
    watches.clock.compare(0.0, date)
    assert watches.clock.now() == NOW


def test_the_same_date_is_compared_once_a_second() -> None:
    """Of many answers within a second, the first is compared; a jump shows without them."""
    watches = Watches()
    watches.ask(takes=0)
    watches.wall += HOUR
    watches.ask(takes=0)
    assert watches.clock.difference == timedelta(0)
    assert "jumped 3600 s ahead" in watches.clock.trouble
    watches.pass_by(1)
    watches.ask(takes=0)
    assert watches.clock.difference > timedelta(minutes=59)
    assert "3599 s ahead" in watches.clock.trouble

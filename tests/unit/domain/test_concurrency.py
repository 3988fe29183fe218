"""The limit follows a simulated API server, and never leaves its bounds."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.domain.concurrency import ConcurrencyLimit

DELIVERY = ConcurrencyLimit(minimum=4, maximum=64, limit=32)


@dataclass
class Server:
    """An API server that processes `capacity` requests at a time; more of them share it.

    There are always `load` requests to send, as far as the limit allows.
    """

    limit: ConcurrencyLimit
    capacity: float
    latency: float = 0.01
    noise: float = 0.0
    load: int = 1000
    now: float = 0.0
    in_flight: list[tuple[float, float, int]] = field(default_factory=list)
    random: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311

    def answer(self, requests: int, *, overloaded: bool = False) -> list[float]:
        """Answer requests; return the limit after each."""
        limits = []
        for _ in range(requests):
            while len(self.in_flight) < min(self.limit.current, self.load):
                self._send()
            self.now, began, in_flight = heapq.heappop(self.in_flight)
            self.limit = self.limit.after(
                began=began,
                seconds=self.now - began,
                in_flight=in_flight,
                overloaded=overloaded,
            )
            limits.append(self.limit.limit)
        return limits

    def _send(self) -> None:
        in_flight = len(self.in_flight) + 1
        seconds = self.latency * max(1.0, in_flight / self.capacity)
        seconds *= self.random.lognormvariate(-(self.noise**2) / 2, self.noise)
        heapq.heappush(self.in_flight, (self.now + seconds, self.now, in_flight))


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("start", [4, 32, 64])
@pytest.mark.parametrize("capacity", [5, 8, 20, 30])
def test_the_limit_keeps_the_server_busy_without_a_long_queue(
    capacity: int, start: int, noise: float
) -> None:
    """It converges from both sides to once or twice what the server processes at a time."""
    server = Server(ConcurrencyLimit(minimum=4, maximum=64, limit=start), capacity, noise=noise)
    server.answer(3000)
    limits = sorted(server.answer(1500))
    assert capacity * 0.9 <= limits[75]
    assert limits[750] <= capacity * 2.9
    assert limits[-75] <= capacity * 4


def test_a_fast_server_gets_the_maximum() -> None:
    """Without a queue the limit grows, slowly."""
    server = Server(DELIVERY, capacity=1000)
    server.answer(32 + 32)
    assert server.limit.limit == 32
    server.answer(32 + 38)
    assert 32 < server.limit.limit < 45
    server.answer(300)
    assert server.limit.limit == 64


def test_the_unloaded_latency_is_learned_at_a_quarter_of_the_limit() -> None:
    """That is after the first round; ten requests are enough, and the limit is as before."""
    server = Server(DELIVERY, capacity=8)
    assert server.limit.current == 32
    server.answer(32)
    assert server.limit.current == 8
    assert server.limit.unloaded_seconds > 0.02
    server.answer(32 + 10)
    assert server.limit.unloaded_seconds == pytest.approx(0.01)
    assert server.limit.current == server.limit.limit == 32


def test_overload_halves_the_limit_once_per_round_trip() -> None:
    """Requests that were sent before the limit was halved do not halve it again."""
    server = Server(DELIVERY, capacity=1000, noise=0.01)
    server.answer(500)
    before = server.limit.limit
    server.answer(1, overloaded=True)
    assert server.limit.limit == before / 2
    server.answer(len(server.in_flight), overloaded=True)
    assert server.limit.limit == before / 2
    server.answer(1, overloaded=True)
    assert server.limit.limit == before / 4


def test_lasting_overload_ends_at_the_minimum_and_the_limit_recovers() -> None:
    """Some hundred answers later the limit is where it was."""
    server = Server(DELIVERY, capacity=1000)
    server.answer(300, overloaded=True)
    assert server.limit.limit == server.limit.current == 4
    server.answer(500)
    assert server.limit.limit >= 32


def test_a_limit_that_is_not_reached_does_not_grow() -> None:
    """Traffic with few requests in flight says nothing about more of them."""
    server = Server(DELIVERY, capacity=1000, load=31)
    assert set(server.answer(3000)) == {32}


def test_a_server_that_has_become_slower_is_learned() -> None:
    """Its latency does not depend on the limit, so the limit falls first, and grows again."""
    server = Server(DELIVERY, capacity=1000)
    server.answer(500)
    server.latency *= 5
    assert min(server.answer(1000)) < 32
    server.answer(500)
    assert server.limit.limit == 64
    assert server.limit.unloaded_seconds == pytest.approx(0.05)


def test_a_server_that_has_become_faster_is_learned_within_a_round() -> None:
    """A lower latency is unloaded latency, whatever is in flight."""
    server = Server(DELIVERY, capacity=1000)
    server.answer(500)
    server.latency /= 5
    server.answer(3 * 64)
    assert server.limit.unloaded_seconds == pytest.approx(0.002)


@given(
    bounds=st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50)).map(sorted),
    samples=st.lists(
        st.tuples(
            st.floats(0, 1e3, allow_nan=False),
            st.floats(0, 1e3, allow_nan=False),
            st.integers(1, 100),
            st.booleans(),
        ),
        max_size=200,
    ),
)
def test_the_limit_stays_within_its_bounds(
    bounds: list[int], samples: list[tuple[float, float, int, bool]]
) -> None:
    """The limit is never outside its bounds, even if the clock stops or goes back."""
    minimum, start, maximum = bounds
    limit = ConcurrencyLimit(minimum, maximum, start)
    for began, seconds, in_flight, overloaded in samples:
        limit = limit.after(
            began=began, seconds=seconds, in_flight=in_flight, overloaded=overloaded
        )
        assert minimum <= limit.limit <= maximum
        assert minimum <= limit.current <= maximum


@given(st.integers(1, 100), st.lists(st.booleans(), max_size=50))
def test_a_fixed_limit_never_changes(number: int, samples: list[bool]) -> None:
    """Neither probes nor overload lower it."""
    limit = ConcurrencyLimit.fixed(number)
    for began, overloaded in enumerate(samples):
        assert limit.current == number
        limit = limit.after(began=began, seconds=1, in_flight=number, overloaded=overloaded)
    assert limit.current == number

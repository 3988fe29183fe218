"""How many requests to the API server may be in flight, learned from its answers.

The rule follows the gradient limiters of Netflix' concurrency-limits and of Envoy. Requests are
counted in rounds of about one round trip each. A round at up to twice the unloaded latency raises
the limit; a slower one lowers it in proportion, so that about twice as many requests are in flight
as the API server works on at a time. The unloaded latency is learned in a round at a quarter of the
limit, after the first round and then every twenty rounds: a server that has become slower for good
would otherwise keep the limit at its minimum, and a learned queue would raise it to its maximum.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from msgspec.structs import replace

#: Requests in a round at least: fewer have no useful mean.
_MIN_ROUND: Final = 10
_ROUNDS_PER_PROBE: Final = 20
_PROBE_DIVISOR: Final = 4
#: Times the unloaded latency: up to here it varies without a queue.
_TOLERANCE: Final = 2.0


class ConcurrencyLimit(msgspec.Struct, frozen=True):
    """A limit of the requests in flight; times are in seconds of one clock.

    `limit` is the value to begin with. Requests that were sent before `lowered_at` say nothing
    about the present limit.
    """

    minimum: int
    maximum: int
    limit: float
    unloaded_seconds: float = math.inf
    lowered_at: float = -math.inf
    probing: bool = False
    rounds: int = _ROUNDS_PER_PROBE - 1  # since the last probe: the first round is followed by one
    # Of the current round.
    requests: int = 0
    total_seconds: float = 0.0
    most_in_flight: int = 0

    @classmethod
    def fixed(cls, limit: int) -> ConcurrencyLimit:
        """Return a limit that never changes."""
        return cls(limit, limit, limit)

    @property
    def current(self) -> int:
        """How many requests may be in flight now."""
        return self._unloaded_in_flight if self.probing else int(self.limit)

    @property
    def _unloaded_in_flight(self) -> int:
        return max(self.minimum, int(self.limit / _PROBE_DIVISOR))

    def after(
        self, *, began: float, seconds: float, in_flight: int, overloaded: bool
    ) -> ConcurrencyLimit:
        """Return the limit after a request.

        Args:
            began: when it was sent.
            seconds: how long it took.
            in_flight: requests in flight when it was sent, with itself.
            overloaded: the API server throttled it, or did not answer.
        """
        if began <= self.lowered_at:
            return self
        ended = began + seconds
        if overloaded:
            limit = max(self.minimum, self.limit / 2)
            return replace(self._next_round(), limit=limit, lowered_at=ended)
        counted = replace(
            self,
            requests=self.requests + 1,
            total_seconds=self.total_seconds + seconds,
            most_in_flight=max(self.most_in_flight, in_flight),
        )
        if counted.requests < max(_MIN_ROUND, self.current):
            return counted
        return counted._after_round(ended)  # noqa: SLF001 - its own class

    def _after_round(self, ended: float) -> ConcurrencyLimit:
        mean = self.total_seconds / self.requests
        is_unloaded = self.most_in_flight <= self._unloaded_in_flight
        unloaded = mean if is_unloaded else min(mean, self.unloaded_seconds)
        following = replace(
            self._next_round(),
            unloaded_seconds=unloaded,
            probing=False,
            rounds=0 if is_unloaded else self.rounds + 1,
        )
        if self.probing:
            return following
        if following.rounds >= _ROUNDS_PER_PROBE:
            return replace(following, probing=True, lowered_at=ended)
        if mean > _TOLERANCE * unloaded:
            factor = max(0.5, _TOLERANCE * unloaded / mean)
            limit = max(self.minimum, self.limit * factor)
            return replace(following, limit=limit, lowered_at=ended)
        if self.most_in_flight >= self.current:  # else a higher limit would change nothing
            return replace(following, limit=min(self.maximum, self.limit + math.sqrt(self.limit)))
        return following

    def _next_round(self) -> ConcurrencyLimit:
        return replace(self, requests=0, total_seconds=0.0, most_in_flight=0)

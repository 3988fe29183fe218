"""Exponential back-off after consecutive failures."""

from __future__ import annotations

from dataclasses import dataclass

# 2.0 ** 1024 overflows; no delay grows that long.
_MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double with each consecutive failure, up to a maximum. Without jitter."""

    first_seconds: float
    max_seconds: float

    def delay(self, failures: int, *, retry_after: float = 0.0) -> float:
        """Return the seconds to wait after `failures` consecutive failures; none after 0.

        A server that asks for more with `Retry-After` (seconds) is given more, also beyond the
        maximum.
        """
        if failures < 1:
            return 0.0
        doubled = self.first_seconds * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        return max(retry_after, min(doubled, self.max_seconds))

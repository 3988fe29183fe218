"""When to try again: at the interval, and after failures soon at first, then ever more rarely."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

_FIRST: Final = timedelta(seconds=5)
#: However long it has failed, so soon is it noticed that it works again.
_CEILING: Final = timedelta(minutes=5)
#: Of the pause: how much it varies, so that replicas do not come all at once.
_JITTER: Final = 0.1


def pause_before_sync(interval: timedelta, failures: int, chance: float) -> timedelta:
    """How long to rest until the next sync.

    Args:
        interval: between two that succeed.
        failures: how many in a row have failed until now.
        chance: a random number from 0 to 1.
    """
    pause = interval
    if failures:
        ceiling = max(interval, _CEILING)
        pause = min(min(interval, _FIRST) * 2 ** min(failures - 1, 30), ceiling)
    return pause * (1 + _JITTER * (2 * chance - 1))

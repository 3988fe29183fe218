"""This replica's clock, held against the API server's.

Limits, cooldowns and waits are counted in times that replicas write on Jobs for each other. One
whose clock is an hour ahead would find every cooldown over and every waiting Job too old. So each
answer's `Date` is compared, and between two answers the clock itself is held against one that
never jumps: a replica whose clock cannot be right says so, and decides nothing by it.

How long an answer took makes the comparison less exact, never wrong: a clock is found to be off
only where no moment between question and answer could explain the `Date`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.domain.errors import ClockWrong

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)

#: So far apart two clocks may be: half of what a wobbling startsAt may be off.
TOLERANCE: Final = timedelta(seconds=30)
_SECOND: Final = timedelta(seconds=1)  # a Date has no fractions
_NONE: Final = timedelta(0)


class Clock:
    """The wall clock, as long as it can be trusted.

    `wall` tells the time, `steady` seconds that never jump, also over a sleep of the machine.
    """

    def __init__(self, wall: Callable[[], datetime], steady: Callable[[], float]) -> None:
        """Trust the clock until something speaks against it."""
        self._wall = wall
        self._steady = steady
        self._anchor: datetime | None = None  # the wall's time at second 0 of the steady clock
        self._off = ""

    @property
    def trouble(self) -> str:
        """Why the clock is not to be trusted, in words; empty where it is."""
        jumped = self._jumped()
        if not self._off and abs(jumped) > TOLERANCE:
            way = "ahead" if jumped > _NONE else "back"
            return f"the clock of this replica jumped {abs(jumped) // _SECOND} s {way}"
        return self._off

    def now(self) -> datetime:
        """The time in UTC.

        Raises:
            ClockWrong: it cannot be right.
        """
        if trouble := self.trouble:
            raise ClockWrong(trouble)
        return self._wall()

    def seconds(self) -> float:
        """The steady clock's seconds: when a question was asked, for `compare`."""
        return self._steady()

    def compare(self, asked: float, date: str | None) -> None:
        """Hold the clock against the `Date` of an answer to what was asked at `asked`."""
        try:
            theirs = parsedate_to_datetime(date or "").astimezone(UTC)
        except ValueError:
            return
        now = self._wall()
        took = timedelta(seconds=self._steady() - asked)
        ahead = now - took - (theirs + _SECOND)
        behind = theirs - now
        off = max(ahead, _NONE) - max(behind, _NONE)
        was, self._off = self._off, ""
        if abs(off) > TOLERANCE:
            way = "ahead of" if off > _NONE else "behind"
            self._off = (
                f"the clock of this replica is {abs(off) // _SECOND} s {way} the API server's: "
                "nothing is decided by it"
            )
        else:
            self._anchor = now - timedelta(seconds=self._steady())
        if bool(was) is not bool(self._off):
            _log.warning("the clock is wrong" if self._off else "the clock is right again")

    def _jumped(self) -> timedelta:
        """How far the wall clock went further than the steady one, since they were compared."""
        if self._anchor is None:
            return _NONE
        return self._wall() - self._anchor - timedelta(seconds=self._steady())

"""Compares this replica's clock with the API server's.

Limits, cooldowns and waits are computed from times that replicas write on Jobs for each other. A
replica whose clock is an hour ahead would find every cooldown over and every waiting Job too old.
So the `Date` of each response is compared, and between responses the wall clock is compared with
the monotonic clock. A replica whose clock is wrong reports it, and makes no decisions.

A slow response makes the comparison less precise, never wrong: the clock is only considered wrong
if no moment between the request and the response can explain the `Date`.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from openfero_gitops.domain.errors import ClockWrong
from openfero_gitops.domain.timestamp import parse_http_date

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_log = structlog.get_logger(__name__)

#: How much two clocks may differ: half of the tolerance for startsAt.
TOLERANCE: Final = timedelta(seconds=30)
_SECOND: Final = timedelta(seconds=1)  # a Date has no fractions
#: The same Date is not compared again within this time: it shows nothing new.
_COMPARED_AGAIN_SECONDS: Final = 1.0
_NONE: Final = timedelta(0)


class Clock:
    """The wall clock, as long as it is right.

    `wall` returns the time; `steady` returns monotonic seconds that include a suspended machine.
    """

    def __init__(
        self, wall: Callable[[], datetime], steady: Callable[[], float], *, log: bool = True
    ) -> None:
        """Consider the clock right until a comparison shows otherwise; `log` tells when it does."""
        self._log = log
        self._wall = wall
        self._steady = steady
        self._anchor: datetime | None = None  # the wall's time at second 0 of the steady clock
        self._off = ""
        self._compared = ("", -math.inf)  # the last Date that showed no error, and when
        #: How much the clock was certainly ahead (or, below zero, behind) at the last comparison.
        self.difference = _NONE

    @property
    def trouble(self) -> str:
        """Why the clock is wrong; empty if it is right."""
        jumped = self._jumped()
        if not self._off and abs(jumped) > TOLERANCE:
            way = "ahead" if jumped > _NONE else "back"
            return (
                f"the clock of this replica jumped {abs(jumped) // _SECOND} s {way}; it makes no "
                "decisions until its clock is right"
            )
        return self._off

    def now(self) -> datetime:
        """Return the time in UTC.

        Raises:
            ClockWrong: the clock is wrong.
        """
        if trouble := self.trouble:
            raise ClockWrong(trouble)
        return self._wall()

    def server_now(self) -> datetime:
        """Return the time in UTC by the API server's clock, as of the last comparison.

        For users: their clocks may be wrong, and decide nothing.
        """
        return self._wall() - self.difference

    def seconds(self) -> float:
        """Return monotonic seconds, for `compare`."""
        return self._steady()

    def compare(self, sent_at: float, date: str | None) -> None:
        """Compare the clock with the `Date` of the response to a request sent at `sent_at`."""
        compared, compared_at = self._compared
        if date == compared and sent_at - compared_at < _COMPARED_AGAIN_SECONDS:
            return
        theirs = parse_http_date(date)
        if theirs is None:
            return
        now, steady = self._wall(), self._steady()
        took = timedelta(seconds=steady - sent_at)
        ahead = now - took - (theirs + _SECOND)
        behind = theirs - now
        off = max(ahead, _NONE) - max(behind, _NONE)
        self.difference = off
        was, self._off = self._off, ""
        if abs(off) > TOLERANCE:
            way = "ahead of" if off > _NONE else "behind"
            self._off = (
                f"the clock of this replica is {abs(off) // _SECOND} s {way} the API server's; it "
                "makes no decisions until its clock is right"
            )
        else:
            self._anchor = now - timedelta(seconds=steady)
            self._compared = (date or "", steady)
        if self._log and bool(was) is not bool(self._off):
            _log.warning("clock is wrong" if self._off else "clock is right again")

    def _jumped(self) -> timedelta:
        """Return how much the wall clock has gained on the monotonic clock since the comparison."""
        if self._anchor is None:
            return _NONE
        return self._wall() - self._anchor - timedelta(seconds=self._steady())

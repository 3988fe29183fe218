"""A term of leadership, as the work of the leader sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from openfero_gitops.domain.errors import OpenFeroError

if TYPE_CHECKING:
    from collections.abc import Callable


class TermEnded(OpenFeroError):
    """The replica does not lead any more: the write must not be sent."""


class LeaseTerm:
    """One term. Its id is never used again, and a term that has ended stays ended.

    `clock` returns seconds, `deadline` is by that clock. `continues` is the id of this replica's
    last term, if no other replica led since. `handed_over` says that no earlier leader left an
    admission in flight, `settled` (after the term) that this one left none either.

    `closing` is set when the replica stops: the work must then start nothing new, and call
    `finish` when all that it started is done.
    """

    __slots__ = (
        "_clock",
        "_deadline",
        "_ended",
        "closing",
        "continues",
        "finished",
        "handed_over",
        "id",
        "settled",
    )

    def __init__(
        self,
        term_id: str,
        clock: Callable[[], float],
        deadline: float,
        continues: str = "",
        *,
        handed_over: bool = False,
    ) -> None:
        self.id = term_id
        self.continues = continues
        self.handed_over = handed_over
        self.closing = asyncio.Event()
        self.finished = asyncio.Event()
        self._clock = clock
        self._deadline = deadline
        self._ended = False
        self.settled = False

    def finish(self, *, settled: bool) -> None:
        """Report that all started work is done; it only counts while the term is closing.

        `settled` says that no admission is in flight, of this term or an earlier one.
        """
        self.settled = settled and self.closing.is_set() and self.holds()
        self.finished.set()

    def holds(self) -> bool:
        """Whether the replica still leads, by the clock alone."""
        return self.remaining() > 0

    def check(self) -> None:
        """Call this after the last await before each write.

        Raises:
            TermEnded: the replica does not lead any more.
        """
        if not self.holds():
            raise TermEnded(f"term {self.id} has ended: no write is allowed")

    def remaining(self) -> float:
        """Seconds until the term ends without another renewal; usable as a write's timeout."""
        left = self._deadline - self._clock()
        if left <= 0:
            self._ended = True
        return 0.0 if self._ended else left

    def extend(self, deadline: float) -> bool:
        """Move the deadline; False, without effect, if the term has ended."""
        if not self.holds():
            return False
        self._deadline = max(self._deadline, deadline)
        return True

    def end(self) -> None:
        """End the term now."""
        self._ended = True

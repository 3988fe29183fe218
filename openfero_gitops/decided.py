"""What stands before each waiting Job, for those who only show it.

Deciding goes over every Job there is, in one turn of the event loop. However many pages are
looked at, and however fast Jobs change, no more than a small part of the time goes there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from openfero_gitops.admission.decide import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from openfero_gitops.admission.decide import Decision
    from openfero_gitops.domain.catalog import Envelope
    from openfero_gitops.domain.remediation import JobKey
    from openfero_gitops.jobs.view import View

#: Seconds after which the clock alone may have changed what is shown.
_FRESH: Final = 1.0
#: Times as long as deciding took is its answer used, whatever changed.
_REST: Final = 9.0


class Decided:
    """The decisions on what is known, made anew when they may have changed."""

    def __init__(self, view: View, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the view, and a clock in seconds."""
        self._view = view
        self._clock = clock
        self._answer: Mapping[JobKey, Decision] = {}
        self._rests_on: tuple[int, Envelope | None, bool] | None = None
        self._not_before = self._until = clock()

    def get(
        self, envelope: Envelope | None, *, paused: bool, now: datetime
    ) -> Mapping[JobKey, Decision]:
        """What is decided on each waiting Job: as of now, or of a moment ago."""
        rests_on = (self._view.changes, envelope, paused)
        began = self._clock()
        stale = began >= self._until or rests_on != self._rests_on
        if stale and began >= self._not_before:
            decided = decide(self._view, envelope, paused=paused, now=now)
            self._answer = {one.key: decision for one, decision in decided}
            self._rests_on = rests_on
            ended = self._clock()
            self._not_before = ended + (ended - began) * _REST
            self._until = ended + _FRESH
        return self._answer

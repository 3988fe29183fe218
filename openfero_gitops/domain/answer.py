"""The answer to a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Alert, InvalidAlert
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import JobKey, Outcome


class Verdict(IntEnum):
    """What the sender must do, as an HTTP status: Alertmanager only repeats after a 5xx.

    The verdict of a delivery is the greatest of its alerts' verdicts.
    """

    ACCEPTED = 200
    UNPROCESSABLE = 422
    REPEAT = 503


@dataclass(frozen=True, slots=True)
class Item:
    """The result of one alert."""

    alert: Alert | InvalidAlert
    outcome: Outcome
    reason: Reason | None = None
    message: str = ""
    operario: str = ""
    job: JobKey | None = None
    verdict: Verdict = Verdict.ACCEPTED


@dataclass(frozen=True, slots=True)
class Answer:
    """The results of a delivery, in the order of its alerts."""

    items: tuple[Item, ...]

    @property
    def verdict(self) -> Verdict:
        """200 only if every matched alert has its Job."""
        return max((item.verdict for item in self.items), default=Verdict.ACCEPTED)

    def count(self, outcome: Outcome) -> int:
        """Count the alerts with an outcome."""
        return sum(item.outcome is outcome for item in self.items)

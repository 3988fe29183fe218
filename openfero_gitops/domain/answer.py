"""The answer to a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    @property
    def counts(self) -> Mapping[tuple[Outcome, Reason | None], int]:
        """Count the alerts with each outcome and reason that occurs."""
        counts: dict[tuple[Outcome, Reason | None], int] = {}
        for item in self.items:
            key = item.outcome, item.reason
            counts[key] = counts.get(key, 0) + 1
        return counts

    def count(self, *outcomes: Outcome) -> int:
        """Count the alerts with one of some outcomes."""
        return sum(item.outcome in outcomes for item in self.items)

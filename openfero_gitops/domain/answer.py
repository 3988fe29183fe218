"""What a delivery is answered with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfero_gitops.domain.alert import Alert
    from openfero_gitops.domain.reason import Reason
    from openfero_gitops.domain.remediation import JobKey, Outcome


class Verdict(IntEnum):
    """What the sender is to do, as an HTTP status: Alertmanager repeats a 5xx and nothing else.

    Ordered by precedence: of several alerts' verdicts the greatest stands.
    """

    ACCEPTED = 200
    UNPROCESSABLE = 422
    REPEAT = 503


@dataclass(frozen=True, slots=True)
class Item:
    """What became of one alert."""

    alert: Alert
    outcome: Outcome
    reason: Reason | None = None
    message: str = ""
    operario: str = ""
    job: JobKey | None = None
    verdict: Verdict = Verdict.ACCEPTED


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a whole delivery, alert by alert in its order."""

    items: tuple[Item, ...]

    @property
    def verdict(self) -> Verdict:
        """200 only where every matched alert has its Job."""
        return max((item.verdict for item in self.items), default=Verdict.ACCEPTED)

    def count(self, outcome: Outcome) -> int:
        """How many alerts ended so."""
        return sum(item.outcome is outcome for item in self.items)

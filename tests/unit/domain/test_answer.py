from __future__ import annotations

import pytest

from openfero_gitops.domain.answer import Answer, Item, Verdict
from openfero_gitops.domain.remediation import Outcome
from tests.support.build import alert


def answer(*verdicts: Verdict) -> Answer:
    """Return an answer with these verdicts."""
    return Answer(tuple(Item(alert(), Outcome.ERROR, verdict=verdict) for verdict in verdicts))


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([], 200),
        ([Verdict.ACCEPTED], 200),
        ([Verdict.ACCEPTED, Verdict.UNPROCESSABLE], 422),
        ([Verdict.REPEAT, Verdict.ACCEPTED], 503),
        ([Verdict.UNPROCESSABLE, Verdict.REPEAT, Verdict.UNPROCESSABLE], 503),
    ],
)
def test_one_alert_that_must_be_repeated_decides(verdicts: list[Verdict], status: int) -> None:
    """503 takes precedence over 422; 200 is only for complete deliveries."""
    assert answer(*verdicts).verdict == status


def test_outcomes_are_counted() -> None:
    """The number of alerts with each outcome is known."""
    mixed = Answer((Item(alert(), Outcome.CREATED), Item(alert(), Outcome.EXISTS)))

    assert [mixed.count(outcome) for outcome in Outcome] == [1, 1, 0, 0, 0, 0]
    assert mixed.count(Outcome.CREATED, Outcome.EXISTS) == 2
    assert mixed.counts == {(Outcome.CREATED, None): 1, (Outcome.EXISTS, None): 1}
    assert mixed.verdict is Verdict.ACCEPTED

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.row import not_healed_in_row
from tests.support.build import NOW, minutes, remediation

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

HEALED, NOT_HEALED = Effect.HEALED, Effect.NOT_HEALED


def run(number: int, effect: Effect | None, **given: Any) -> Remediation:
    """Make a Job that started at minute `number`."""
    started_at = NOW + minutes(number)
    return remediation(f"job-{number}", started_at=started_at, effect=effect, **given)


@pytest.mark.parametrize(
    ("effects", "count"),
    [
        ((), None),
        ((HEALED,), None),
        ((NOT_HEALED,), 1),
        ((HEALED, NOT_HEALED, NOT_HEALED), 2),
        ((NOT_HEALED, HEALED, NOT_HEALED), 1),
        ((NOT_HEALED, NOT_HEALED, HEALED), None),
        ((NOT_HEALED, None, Effect.UNKNOWN, NOT_HEALED, None), 2),
    ],
)
def test_runs_are_counted_back_to_the_first_that_healed(
    effects: tuple[Effect | None, ...], count: int | None
) -> None:
    """Pending and unknown effects are skipped, whatever the order in which Jobs are read."""
    jobs = [run(number, effect) for number, effect in enumerate(effects)]
    expected = {} if count is None else {jobs[0].operario: count}
    assert not_healed_in_row(reversed(jobs)) == expected
    assert not_healed_in_row(jobs) == expected


def test_each_version_of_each_operario_is_counted_alone() -> None:
    """A new version starts again, and other operarios and targets do not matter."""
    jobs = [
        run(1, NOT_HEALED, operario="a", target="x", spec_digest="old"),
        run(2, NOT_HEALED, operario="a", target="x", spec_digest="new"),
        run(3, NOT_HEALED, operario="a", target="y", spec_digest="new"),
        run(4, HEALED, operario="b"),
        run(5, NOT_HEALED, operario="b"),
    ]
    assert not_healed_in_row(jobs) == {"a": 2, "b": 1}


def test_dry_runs_are_not_counted() -> None:
    """A Job that was never started cannot heal."""
    trial = remediation("a", phase=Phase.REFUSED, reason=Reason.DRY_RUN, effect=NOT_HEALED)
    assert not_healed_in_row([trial]) == {}

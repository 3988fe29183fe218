"""What failed and needs a person."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.unresolved import find_unresolved
from tests.support.build import NOW, finished, minutes

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

REMEMBER = timedelta(hours=24)


def job(name: str = "job-1", **changes: Any) -> Remediation:
    """Return a remediation whose Job ended at `NOW`, and whose alert still fires."""
    return finished(name, **{"finished_at": NOW, "starts_at": NOW - minutes(5), **changes})


def failed(name: str = "job-1", **changes: Any) -> Remediation:
    """Return one whose Job failed."""
    return job(name, **{"phase": Phase.FAILED, "message": "exit code 3", **changes})


def not_healed(**changes: Any) -> Remediation:
    """Return one that did not heal its alert."""
    effect = {"effect": Effect.NOT_HEALED, "effect_at": NOW + minutes(16)}
    return job(**{**effect, "effect_message": "still firing", **changes})


@pytest.mark.parametrize(
    ("remediation", "others", "message"),
    [
        (failed(), [], "exit code 3"),
        (failed(message="", reason="DeadlineExceeded"), [], "DeadlineExceeded"),
        (failed(resolved_at=NOW + minutes(1)), [], None),
        (failed(deleting=True), [], None),
        (failed(), [failed("job-2", attempt=2)], "exit code 3"),
        (failed(status=Status.RESOLVED), [], "exit code 3"),
        (
            failed(status=Status.RESOLVED),
            [job("job-2", status=Status.RESOLVED, received_at=NOW + minutes(1))],
            None,
        ),
        (job(), [], None),
        (job(effect=Effect.UNKNOWN, effect_at=NOW), [], None),
        (not_healed(), [], "still firing"),
        (not_healed(resolved_at=NOW + minutes(17)), [], None),
    ],
)
def test_an_unresolved_failure_is_reported(
    remediation: Remediation, others: list[Remediation], message: str | None
) -> None:
    """Until its alert is resolved, or what had to be undone is undone."""
    now = NOW + minutes(20)
    unresolved = find_unresolved(remediation, [remediation, *others], REMEMBER, now)
    assert (unresolved and unresolved.message) == message
    if unresolved is not None:
        assert unresolved.failed is (remediation.phase is Phase.FAILED)
        assert unresolved.until == NOW + REMEMBER


@pytest.mark.parametrize("remediation", [failed(), not_healed()])
def test_a_failure_is_not_reported_for_longer_than_it_is_remembered(
    remediation: Remediation,
) -> None:
    """An alert of which nothing is heard any more may be gone."""
    for age, is_reported in ((REMEMBER - minutes(1), True), (REMEMBER, False)):
        unresolved = find_unresolved(remediation, [remediation], REMEMBER, NOW + age)
        assert (unresolved is not None) is is_reported

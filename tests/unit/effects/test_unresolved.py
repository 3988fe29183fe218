"""What failed and needs a person."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase, Remediation
from openfero_gitops.effects.assess import index_incidents
from openfero_gitops.effects.incident import Incident
from openfero_gitops.effects.unresolved import Unresolved, find_unresolved, list_unresolved
from tests.support.build import NOW, finished, minutes

if TYPE_CHECKING:
    from collections.abc import Callable

REMEMBER = timedelta(hours=24)


def job(name: str = "job-1", **changes: Any) -> Remediation:
    """Return a remediation whose Job ended at `NOW`, and whose alert still fires."""
    return finished(name, **{"finished_at": NOW, "starts_at": NOW - minutes(5), **changes})


def failed(name: str = "job-1", **changes: Any) -> Remediation:
    """Return one whose Job failed."""
    return job(name, **{"phase": Phase.FAILED, "message": "exit code 3", **changes})


def not_healed(**changes: Any) -> Remediation:
    """Return one that did not heal its alert."""
    effect: dict[str, Any] = {"effect": Effect.NOT_HEALED, "effect_at": NOW + minutes(16)}
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
    incident = Incident([remediation, *others])
    unresolved = find_unresolved(remediation, lambda _: incident, REMEMBER, now)
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
        unresolved = list_unresolved(
            [remediation], lambda job: Incident([job]), REMEMBER, NOW + age
        )
        assert bool(unresolved) is is_reported


def test_the_newest_job_of_each_incident_is_listed() -> None:
    """Each earlier attempt for the same alert failed, too, but needs nothing of its own."""
    attempts = [
        failed(f"job-{number}", attempt=number, received_at=NOW + minutes(number))
        for number in (2, 3, 1)
    ]
    other = not_healed(name="other", labels={"alertname": "Other"})
    listed = list_of([*attempts, other])
    assert [unresolved.remediation.key.name for unresolved in listed] == ["job-3", "other"]


def fires_again(number: int) -> Remediation:
    """Return a Job that did not heal its alert, which was resolved and fired again."""
    return not_healed(
        name=f"job-{number}",
        starts_at=NOW + minutes(number),
        received_at=NOW + minutes(number),
        resolved_at=NOW + minutes(number + 0.5),
    )


def failed_undo(number: int) -> Remediation:
    """Return a Job for a resolved alert; each second one succeeded."""
    return failed(
        f"job-{number}",
        phase=Phase.FAILED if number % 2 else Phase.SUCCEEDED,
        status=Status.RESOLVED,
        received_at=NOW + minutes(number),
    )


@pytest.mark.parametrize("make", [fires_again, failed_undo])
def test_the_work_grows_with_the_number_of_jobs(make: Callable[[int], Remediation]) -> None:
    """Not with its square, if they all are of one incident."""
    read = 0

    def order(job: Remediation) -> object:
        nonlocal read
        read += 1
        return original(job)

    original = Remediation.order.fget
    counts = []
    for count in (50, 200):
        read = 0
        with mock.patch.object(Remediation, "order", property(order)):
            list_of([make(number) for number in range(count)])
        counts.append(read)
    assert counts[1] <= 5 * counts[0]
    assert counts[0] <= 200


def list_of(jobs: list[Remediation]) -> list[Unresolved]:
    """List what needs a person of these Jobs, which are all that exist."""
    incidents = index_incidents(jobs)
    return list_unresolved(jobs, lambda job: incidents[job.incident], REMEMBER, NOW + minutes(250))

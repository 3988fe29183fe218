from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.delivery.attempt import (
    healing_job,
    is_next_attempt_due,
    jobs_to_keep,
    runs_so_far,
)
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.operario import OnResolve, Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from tests.support.build import (
    NOW,
    STARTS_AT,
    finished,
    minutes,
    refused,
    remediation,
    running,
    seconds,
)

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

RERUN = Options(rerun_after=minutes(5), max_runs=3)


@pytest.mark.parametrize(
    ("latest", "runs", "after", "another"),
    [
        (refused("a", "max-wait"), 0, 0, True),
        (refused("a", "max-wait"), 99, 0, True),
        (refused("a", "not-helping"), 0, 0, True),
        (refused("a", "not-helping", status=Status.RESOLVED), 0, 0, False),
        (refused("a", "resolved"), 0, 9, False),
        (refused("a", "refused-by-human", options=RERUN), 0, 9, False),
        (refused("a", "dry-run", options=RERUN), 0, 9, False),
        (refused("a", "max-wait", status=Status.RESOLVED), 0, 0, False),
        (remediation("a", phase=Phase.CANCELLED, reason="max-wait", options=RERUN), 0, 9, False),
        (remediation("a", options=RERUN), 0, 9, False),
        (running("a", options=RERUN), 1, 9, False),
        (running("a", phase=Phase.HELD, finished_at=NOW, options=RERUN), 1, 9, False),
        (finished("a"), 1, 9, False),
        (finished("a", options=RERUN), 1, 5, True),
        (finished("a", options=RERUN), 2, 5, True),
        (finished("a", options=RERUN), 3, 5, False),
        (finished("a", options=RERUN), 1, 4.99, False),
        (finished("a", options=RERUN, phase=Phase.FAILED), 1, 5, True),
        (finished("a", options=RERUN, finished_at=None), 1, 5, False),
        (finished("a", options=RERUN, resolved_at=NOW), 1, 5, False),
        (finished("a", options=RERUN, status=Status.RESOLVED), 1, 5, False),
        (finished("a", options=Options(rerun_after=minutes(5), max_runs=0)), 0, 5, False),
    ],
)
def test_when_the_next_attempt_is_due(
    latest: Remediation,
    runs: int,
    after: float,
    another: bool,  # noqa: FBT001
) -> None:
    """Always after max-wait and not-helping; after an end, if rerun-after and max-runs say so."""
    assert is_next_attempt_due(latest, runs, NOW + minutes(after)) is another


PAIR = {"replica_labels": ("prometheus_replica",), "resolved_at": NOW}
STOPPED = {"phase": Phase.CANCELLED, "reason": "resolved", **PAIR}


@pytest.mark.parametrize(
    ("latest", "after", "another"),
    [
        (refused("a", "resolved", **PAIR), 1.1, True),
        (refused("a", "resolved", **PAIR), 1, False),
        (refused("a", "resolved", **PAIR), -1, False),
        (refused("a", "resolved", resolved_at=NOW), 9, False),
        (refused("a", "resolved", status=Status.RESOLVED, **PAIR), 9, False),
        (refused("a", "refused-by-human", **PAIR), 9, False),
        (refused("a", "dry-run", **PAIR), 9, False),
        (remediation("a", **STOPPED), 9, True),
        (remediation("a", admitted_at=NOW, started=True, **STOPPED), 9, True),
        (remediation("a", admitted_at=NOW, started=True, starts=1, **STOPPED), 9, False),
        (running("a", **PAIR), 9, False),
        (finished("a", **PAIR), 9, False),
        (finished("a", phase=Phase.FAILED, **PAIR), 9, False),
        (remediation("a", **PAIR), 1, False),
        (remediation("a", **PAIR), 9, True),
        (remediation("a", options=Options(on_resolve=OnResolve.KEEP), **PAIR), 9, False),
        (remediation("a", replica_labels=("prometheus_replica",)), 9, False),
    ],
)
def test_a_member_that_still_fires_gets_an_attempt_if_none_started(
    latest: Remediation,
    after: float,
    another: bool,  # noqa: FBT001
) -> None:
    """Another member resolved the alert of a pair; a Job that started is never repeated."""
    assert is_next_attempt_due(latest, 0, NOW + minutes(after)) is another


def test_attempts_that_started_are_runs() -> None:
    """An attempt that was refused before it started is not a run."""
    assert runs_so_far([finished("a"), refused("b"), running("c"), remediation("d")]) == 2
    assert runs_so_far([]) == 0


def test_of_attempts_that_waited_too_long_the_newest_is_kept() -> None:
    """All other Jobs are kept, too; each startsAt counts separately."""
    late = [refused(f"late-{n}", "max-wait", attempt=n) for n in (2, 3, 5)]
    other = refused("other", "max-wait", attempt=1, starts_at=STARTS_AT - minutes(5))
    others = [finished("done", attempt=1), refused("no", "refused-by-human", attempt=4)]

    kept = {job.key.name for job in jobs_to_keep([*late, other, *others])}
    assert kept == {"late-5", "other", "done", "no"}
    assert jobs_to_keep([*late[:2], remediation("next", attempt=4)])[0].key.name == "next"


def duplicate(reason: Reason = Reason.SAME_INCIDENT, **given: Any) -> Remediation:
    """Return a Job that was refused as a duplicate, with another startsAt."""
    return refused("duplicate", reason.value, **{"starts_at": STARTS_AT - seconds(5)} | given)


@pytest.mark.parametrize(
    "healer",
    [
        finished("healer"),
        running("healer"),
        remediation("healer"),
        refused("healer", "max-wait"),
        refused("healer", "refused-by-human"),
        finished("healer", received_at=NOW - seconds(90)),
    ],
)
def test_a_duplicate_depends_on_the_job_that_heals(healer: Remediation) -> None:
    """If only the duplicate's startsAt is still delivered, the end of that Job counts."""
    assert healing_job(duplicate(), [duplicate(), healer]) == healer


def test_a_duplicate_gets_the_attempts_of_the_job_that_heals() -> None:
    """Another attempt follows if that Job waited too long, or is to be rerun."""
    late = refused("healer", "max-wait")
    done = finished("healer", options=RERUN)

    assert is_next_attempt_due(healing_job(duplicate(), [late]), 0, NOW)
    assert is_next_attempt_due(healing_job(duplicate(), [done]), 1, NOW + minutes(5))
    assert not is_next_attempt_due(healing_job(duplicate(), [running("healer")]), 1, NOW)


@pytest.mark.parametrize(
    "other",
    [
        finished("other", attempt=2),
        finished("other", starts_at=None),
        finished("other", received_at=NOW - minutes(2), starts_at=NOW - minutes(3)),
        finished("other", resolved_at=STARTS_AT - minutes(1)),
        refused("other", "same-incident"),
        refused("other", "same-occurrence"),
    ],
)
def test_other_jobs_do_not_count_for_a_duplicate(other: Remediation) -> None:
    """Other attempts, other incidents and other duplicates are ignored."""
    assert healing_job(duplicate(), [other]) == duplicate()


def test_a_job_in_another_namespace_counts_for_a_duplicate() -> None:
    """An occurrence spans namespaces, also without startsAt."""
    job = duplicate(Reason.SAME_OCCURRENCE, starts_at=None, occurrence="o")
    namesake = finished("healer", starts_at=None, occurrence="o", namespace="other")

    assert healing_job(job, [job, namesake]) == namesake


def test_of_several_jobs_the_one_that_continues_counts() -> None:
    """One that has not ended comes first, then one that started."""
    jobs = [
        refused("a", "max-wait", received_at=NOW + seconds(5)),
        finished("b"),
        finished("c", received_at=NOW + seconds(1)),
    ]
    waiting = remediation("d", received_at=NOW - seconds(1))

    assert healing_job(duplicate(), jobs).key.name == "c"
    assert healing_job(duplicate(), [*jobs, waiting]) == waiting


@pytest.mark.parametrize("job", [remediation("a"), finished("a"), refused("a", "max-wait")])
def test_any_other_job_heals_itself(job: Remediation) -> None:
    """Only duplicates depend on another Job."""
    assert healing_job(job, [running("b")]) is job

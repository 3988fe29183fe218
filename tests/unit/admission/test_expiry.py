"""Which Jobs are deleted, and which are never deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.admission.expiry import Expiry, expired_jobs
from openfero_gitops.domain import keys
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.remediation import JobKey, Phase
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.jobs.observe import read_remediation as observe_job
from tests.support import build
from tests.support.copying import replace

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

ENVELOPE = Envelope(limits=Limits(history=3))
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def last_delivered(job: Remediation, since: timedelta) -> Remediation:
    """The same Job, last delivered so long ago."""
    moment = build.NOW - since
    return replace(
        job,
        received_at=moment,
        delivered_at=moment,
        finished_at=moment if job.finished else None,
    )


def why(*jobs: Remediation, **envelope: Any) -> dict[str, Expiry]:
    """Return why Jobs are deleted, by name."""
    expired = expired_jobs(jobs, replace(ENVELOPE, **envelope), build.NOW)
    return {job.key.name: reason for job, reason in expired}


@pytest.mark.parametrize("reason", ["resolved", "max-wait", "same-incident"])
def test_a_refused_job_is_deleted_after_remember(reason: str) -> None:
    """Counted from its last delivery, not from its first."""
    refused = build.refused(reason=reason)
    assert why(last_delivered(refused, DAY)) == {}
    assert why(last_delivered(refused, DAY + SECOND)) == {"job-1": Expiry.DECIDED}
    repeated = replace(last_delivered(refused, 30 * DAY), delivered_at=build.NOW - DAY)
    assert why(repeated) == {}


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.AWAITING_APPROVAL, Phase.HELD])
def test_an_open_job_is_kept_longer(phase: Phase) -> None:
    """A week by default; then its alert has surely gone."""
    job = replace(build.remediation(), phase=phase, suspended=True)
    assert why(last_delivered(job, 7 * DAY)) == {}
    assert why(last_delivered(job, 7 * DAY + SECOND)) == {"job-1": Expiry.ALERT_GONE}


@pytest.mark.parametrize("phase", list(Phase))
def test_a_job_that_may_have_pods_is_never_deleted(phase: Phase) -> None:
    """Whatever its annotations say, and however old it is."""
    job = last_delivered(replace(build.running(), phase=phase, finished=False), 400 * DAY)
    assert why(replace(job, suspended=False)) == {}
    assert why(replace(job, suspended=True, active=1)) == {}


@pytest.mark.parametrize("since", ["delivered_at", "admitted_at", "started_at", "suspended_at"])
def test_a_queued_job_is_kept_longer(since: str) -> None:
    """A week after its last delivery, its hand-over to Kueue, its last start and its last stop."""
    queued = replace(build.remediation(), phase=Phase.QUEUED, suspended=True)
    queued = replace(last_delivered(queued, 400 * DAY), admitted_at=build.NOW - 400 * DAY)
    assert why(queued) == {"job-1": Expiry.STUCK_IN_QUEUE}
    assert why(replace(queued, **{since: build.NOW - 7 * DAY})) == {}
    late = replace(queued, **{since: build.NOW - 7 * DAY - SECOND})
    assert why(late) == {"job-1": Expiry.STUCK_IN_QUEUE}
    assert why(replace(late, suspended=False)) == {}
    assert why(replace(late, active=1)) == {}


@pytest.mark.parametrize("ran_for", [8 * DAY, 30 * DAY, 399 * DAY])
@pytest.mark.parametrize("evicted_since", [SECOND, DAY, 7 * DAY, 7 * DAY + SECOND])
def test_a_job_that_kueue_stops_after_a_long_run_is_kept(
    ran_for: timedelta, evicted_since: timedelta
) -> None:
    """It waits in the queue since then, however long it ran before."""
    stopped = build.NOW - evicted_since
    began = format_time(stopped - ran_for)
    job = observe_job(
        build.stored(
            labels={keys.KUEUE_QUEUE: "nightly"},
            annotations={
                keys.ADMITTED_AT: began,
                keys.STARTED_AT: began,
                keys.START_COUNT: "1",
                keys.RECEIVED_AT: began,
                keys.LAST_DELIVERED_AT: began,
            },
            spec={"suspend": True},
            status={
                "conditions": [
                    {
                        "type": "Suspended",
                        "status": "True",
                        "lastTransitionTime": format_time(stopped),
                    }
                ]
            },
        )
    )
    assert job.phase is Phase.QUEUED
    is_old = evicted_since > 7 * DAY
    assert why(job) == ({job.key.name: Expiry.STUCK_IN_QUEUE} if is_old else {})


@pytest.mark.parametrize("mark", ["occurrence", "operario"])
def test_a_job_without_our_annotations_is_never_deleted(mark: str) -> None:
    """A label alone does not make a Job one of this controller."""
    refused = last_delivered(build.refused(), 400 * DAY)
    assert why(replace(refused, **{mark: ""})) == {}
    assert why(replace(refused, deleting=True)) == {}


def ended(number: int, age: timedelta, **given: Any) -> Remediation:
    """Make a Job that completed so long ago, with a TTL of a year."""
    job = build.finished(f"job-{number}", **given)
    return last_delivered(replace(job, ttl_seconds=365 * 86_400), age)


def test_the_history_of_an_operario_is_bounded() -> None:
    """The newest are kept; those of other operarios do not count, and young ones stay."""
    old = [ended(number, DAY * (2 + number)) for number in range(6)]
    assert why(*old) == {f"job-{n}": Expiry.HISTORY for n in (3, 4, 5)}
    young = [ended(number, timedelta(hours=number)) for number in range(6)]
    assert why(*young) == {}
    mixed = [*young[:2], *(ended(10 + n, DAY * (2 + n)) for n in range(3))]
    assert why(*mixed) == {"job-11": Expiry.HISTORY, "job-12": Expiry.HISTORY}
    others = [replace(job, operario=f"op-{n}") for n, job in enumerate(old)]
    assert why(*others) == {}
    assert len(why(*old, limits=Limits(history=0))) == 6


def test_a_finished_job_is_deleted_if_kubernetes_does_not() -> None:
    """Without a TTL it is deleted after `remember`."""
    job = build.finished()
    spared = last_delivered(replace(job, ttl_seconds=86_400), DAY + timedelta(minutes=10))
    assert why(spared) == {}
    assert why(last_delivered(replace(job, ttl_seconds=86_400), DAY + timedelta(minutes=20))) == {
        "job-1": Expiry.OVERDUE
    }
    assert why(last_delivered(replace(job, ttl_seconds=None), 2 * DAY)) == {"job-1": Expiry.OVERDUE}
    assert why(last_delivered(replace(job, ttl_seconds=3 * 86_400), 2 * DAY)) == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Phase)),
            st.timedeltas(timedelta(0), 400 * DAY),
            st.booleans(),
            st.booleans(),
            st.integers(0, 2),
        ),
        max_size=12,
    ),
    st.timedeltas(timedelta(minutes=1), 30 * DAY),
    st.integers(0, 3),
)
def test_nothing_is_deleted_within_remember(
    drawn: list[tuple[Phase, timedelta, bool, bool, int]], remember: timedelta, history: int
) -> None:
    """Nor a Job with Pods; the one with the oldest delivery is deleted first."""
    jobs = [
        last_delivered(
            replace(
                build.remediation(),
                key=JobKey("jobs", f"job-{index}"),
                phase=phase,
                finished=finished,
                suspended=suspended,
                active=active,
            ),
            age,
        )
        for index, (phase, age, finished, suspended, active) in enumerate(drawn)
    ]
    envelope = Envelope(remember=remember, limits=Limits(history=history))
    expired = [job for job, _ in expired_jobs(jobs, envelope, build.NOW)]
    assert all(job.delivered_at < build.NOW - remember for job in expired)
    assert all(job.finished or (job.suspended and not job.active) for job in expired)
    assert [job.delivered_at for job in expired] == sorted(job.delivered_at for job in expired)

"""Which Jobs go, and which stay whatever happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.admission.expiry import Expiry, expired_jobs
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.remediation import JobKey, Phase
from tests.support import build

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

ENVELOPE = Envelope(limits=Limits(history=3))
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def unheard(job: Remediation, since: timedelta) -> Remediation:
    """The same, last delivered so long ago."""
    moment = build.NOW - since
    return replace(
        job,
        received_at=moment,
        delivered_at=moment,
        finished_at=moment if job.finished else None,
    )


def why(*jobs: Remediation, **envelope: Any) -> dict[str, Expiry]:
    """What is to be removed, by name."""
    expired = expired_jobs(jobs, replace(ENVELOPE, **envelope), build.NOW)
    return {job.key.name: reason for job, reason in expired}


@pytest.mark.parametrize("reason", ["resolved", "max-wait", "same-incident"])
def test_a_refused_job_goes_when_it_is_not_remembered_any_more(reason: str) -> None:
    """Counted from its last delivery, not from its first."""
    refused = build.refused(reason=reason)
    assert why(unheard(refused, DAY)) == {}
    assert why(unheard(refused, DAY + SECOND)) == {"job-1": Expiry.DECIDED}
    repeated = replace(unheard(refused, 30 * DAY), delivered_at=build.NOW - DAY)
    assert why(repeated) == {}


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.AWAITING_APPROVAL, Phase.HELD])
def test_what_waits_for_a_person_is_kept_much_longer(phase: Phase) -> None:
    """A week by default; then its alert has surely gone, though nobody said so."""
    job = replace(build.remediation(), phase=phase, suspended=True)
    assert why(unheard(job, 7 * DAY)) == {}
    assert why(unheard(job, 7 * DAY + SECOND)) == {"job-1": Expiry.ALERT_GONE}


@pytest.mark.parametrize("phase", list(Phase))
def test_what_has_pods_or_may_have_is_never_removed(phase: Phase) -> None:
    """Whatever is written on it, and however old it is."""
    job = unheard(replace(build.running(), phase=phase, finished=False), 400 * DAY)
    assert why(replace(job, suspended=False)) == {}
    assert why(replace(job, suspended=True, active=1)) == {}


def test_what_kueue_holds_is_kueue_s() -> None:
    """It was admitted, and may start at any moment."""
    queued = replace(build.remediation(), phase=Phase.QUEUED, suspended=True)
    assert why(unheard(queued, 400 * DAY)) == {}


@pytest.mark.parametrize("mark", ["occurrence", "operario"])
def test_what_lacks_our_marks_is_not_ours(mark: str) -> None:
    """A label alone makes no Job one of ours."""
    refused = unheard(build.refused(), 400 * DAY)
    assert why(replace(refused, **{mark: ""})) == {}
    assert why(replace(refused, deleting=True)) == {}


def ended(number: int, age: timedelta, **given: Any) -> Remediation:
    """One of several Jobs that completed, so long ago, with a TTL of a year."""
    job = build.finished(f"job-{number}", **given)
    return unheard(replace(job, ttl_seconds=365 * 86_400), age)


def test_an_operario_s_history_is_bounded_beyond_what_is_remembered() -> None:
    """The newest are kept; another operario's do not count, nor is anything young removed."""
    old = [ended(number, DAY * (2 + number)) for number in range(6)]
    assert why(*old) == {f"job-{n}": Expiry.HISTORY for n in (3, 4, 5)}
    young = [ended(number, timedelta(hours=number)) for number in range(6)]
    assert why(*young) == {}
    mixed = [*young[:2], *(ended(10 + n, DAY * (2 + n)) for n in range(3))]
    assert why(*mixed) == {"job-11": Expiry.HISTORY, "job-12": Expiry.HISTORY}
    others = [replace(job, operario=f"op-{n}") for n, job in enumerate(old)]
    assert why(*others) == {}
    assert len(why(*old, limits=Limits(history=0))) == 6


def test_a_finished_job_is_kubernetes_until_it_forgets_it() -> None:
    """Without a TTL, which somebody may have removed, it is remembered and then goes."""
    job = build.finished()
    spared = unheard(replace(job, ttl_seconds=86_400), DAY + timedelta(minutes=10))
    assert why(spared) == {}
    assert why(unheard(replace(job, ttl_seconds=86_400), DAY + timedelta(minutes=20))) == {
        "job-1": Expiry.OVERDUE
    }
    assert why(unheard(replace(job, ttl_seconds=None), 2 * DAY)) == {"job-1": Expiry.OVERDUE}
    assert why(unheard(replace(job, ttl_seconds=3 * 86_400), 2 * DAY)) == {}


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
def test_nothing_that_is_remembered_is_ever_removed(
    drawn: list[tuple[Phase, timedelta, bool, bool, int]], remember: timedelta, history: int
) -> None:
    """Nor anything with Pods; and the longest unheard of goes first."""
    jobs = [
        unheard(
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

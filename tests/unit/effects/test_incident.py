"""The index of an incident: it finds what a search of all Jobs would, without one."""

from __future__ import annotations

import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.admission.decide import decide
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.effects import assess as assessing
from openfero_gitops.effects.assess import assess_all
from openfero_gitops.effects.incident import Incident
from openfero_gitops.effects.incident_index import IncidentIndex
from openfero_gitops.jobs.view import View
from tests.support.build import NOW, finished, minutes, remediation, running
from tests.support.copying import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from openfero_gitops.domain.remediation import Remediation

_MOMENTS = st.integers(0, 6).map(lambda number: NOW + minutes(number))
_MAYBE = st.none() | _MOMENTS


@st.composite
def jobs_of_an_incident(draw: Any) -> list[Remediation]:
    """Draw Jobs of all kinds with few different times."""
    jobs = []
    for number in range(draw(st.integers(0, 8))):
        values = {
            "starts_at": draw(_MAYBE),
            "received_at": draw(_MOMENTS),
            "delivered_at": draw(_MOMENTS),
            "status": draw(st.sampled_from((Status.FIRING,) * 3 + (Status.RESOLVED,))),
            "queue": draw(st.sampled_from((None, None, "batch"))),
        }
        name = f"job-{number}"
        if draw(st.booleans()):
            jobs.append(running(name, **values, since=draw(_MOMENTS)))
        else:
            jobs.append(remediation(name, **values))
    return jobs


@given(jobs_of_an_incident(), _MOMENTS, _MAYBE)
def test_the_index_finds_what_a_search_finds(
    jobs: list[Remediation], moment: Any, began_by: Any
) -> None:
    """Whatever the order and the times of the Jobs."""
    incident = Incident(jobs)
    firing = [job for job in jobs if job.status is Status.FIRING]

    began = [job for job in firing if job.starts_at is not None and job.starts_at > moment]
    began.sort(key=lambda job: (job.starts_at, job.order))
    assert list(incident.began_after(moment)) == began

    def wanted(job: Remediation) -> bool:
        if began_by is None:
            return job.starts_at is None
        return job.starts_at is not None and job.starts_at <= began_by

    ran = [job for job in firing if job.has_run and job.started_at and job.started_at > moment]
    ran.sort(key=lambda job: (job.started_at, job.order))
    assert [job for job in incident.ran_after(moment, began_by) if wanted(job)] == [
        job for job in ran if wanted(job)
    ]

    delivery = incident.last_delivery(began_by)
    delivered = [
        job.delivered_at
        for job in firing
        if began_by is None or job.starts_at is None or job.starts_at <= began_by
    ]
    assert (delivery and delivery.delivered_at) == max(delivered, default=None)


def fires_again(count: int, **values: Any) -> list[Remediation]:
    """Return so many Jobs of an alert that fires again each hour; nothing else is known of it."""
    return [
        finished(
            f"job-{number}",
            began=NOW + minutes(60 * number),
            ended=NOW + minutes(60 * number + 1),
            starts_at=NOW + minutes(60 * number),
            received_at=NOW + minutes(60 * number),
            delivered_at=NOW + minutes(60 * number),
            **values,
        )
        for number in range(count)
    ]


def attempts(count: int) -> list[Remediation]:
    """Return so many attempts for an alert that never stopped firing."""
    return [
        finished(
            f"job-{number}",
            began=NOW + minutes(60 * number),
            ended=NOW + minutes(60 * number + 1),
            received_at=NOW + minutes(60 * number),
            delivered_at=NOW + minutes(60 * number),
            attempt=number + 1,
        )
        for number in range(count)
    ]


def comparisons(jobs: list[Remediation], work: Callable[[list[Remediation]], object]) -> int:
    """Return how often two Jobs, or a Job and a delivery, were compared."""
    with (
        mock.patch.object(
            assessing, "same_incident", wraps=assessing.same_incident
        ) as same_incident,
        mock.patch.object(
            assessing, "is_still_firing", wraps=assessing.is_still_firing
        ) as is_still_firing,
    ):
        work(jobs)
    return same_incident.call_count + is_still_firing.call_count


def assess_much_later(jobs: list[Remediation]) -> object:
    """Assess all Jobs."""
    return assess_all(jobs, NOW + timedelta(days=99))


def decide_much_later(jobs: list[Remediation]) -> object:
    """Decide about one more Job of the operario on the same target."""
    later = NOW + timedelta(days=99)
    waiting = remediation("next", labels={"alertname": "Other"}, received_at=later)
    return decide([*jobs, waiting], Envelope(), pause=None, now=later)


@pytest.mark.parametrize("work", [assess_much_later, decide_much_later])
@pytest.mark.parametrize("jobs_of", [fires_again, attempts])
def test_the_work_grows_with_the_number_of_jobs(
    jobs_of: Callable[[int], list[Remediation]], work: Callable[[list[Remediation]], object]
) -> None:
    """Not with its square."""
    few, many = (comparisons(jobs_of(count), work) for count in (50, 200))
    assert many <= 4 * few + 8
    assert few <= 200


def test_unknown_jobs_are_assessed_once_for_all_decisions_of_a_round() -> None:
    """Later news may decide each of them, but it need not be looked up for each waiting Job."""
    silent = fires_again(20, effect=Effect.UNKNOWN, effect_at=NOW + timedelta(days=9))
    later = NOW + timedelta(days=99)
    waiting = [
        remediation(f"next-{number}", labels={"alertname": f"Other{number}"}, received_at=later)
        for number in range(3)
    ]
    module = "openfero_gitops.admission.breaker.assess"
    with mock.patch(module, wraps=assessing.assess) as assess:
        decide([*silent, *waiting], Envelope(), pause=None, now=later)
    assert assess.call_count == 20


def test_an_incident_of_the_view_is_indexed_once_until_a_job_changes() -> None:
    """Also if many Jobs need it."""
    view = View()
    first, second, third = (
        replace(job, resource_version=str(number))
        for number, job in enumerate(attempts(3), start=1)
    )
    view.apply(first)
    view.apply(second)
    index = IncidentIndex(view)
    before = index.of(first)
    assert index.of(second) is before
    view.apply(third)
    assert list(index.of(first).began_after(NOW - minutes(9))) == [first, second, third]
    alone = replace(first, incident="")
    assert list(index.of(alone).began_after(NOW - minutes(9))) == [alone]


def test_an_incident_of_one_job_is_not_kept() -> None:
    """A leader that starts assesses every remembered Job: it would hold as many indexes."""
    view = View()
    (job,) = attempts(1)
    view.apply(replace(job, resource_version="1"))
    index = IncidentIndex(view)
    incident = weakref.ref(index.of(job))
    assert incident() is None

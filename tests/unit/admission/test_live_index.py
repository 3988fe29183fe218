"""Decisions on a kept index, compared with those on all Jobs."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from openfero_gitops.admission.decide import decide, decide_indexed
from openfero_gitops.admission.live_index import LiveIndex
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope, Limits
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.jobs.view import View
from tests.support import build
from tests.support.depth import scaled

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation

NOW = build.NOW
_NAMES = [f"job-{number}" for number in range(20)]
_STARTED = (Phase.RUNNING, Phase.QUEUED, Phase.HELD, Phase.SUCCEEDED, Phase.FAILED)


def _seldom(chance: Random) -> bool:
    return chance.random() < 0.1


def _moment(chance: Random) -> Any:
    return NOW - timedelta(seconds=chance.choice((0, 0.5, 30, 61, 600, 1800, 3599, 3601, 7200)))


def _options(chance: Random) -> Options:
    return Options(
        priority=chance.randint(0, 1),
        cooldown=timedelta(seconds=chance.choice((0, 0, 600))),
        max_concurrent=chance.choice((1, 2, 5)),
        max_per_hour=chance.choice((0, 1, 2, 4, 30)),
        max_wait=timedelta(seconds=chance.choice((0, 0, 3600))),
        stop_after_not_healed=chance.choice((None, None, 1, 2)),
    )


def _job(chance: Random, version: int) -> Remediation:
    """Return a Job that is similar to the others: of few names, alerts, operarios and targets."""
    phase = chance.choice((*(Phase.WAITING,) * 7, *Phase))
    started, finished = phase in _STARTED, phase in (Phase.SUCCEEDED, Phase.FAILED)
    job = build.remediation(
        chance.choice(_NAMES),
        resource_version=str(version),
        phase=phase,
        reason=chance.choice((Reason.SAME_INCIDENT, Reason.MAX_WAIT)).value,
        operario=chance.choice(("restart", "scale")),
        target=str(chance.randint(1, 6)),
        status=Status.RESOLVED if _seldom(chance) else Status.FIRING,
        labels={"alertname": "HostDown", "host": str(chance.randint(1, 8))},
        attempt=chance.randint(0, 2),
        received_at=_moment(chance),
        starts_at=chance.choice((None, NOW, NOW - timedelta(hours=1))),
        resolved_at=NOW if _seldom(chance) else None,
        started=started,
        finished=finished,
        suspended=not finished and phase is not Phase.RUNNING,
        admitted_at=_moment(chance) if started and not _seldom(chance) else None,
        started_at=_moment(chance) if started and not _seldom(chance) else None,
        finished_at=_moment(chance) if finished else None,
        queue="batch" if phase is Phase.QUEUED else None,
        effect=chance.choice((None, *Effect)) if finished else None,
        options=_options(chance),
        deleting=_seldom(chance),
        active=chance.randint(0, 1) if started and not finished else 0,
    )
    return structs.replace(job, incident="") if _seldom(chance) else job


@settings(max_examples=scaled(200), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_decisions_on_the_index_are_those_on_all_jobs(seed: int) -> None:
    """Whatever happened, and whenever the index was read, decisions are the same."""
    chance = Random(seed)  # noqa: S311 (no secret)
    view = View()
    index = LiveIndex(view)
    for version in range(chance.randint(1, 80)):
        job = _job(chance, version)
        if _seldom(chance):
            view.remove(job.key, job.uid)
        else:
            view.apply(job)
        if _seldom(chance):
            index.get()
    unconfirmed = {job.uid for job in view if _seldom(chance)}

    def assumed(job: Remediation) -> Remediation:
        if not job.waiting or job.uid not in unconfirmed:
            return job
        return structs.replace(job, phase=Phase.RUNNING, suspended=False, started=True)

    limits = Limits(concurrent=chance.choice((1, 5, 20)), per_minute=chance.choice((1, 4, 60)))
    context: dict[str, Any] = {
        "envelope": Envelope(limits=limits),
        "pause": None,
        "now": NOW,
        "unconfirmed": unconfirmed,
    }
    jobs = index.get()
    indexed = decide_indexed(jobs, map(assumed, jobs.waiting.values()), **context)
    assert indexed == decide(map(assumed, view), **context)


def test_nothing_of_a_job_that_is_gone_is_kept() -> None:
    """Jobs that came, ran and were deleted leave nothing in the index."""
    view = View()
    index = LiveIndex(view)
    index.get()
    for version, job in enumerate((build.remediation(), build.running(), build.finished()), 10):
        view.apply(structs.replace(job, resource_version=str(version)))
        index.get()
    view.remove(job.key, job.uid)
    jobs = index.get()
    assert not any(vars(jobs).values())

"""The circuit breaker: what does not help is not repeated on its target."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openfero_gitops.admission.decide import Admit, Decision, Refuse, Wait, decide, next_change
from openfero_gitops.admission.requirements import with_requirements
from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.reason import Reason
from openfero_gitops.domain.remediation import Phase
from tests.support.build import (
    NOW,
    catalog,
    finished,
    minutes,
    operario,
    refused,
    remediation,
    running,
)
from tests.support.copying import replace

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from openfero_gitops.domain.catalog import Catalog
    from openfero_gitops.domain.remediation import Remediation

#: No rule but the breaker keeps these from starting.
PATIENT = Options(cooldown=minutes(0), max_per_hour=1000, max_wait=minutes(0))
DIGEST = "d1ge57"


def waiting(name: str = "next", **values: Any) -> Remediation:
    """Return a waiting Job for an alert that began now."""
    return remediation(name, **{"options": PATIENT, "starts_at": NOW, **values})


def ran(name: str, ago: float, effect: Effect | None, **values: Any) -> Remediation:
    """Return a Job of an alert of its own that ran for a minute, so many minutes ago."""
    began = NOW - minutes(ago)
    return finished(
        name,
        **{
            "labels": {"alertname": "PodCrashLooping", "pod": "web-1", "number": name},
            "began": began,
            "ended": began + minutes(1),
            "starts_at": began,
            "received_at": began,
            "effect": effect,
            "effect_at": None if effect is None else began + minutes(17),
            "effect_message": "still firing 16m after the Job ended",
            "options": PATIENT,
            **values,
        },
    )


def in_vain(number: int = 3, **values: Any) -> list[Remediation]:
    """Return so many Jobs that did not heal, the first one longest ago."""
    return [
        ran(f"run-{run}", 60.0 * (number - run), Effect.NOT_HEALED, **values)
        for run in range(number)
    ]


def decision(
    *remediations: Remediation,
    active: Catalog | None = None,
    now: Any = NOW,
    unconfirmed: Collection[str] = (),
) -> Decision:
    """Return the decision on the only waiting Job."""
    jobs = with_requirements(remediations, active) if active else remediations
    [(_, decided)] = decide(jobs, Envelope(), pause=None, now=now, unconfirmed=unconfirmed)
    return decided


def reason(*remediations: Remediation, **given: Any) -> Reason:
    """Return the reason of the decision on the only waiting Job."""
    return decision(*remediations, **given).reason


# Open.


def test_after_three_jobs_that_did_not_heal_the_next_one_waits() -> None:
    """The message says how many, of which limit, and what the latest did."""
    decided = decision(*in_vain(), waiting())
    assert isinstance(decided, Wait)
    assert decided.reason is Reason.NOT_HELPING
    assert decided.until is None
    assert decided.message == (
        "the last 3 Jobs of this operario for this target did not heal the alert "
        "(stop-after-not-healed: 3). Latest: Job jobs/run-2, still firing 16m after the Job ended"
    )


def test_a_single_job_is_named_as_such() -> None:
    """`stop-after-not-healed: 1` stops at the first Job that did not heal."""
    options = replace(PATIENT, stop_after_not_healed=1)
    decided = decision(*in_vain(1), waiting(options=options))
    assert isinstance(decided, Wait)
    assert decided.message.startswith(
        "the last Job of this operario for this target did not heal the alert "
        "(stop-after-not-healed: 1). Latest: Job jobs/run-0, "
    )


def test_all_jobs_in_vain_are_counted() -> None:
    """Also those that a person approved after the third."""
    decided = decision(*in_vain(5), waiting())
    assert isinstance(decided, Wait)
    assert decided.message.startswith("the last 5 Jobs ")


def test_fewer_jobs_do_not_open_it() -> None:
    """Two are not three."""
    assert decision(*in_vain(2), waiting()) == Admit()


def test_off_disables_it() -> None:
    """However often the operario did not help."""
    options = replace(PATIENT, stop_after_not_healed=None)
    assert decision(*in_vain(9), waiting(options=options)) == Admit()


@pytest.mark.parametrize("effect", [Effect.UNKNOWN, Effect.HEALED])
def test_only_not_healed_opens_it(effect: Effect) -> None:
    """An unknown effect is skipped, and one that healed begins anew."""
    jobs = [*in_vain(2), ran("other", 30, effect)]
    assert decision(*jobs, waiting()) == Admit()


def test_a_job_that_healed_closes_it() -> None:
    """Only the Jobs since then count."""
    jobs = [*in_vain(3), ran("healed", 30, Effect.HEALED), ran("late", 20, Effect.NOT_HEALED)]
    assert decision(*jobs, waiting()) == Admit()
    options = replace(PATIENT, stop_after_not_healed=1)
    assert reason(*jobs, waiting(options=options)) is Reason.NOT_HELPING


def test_jobs_without_a_known_effect_are_skipped() -> None:
    """They neither open nor close it."""
    unknown = ran("silenced", 90, Effect.UNKNOWN)
    pending = ran("young", 5, None)
    assert reason(*in_vain(3), unknown, pending, waiting()) is Reason.NOT_HELPING


def test_the_start_decides_which_jobs_are_the_latest() -> None:
    """Not the order in which their alerts were received."""
    healed = ran("healed", 30, Effect.HEALED, received_at=NOW - minutes(500))
    assert decision(*in_vain(2), ran("run-9", 180, Effect.NOT_HEALED), healed, waiting()) == Admit()


# Effects that no leader has settled.


def test_effects_need_not_be_settled() -> None:
    """A leader that has not settled them yet does not start another Job."""
    heard = {"effect": None, "resolved_at": None}
    jobs = [
        replace(job, **heard, still_firing_at=job.finished_at + minutes(16))
        for job in in_vain()
        if job.finished_at
    ]
    decided = decision(*jobs, waiting())
    assert isinstance(decided, Wait)
    assert "Job jobs/run-2, still firing 16m after the Job ended" in decided.message


def test_the_delivery_that_made_the_job_counts() -> None:
    """It is recorded on the Job before only a moment later."""
    options = replace(PATIENT, stop_after_not_healed=1, rerun_after=minutes(30))
    began = NOW - minutes(40)
    first = finished(
        "first",
        began=began,
        ended=began + minutes(1),
        starts_at=began,
        received_at=began,
        options=options,
    )
    second = waiting("second", attempt=2, starts_at=began, options=options)
    decided = decision(first, second)
    assert isinstance(decided, Wait)
    assert decided.reason is Reason.NOT_HELPING
    assert "Job jobs/first, still firing 39m after the Job ended" in decided.message


def test_an_alert_that_fires_again_counts() -> None:
    """The waiting Job for it shows that the Job before did not heal."""
    options = replace(PATIENT, stop_after_not_healed=1)
    began = NOW - minutes(12)
    first = finished(
        "first",
        began=began,
        ended=began + minutes(1),
        starts_at=began,
        received_at=began,
        resolved_at=NOW - minutes(10),
        options=options,
    )
    decided = decision(first, waiting("second", options=options))
    assert isinstance(decided, Wait)
    assert "Job jobs/first, fired again 10m after it was resolved" in decided.message


def test_an_alert_that_is_heard_of_late_counts() -> None:
    """It fired again soon after a Job whose effect was settled as unknown in the meantime."""
    began = NOW - minutes(480)
    ended = began + minutes(1)
    given_up = ran(
        "given-up",
        480,
        Effect.UNKNOWN,
        labels=waiting().labels,
        effect_at=ended + minutes(15 + 360),
    )
    before = in_vain(2, began=began - minutes(60), ended=began - minutes(59))
    assert decision(*before, given_up, waiting()) == Admit()
    decided = decision(*before, given_up, waiting(starts_at=ended + minutes(19)))
    assert isinstance(decided, Wait)
    assert decided.reason is Reason.NOT_HELPING
    assert "Job jobs/given-up, fired again 19m after the Job ended" in decided.message


def test_reruns_of_one_incident_count_each() -> None:
    """With `rerun-after`, three attempts in vain are enough."""
    options = replace(PATIENT, rerun_after=minutes(20), max_runs=9)
    began = NOW - minutes(100)
    attempts = [
        ran(
            f"attempt-{attempt}",
            100 - 30 * attempt,
            None,
            labels={"alertname": "PodCrashLooping", "pod": "web-1"},
            starts_at=began,
            attempt=attempt + 1,
            still_firing_at=began + minutes(30 * attempt + 17),
            options=options,
        )
        for attempt in range(3)
    ]
    fourth = waiting("attempt-4", starts_at=began, attempt=4, options=options)
    assert reason(*attempts, fourth) is Reason.NOT_HELPING
    assert decision(*attempts[:2], fourth) == Admit()


def test_time_alone_may_close_it() -> None:
    """A later Job heals if its alert, which is resolved, does not fire again."""
    resolved = ran("resolved", 20, None, resolved_at=NOW - minutes(10))
    next_one = waiting()
    decided = decision(*in_vain(), resolved, next_one)
    assert isinstance(decided, Wait)
    assert decided.until == NOW + minutes(5)
    assert next_change([(next_one, decided)]) == decided.until
    assert decision(*in_vain(), resolved, next_one, now=decided.until) == Admit()


def test_earlier_jobs_do_not_announce_an_end() -> None:
    """Whether a Job before those in vain healed changes nothing."""
    resolved = ran("resolved", 300, None, resolved_at=NOW - minutes(10), finished_at=NOW)
    decided = decision(*in_vain(), resolved, waiting())
    assert isinstance(decided, Wait)
    assert decided.until is None


# Which Jobs count.


@pytest.mark.parametrize(
    "other",
    [{"target": "another"}, {"operario": "another"}, {"spec_digest": "another"}],
    ids=["target", "operario", "version"],
)
def test_it_is_open_for_one_target_operario_and_version(other: dict[str, Any]) -> None:
    """Any other starts."""
    assert decision(*in_vain(9), waiting(**other)) == Admit()


def test_jobs_of_two_versions_are_not_in_a_row() -> None:
    """All of them must be of the version that waits."""
    old, *new = in_vain()
    assert decision(replace(old, spec_digest="old"), *new, waiting()) == Admit()
    assert decision(*in_vain(), ran("new", 9, Effect.NOT_HEALED, spec_digest="n"), waiting()) == (
        Admit()
    )


@pytest.mark.parametrize(
    "never_ran",
    [
        refused("dry", "dry-run", effect=Effect.NOT_HEALED),
        refused("late", "max-wait"),
        ran("gone", 9, Effect.NOT_HEALED, deleting=True),
        ran("undo", 9, Effect.NOT_HEALED, status=Status.RESOLVED),
    ],
    ids=lambda job: str(job.key.name),
)
def test_dry_runs_and_jobs_that_never_started_do_not_count(never_ran: Remediation) -> None:
    """Neither do Jobs that are being deleted, and those for resolved alerts."""
    assert decision(*in_vain(2), never_ran, waiting()) == Admit()


def test_a_job_for_a_resolved_alert_is_not_stopped() -> None:
    """It has no effect that could be missed."""
    undo = {"operario": "undo", "status": Status.RESOLVED, "received_at": NOW - minutes(5)}
    firing = ran("firing", 9, Effect.HEALED, labels=waiting().labels)
    jobs = [replace(job, operario="undo") for job in in_vain()]
    assert decision(*jobs, firing, waiting("undo", **undo)) == Admit()


def test_a_job_that_may_have_started_decides_nothing() -> None:
    """Its incident could otherwise seem to have needed another Job."""
    options = replace(PATIENT, stop_after_not_healed=1)
    done = ran("done", 30, None, options=options, labels=waiting().labels)
    unconfirmed = running("maybe", attempt=2, starts_at=done.starts_at, target="elsewhere")
    decided = decision(
        done,
        unconfirmed,
        waiting(options=options, labels={"alertname": "Other"}, alertname="Other"),
        unconfirmed={unconfirmed.uid},
    )
    assert decided == Admit()


# Ways out.


def test_an_approved_job_starts() -> None:
    """And the next one waits again."""
    assert decision(*in_vain(), waiting(approved_by="ada")) == Admit()
    approved = ran("approved", 30, Effect.NOT_HEALED, approved_by="ada")
    assert reason(*in_vain(), approved, waiting()) is Reason.NOT_HELPING


def test_a_job_that_also_needs_approval_says_that_it_did_not_help() -> None:
    """The person who approves should know; one approval is enough for both."""
    options = replace(PATIENT, approval=True)
    job = waiting(options=options, phase=Phase.AWAITING_APPROVAL)
    assert reason(*in_vain(), job) is Reason.NOT_HELPING
    assert reason(job) is Reason.APPROVAL
    assert decision(*in_vain(), waiting(options=options, approved_by="ada")) == Admit()


def test_a_person_sees_it_before_the_cooldown() -> None:
    """A Job that waits for a person does not seem to wait for the time."""
    options = replace(PATIENT, cooldown=minutes(600))
    assert reason(*in_vain(), waiting(options=options)) is Reason.NOT_HELPING
    busy = running("busy", target=waiting().target, labels={"alertname": "Other"})
    assert reason(*in_vain(), busy, waiting()) is Reason.NOT_HELPING


def test_a_new_version_of_the_operario_starts_again() -> None:
    """A change in Git is a new attempt."""
    active = catalog(operario(spec_digest="new", options=PATIENT))
    assert decision(*in_vain(), waiting(spec_digest="new"), active=active) == Admit()


def test_a_job_of_the_old_version_makes_room_for_the_new_one() -> None:
    """It is refused at once, so that the next delivery creates a Job of the new version."""
    active = catalog(operario(spec_digest="new", options=PATIENT))
    decided = decision(*in_vain(), waiting(), active=active)
    assert isinstance(decided, Refuse)
    assert decided.reason is Reason.NOT_HELPING
    assert decided.message == (
        "the operario did not help on this target, and was changed in Git after this Job was "
        "created: the next firing delivery of the alert creates a Job of the new version"
    )
    approved = waiting(approved_by="ada")
    assert decision(*in_vain(), approved, active=active) == Admit()
    assert decision(*in_vain(2), waiting(), active=active) == Admit()


def test_that_refusal_is_not_final() -> None:
    """The next attempt, and a Job in another namespace, are not duplicates of it."""
    job = refused("old", "not-helping", starts_at=NOW)
    assert decision(job, waiting(namespace="elsewhere")) == Admit()


def test_another_version_written_on_a_job_does_not_help() -> None:
    """Users who can change the annotations of a Job still cannot start it."""
    active = catalog(operario(options=PATIENT))
    assert reason(*in_vain(), waiting(spec_digest="forged"), active=active) is Reason.NOT_HELPING
    assert reason(*in_vain(), waiting(spec_digest=""), active=active) is Reason.NOT_HELPING


def test_a_leader_whose_catalog_is_behind_does_not_refuse_the_new_version() -> None:
    """It cannot tell such a Job from one on which another version was written, and waits."""
    behind = catalog(operario(options=PATIENT))
    decided = decision(*in_vain(), waiting(spec_digest="new"), active=behind)
    assert isinstance(decided, Wait)
    assert decided.reason is Reason.NOT_HELPING
    assert decided.message.endswith(
        "Job jobs/run-2, still firing 16m after the Job ended; the active catalog has the version "
        "of these Jobs, but this Job records another one: it waits until that is active, or until "
        "it is approved"
    )
    assert decision(*in_vain(), waiting(spec_digest="new", approved_by="ada"), active=behind) == (
        Admit()
    )


@pytest.mark.parametrize(("recorded", "in_git"), [(None, 3), (9, 3), (3, None)])
def test_the_stricter_limit_counts(recorded: int | None, in_git: int | None) -> None:
    """Whether it is the recorded one or that of the operario in Git."""
    active = catalog(operario(options=replace(PATIENT, stop_after_not_healed=in_git)))
    options = replace(PATIENT, stop_after_not_healed=recorded)
    assert reason(*in_vain(), waiting(options=options), active=active) is Reason.NOT_HELPING


# Properties.

_EFFECTS = st.sampled_from(
    (Effect.NOT_HEALED,) * 4 + (Effect.HEALED, Effect.UNKNOWN, None, "approve", "change", "delete")
)


@given(st.lists(_EFFECTS, max_size=25), st.sampled_from((1, 2, 3, None)))
def test_there_is_never_a_further_start_after_so_many_in_vain(
    story: list[Effect | str | None], limit: int | None
) -> None:
    """Only an approval, a change of the operario or a forgotten Job makes another start."""
    options = replace(PATIENT, stop_after_not_healed=limit)
    names = count()
    version, approved = 0, False
    jobs: list[Remediation] = []
    began = NOW
    for step in story:
        began += minutes(60)
        if step == "approve":
            approved = True
            continue
        if step == "change":
            version += 1
            continue
        if step == "delete":
            jobs = jobs[:-1]
            continue
        job = waiting(
            f"job-{next(names)}",
            labels={"alertname": "PodCrashLooping", "number": str(len(jobs)), "v": str(began)},
            starts_at=began,
            received_at=began,
            options=options,
            spec_digest=str(version),
            approved_by="ada" if approved else None,
        )
        decided = decision(*jobs, job, now=began)
        decisive = [run for run in jobs if run.effect in (Effect.HEALED, Effect.NOT_HEALED)]
        latest = [(run.effect, run.spec_digest) for run in decisive[-limit:]] if limit else []
        stopped = (
            limit is not None
            and not approved
            and latest == [(Effect.NOT_HEALED, str(version))] * limit
        )
        if stopped:
            assert isinstance(decided, Wait)
            assert decided.reason is Reason.NOT_HELPING
            continue
        assert decided == Admit()
        approved = False
        jobs.append(_after(job, began, minutes(1), step))


def _after(
    job: Remediation, began: Any, ran_for: timedelta, effect: Effect | str | None
) -> Remediation:
    """Return a Job after it ran, with its settled effect."""
    return replace(
        job,
        phase=Phase.SUCCEEDED,
        suspended=False,
        started=True,
        admitted_at=began,
        started_at=began,
        finished_at=began + ran_for,
        finished=True,
        effect=effect if isinstance(effect, Effect) else None,
        effect_at=began + ran_for,
    )

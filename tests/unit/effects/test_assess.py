from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.operario import Options
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.domain.timestamp import format_seconds
from openfero_gitops.effects.assess import Assessment, assess, is_still_firing
from tests.support.build import NOW, STARTS_AT, finished, minutes, refused, remediation, running
from tests.support.copying import replace

if TYPE_CHECKING:
    from datetime import datetime

    from openfero_gitops.domain.remediation import Remediation

#: The Job of these tests starts at NOW and ends two minutes later; heals-within is 15 minutes.
END = NOW + minutes(2)
DEADLINE = END + minutes(15)
MUCH_LATER = NOW + timedelta(days=1)


def run(**given: Any) -> Remediation:
    """Return the finished Job."""
    return finished("job-1", began=NOW, ended=END, **given)


def effect_of(
    job: Remediation, *others: Remediation, at: datetime = MUCH_LATER
) -> tuple[Effect, str]:
    """Assess a Job; return effect and message."""
    assessment = assess(job, [job, *others], at)
    assert assessment is not None
    return assessment.effect, assessment.message


def refire(after: timedelta, **given: Any) -> Remediation:
    """Return the Job of the same labels that fired again so long after NOW."""
    moment = NOW + after
    return remediation("job-2", starts_at=moment, received_at=moment, **given)


@pytest.mark.parametrize(
    ("resolved", "message"),
    [
        (minutes(1), "resolved while the Job was running"),
        (minutes(5), "resolved 3m after the Job ended"),
        (minutes(17), "resolved 15m after the Job ended"),
    ],
)
def test_an_alert_that_is_resolved_in_time_and_stays_so_is_healed(
    resolved: timedelta, message: str
) -> None:
    """The alert may be resolved while the Job runs, or at most heals-within after."""
    job = run(resolved_at=NOW + resolved)

    assessment = assess(job, [job], MUCH_LATER)

    known_at = NOW + resolved + minutes(15)
    assert assessment == Assessment(
        Effect.HEALED, NOW + resolved, message, known_at=known_at, is_revisable=True
    )


def test_a_resolved_alert_is_pending_until_it_has_stayed_resolved() -> None:
    """It must not fire again for heals-within; time alone then settles it."""
    job = run(resolved_at=NOW + minutes(5))

    assessment = assess(job, [job], NOW + minutes(19))

    assert assessment is not None
    assert assessment.effect is Effect.PENDING
    assert assessment.next_change == NOW + minutes(20)


def test_an_alert_that_fires_again_soon_is_not_healed() -> None:
    """The message says how long it was resolved."""
    job = run(resolved_at=NOW + minutes(5))

    assert effect_of(job, refire(minutes(9)), at=NOW + minutes(9)) == (
        Effect.NOT_HEALED,
        "fired again 4m after it was resolved",
    )


def test_an_alert_that_fires_again_much_later_was_healed() -> None:
    """A later incident says nothing about this one."""
    job = run(resolved_at=NOW + minutes(5))

    assert effect_of(job, refire(minutes(25)))[0] is Effect.HEALED


def test_an_alert_that_fires_again_without_a_resolution_is_not_healed() -> None:
    """Alertmanager sends no resolution if both happen between two flushes."""
    assert effect_of(run(), refire(minutes(9)), at=NOW + minutes(9)) == (
        Effect.NOT_HEALED,
        "fired again 7m after the Job ended",
    )


def test_the_resolution_of_the_next_incident_is_not_that_of_this_one() -> None:
    """A resolved delivery is recorded on every Job of the labels."""
    job = run(resolved_at=NOW + minutes(12))

    assert effect_of(job, refire(minutes(9), resolved_at=NOW + minutes(12))) == (
        Effect.NOT_HEALED,
        "fired again 7m after the Job ended",
    )


def test_a_wobbling_start_is_not_another_incident() -> None:
    """The other member of a Prometheus pair sees the alert at another moment."""
    job = run(resolved_at=NOW + minutes(5))
    duplicate = refused(
        "job-2", "same-incident", starts_at=STARTS_AT + minutes(1), received_at=NOW + minutes(1)
    )

    assert effect_of(job, duplicate)[0] is Effect.HEALED


def test_an_alert_that_is_resolved_too_late_is_not_healed() -> None:
    """Whatever resolved it, it was hardly the Job."""
    assert effect_of(run(resolved_at=NOW + minutes(42)), at=NOW + minutes(42)) == (
        Effect.NOT_HEALED,
        "resolved only 40m after the Job ended",
    )


def test_an_alert_that_still_fires_after_heals_within_is_not_healed() -> None:
    """It is recorded when it is heard, and then needs no further news."""
    job = run(still_firing_at=DEADLINE + minutes(1))

    moment = DEADLINE + minutes(1)
    message = "still firing 16m after the Job ended"
    assert assess(job, [job], moment) == Assessment(
        Effect.NOT_HEALED, moment, message, known_at=moment, is_revisable=True
    )


def test_a_resolution_in_time_counts_more_than_a_late_delivery() -> None:
    """A delivery that was sent before the resolution may arrive after it."""
    job = run(still_firing_at=DEADLINE + minutes(1), resolved_at=NOW + minutes(5))

    assert effect_of(job)[0] is Effect.HEALED


def test_only_the_last_run_before_the_resolution_healed() -> None:
    """If the alert still fires when the next attempt starts, the first one did not help."""
    second = finished(
        "job-2", began=NOW + minutes(7), ended=NOW + minutes(8), attempt=2, incident=run().incident
    )
    resolved = NOW + minutes(9)
    first = run(resolved_at=resolved)
    second = replace(second, resolved_at=resolved)

    assert effect_of(first, second) == (
        Effect.NOT_HEALED,
        "still firing 5m after the Job ended, when Job jobs/job-2 started",
    )
    assert effect_of(second, first)[0] is Effect.HEALED


def test_a_job_in_a_kueue_queue_has_not_started() -> None:
    """Until Kueue starts it, it has no effect, and says nothing about the run before."""
    queued = running(
        "job-2",
        since=NOW + minutes(7),
        phase=Phase.QUEUED,
        suspended=True,
        queue="healing",
        attempt=2,
        incident=run().incident,
    )
    resolved = NOW + minutes(9)

    assert assess(queued, [queued], MUCH_LATER) is None
    assert effect_of(run(resolved_at=resolved), queued)[0] is Effect.HEALED
    second = replace(queued, starts=1)
    assert effect_of(run(resolved_at=resolved), second)[0] is Effect.NOT_HEALED


def test_without_news_the_effect_is_pending_and_then_unknown() -> None:
    """Alertmanager sends no resolution of a silenced alert."""
    job = run()

    early, late = assess(job, [job], END), assess(job, [job], DEADLINE + minutes(1))

    assert early is not None
    assert (early.effect, early.next_change) == (Effect.PENDING, DEADLINE)
    assert late is not None
    assert (late.effect, late.next_change) == (Effect.PENDING, DEADLINE + timedelta(hours=6))
    assert late.message == (
        "the alert has not been delivered since; the effect becomes unknown at "
        f"{format_seconds(DEADLINE + timedelta(hours=6))}"
    )
    on_time = assess(job, [job], DEADLINE)
    assert on_time is not None
    assert on_time.next_change == late.next_change  # never now, or its caller would not wait
    assert effect_of(job, at=DEADLINE + timedelta(hours=6)) == (
        Effect.UNKNOWN,
        "the alert was not delivered again for 6h15m after the Job ended; it may be silenced",
    )


def test_a_resolution_before_the_start_says_nothing_about_the_job() -> None:
    """With on-resolve: keep, a Job starts although its alert is resolved."""
    assert effect_of(run(resolved_at=NOW - minutes(1))) == (
        Effect.UNKNOWN,
        "the alert was resolved before the Job started",
    )


def test_a_running_job_is_pending() -> None:
    """Even if its alert is resolved already."""
    assert effect_of(running(resolved_at=NOW + minutes(1))) == (
        Effect.PENDING,
        "the Job has not ended",
    )


@pytest.mark.parametrize(
    "job",
    [
        finished(status=Status.RESOLVED),
        remediation(),
        refused(reason="resolved"),
    ],
)
def test_what_did_not_run_for_a_firing_alert_has_no_effect(job: Remediation) -> None:
    """Waiting and refused Jobs, and those of resolved operarios, heal nothing."""
    assert assess(job, [job], MUCH_LATER) is None


@pytest.mark.parametrize(
    ("given", "effect", "message"),
    [
        (
            {"resolved_at": NOW + minutes(2)},
            Effect.HEALED,
            "would have run; resolved without us after 2m",
        ),
        (
            {"resolved_at": NOW + minutes(40)},
            Effect.NOT_HEALED,
            "would have run; resolved without us only after 40m",
        ),
        (
            {"still_firing_at": NOW + minutes(16)},
            Effect.NOT_HEALED,
            "would have run; still firing after 16m",
        ),
        (
            {"resolved_at": NOW - minutes(1)},
            Effect.UNKNOWN,
            "would have run; the alert was already resolved when it was received",
        ),
        (
            {},
            Effect.UNKNOWN,
            "would have run; the alert was not delivered again for 6h15m; it may be silenced",
        ),
    ],
)
def test_a_dry_run_shows_what_happens_without_a_remediation(
    given: dict[str, Any], effect: Effect, message: str
) -> None:
    """It counts from the delivery of its alert."""
    assert effect_of(refused(reason="dry-run", **given)) == (effect, message)


def test_a_settled_effect_is_final() -> None:
    """Later news does not change it."""
    job = run(
        effect=Effect.NOT_HEALED,
        effect_at=NOW,
        effect_message="fired again",
        resolved_at=NOW + minutes(5),
    )

    assert assess(job, [job], MUCH_LATER) == Assessment(Effect.NOT_HEALED, NOW, "fired again")


def test_later_news_decides_an_unknown_effect() -> None:
    """Until then it stays as it was settled."""
    job = run(effect=Effect.UNKNOWN, effect_at=MUCH_LATER, effect_message="nothing heard")

    assert effect_of(job) == (Effect.UNKNOWN, "nothing heard")
    assert effect_of(replace(job, resolved_at=NOW + timedelta(hours=9)))[0] is (Effect.NOT_HEALED)


def test_an_unknown_effect_that_time_may_still_decide_says_when() -> None:
    """A resolution in time that is heard very late must still be followed by heals-within."""
    job = run(
        effect=Effect.UNKNOWN,
        effect_at=NOW,
        effect_message="nothing heard",
        options=Options(heals_within=timedelta(hours=12)),
        resolved_at=NOW + timedelta(hours=11),
    )

    assert assess(job, [job], NOW + timedelta(hours=20)) == Assessment(
        Effect.UNKNOWN, NOW, "nothing heard", next_change=NOW + timedelta(hours=23)
    )
    assert effect_of(job)[0] is Effect.HEALED


def second_run(after: timedelta) -> Remediation:
    """Return the next attempt for the same incident."""
    began = NOW + after
    return finished(
        "job-2", began=began, ended=began + minutes(1), attempt=2, incident=run().incident
    )


@pytest.mark.parametrize(
    ("job", "others", "known_at", "is_revisable"),
    [
        (run(resolved_at=NOW + minutes(5)), [], NOW + minutes(20), True),
        (
            run(resolved_at=NOW + minutes(5), options=Options(heals_within=minutes(1))),
            [],
            NOW + minutes(5),
            False,
        ),
        (
            finished("job-1", began=NOW, ended=NOW + minutes(60), resolved_at=NOW + minutes(5)),
            [],
            NOW + minutes(60),
            True,
        ),
        (run(still_firing_at=DEADLINE + minutes(3)), [], DEADLINE + minutes(3), True),
        (run(), [second_run(minutes(7))], DEADLINE, True),
        (run(resolved_at=NOW + minutes(9)), [second_run(minutes(7))], DEADLINE, True),
        (run(resolved_at=NOW + minutes(40)), [second_run(minutes(20))], NOW + minutes(40), True),
        (run(resolved_at=NOW + minutes(40)), [], NOW + minutes(40), False),
        (run(resolved_at=NOW + minutes(5)), [refire(minutes(9))], NOW + minutes(9), False),
        (run(), [refire(minutes(9))], NOW + minutes(9), True),
        (run(), [], DEADLINE + timedelta(hours=6), False),
        (run(resolved_at=NOW - minutes(1)), [], NOW - minutes(1), False),
    ],
)
def test_an_effect_says_when_it_was_known_and_whether_a_late_delivery_may_change_it(
    job: Remediation,
    others: list[Remediation],
    known_at: datetime,
    is_revisable: bool,  # noqa: FBT001
) -> None:
    """What rests on something that was not heard, or on a late delivery, may still change."""
    assessment = assess(job, [job, *others], MUCH_LATER)

    assert assessment is not None
    assert (assessment.known_at, assessment.is_revisable) == (known_at, is_revisable)


def test_heals_within_is_that_of_the_job() -> None:
    """It was recorded when the Job was rendered."""
    job = run(options=Options(heals_within=minutes(1)), resolved_at=NOW + minutes(5))

    assert effect_of(job)[0] is Effect.NOT_HEALED


@pytest.mark.parametrize(
    ("job", "starts_at", "expected"),
    [
        (run(), STARTS_AT, True),
        (run(), STARTS_AT + minutes(1), True),
        (run(), None, True),
        (run(), NOW + minutes(9), False),
        (run(resolved_at=NOW + minutes(5)), STARTS_AT, False),
        (run(still_firing_at=NOW), STARTS_AT, False),
        (run(effect=Effect.NOT_HEALED), STARTS_AT, False),
        (run(effect=Effect.UNKNOWN), STARTS_AT, True),
        (running(), STARTS_AT, False),
        (remediation(), STARTS_AT, False),
        (refused(reason="dry-run"), STARTS_AT, True),
    ],
)
def test_which_deliveries_are_recorded_as_still_firing(
    job: Remediation,
    starts_at: datetime | None,
    expected: bool,  # noqa: FBT001
) -> None:
    """Those of the same incident, after heals-within, once."""
    assert is_still_firing(job, starts_at, DEADLINE + minutes(1)) is expected
    assert not is_still_firing(job, starts_at, NOW + minutes(1))

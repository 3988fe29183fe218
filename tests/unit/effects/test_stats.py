from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.effect import Effect
from openfero_gitops.domain.remediation import Phase
from openfero_gitops.effects.stats import report_stats
from tests.support.build import NOW, finished, minutes, refused, remediation, running

if TYPE_CHECKING:
    from openfero_gitops.domain.remediation import Remediation
    from openfero_gitops.effects.stats import StatsReport

LATER = NOW + timedelta(days=1)
NEW = "2" * 40
OLD = "1" * 40


def settled(name: str, effect: Effect, /, **given: Any) -> Remediation:
    """Return a finished Job with a settled effect, of an alert of its own."""
    values = {
        "labels": {"alertname": "Down", "pod": name},
        "commit": NEW,
        "effect": effect,
        "effect_at": NOW + minutes(5),
        "effect_message": "as recorded",
    }
    return finished(name, **values | given)


def report(*jobs: Remediation, **given: Any) -> StatsReport:
    """Compute the statistics of some Jobs, a day later."""
    return report_stats(jobs, LATER, **given)


def test_runs_are_counted_by_phase_and_by_effect() -> None:
    """Started Jobs are counted, those that ended by their phase, and each by its effect."""
    total = report(
        settled("a", Effect.HEALED, resolved_at=NOW + minutes(3)),
        settled("b", Effect.NOT_HEALED, phase=Phase.FAILED),
        settled("c", Effect.NOT_HEALED),
        settled("d", Effect.UNKNOWN),
        running("e", labels={"alertname": "Down", "pod": "e"}),
        remediation("f", labels={"alertname": "Down", "pod": "f"}),
        refused("g", labels={"alertname": "Down", "pod": "g"}),
    ).total
    assert total is not None
    assert (total.runs, total.succeeded, total.failed) == (5, 3, 1)
    effects = total.effects
    assert (effects.healed, effects.not_healed, effects.unknown, effects.pending) == (1, 2, 1, 1)
    assert effects.total == total.runs
    assert effects.heal_rate == 1 / 3
    assert effects.median_to_heal == minutes(3)


def test_the_rate_is_unknown_until_an_effect_is_known() -> None:
    """Of runs without a known effect there is no rate, and without a healed one no median."""
    total = report(settled("a", Effect.UNKNOWN)).total
    assert total is not None
    assert total.effects.heal_rate is None
    assert total.effects.median_to_heal is None


def test_the_median_is_that_of_the_healed() -> None:
    """The time from receiving an alert to its resolution counts, of healed ones alone."""
    jobs = [
        settled(f"job-{number}", Effect.HEALED, resolved_at=NOW + minutes(number))
        for number in (1, 4, 90)
    ]
    late = settled("late", Effect.NOT_HEALED, resolved_at=NOW + minutes(500))
    total = report(*jobs, late).total
    assert total is not None
    assert total.effects.median_to_heal == minutes(4)


def test_the_median_duration_is_that_of_the_runs_that_ended() -> None:
    """The time from start to end counts, whatever the effect; a running Job has none yet."""
    jobs = [
        settled(f"job-{number}", effect, started_at=NOW, finished_at=NOW + minutes(number))
        for number, effect in ((1, Effect.HEALED), (2, Effect.NOT_HEALED), (9, Effect.UNKNOWN))
    ]
    total = report(*jobs, running("e", labels={"alertname": "Down", "pod": "e"})).total
    assert total is not None
    assert total.median_duration == minutes(2)


def test_commits_are_listed_from_the_newest() -> None:
    """The operario that was needed last comes first, with its commits from the newest."""
    rows = report(
        settled("a", Effect.NOT_HEALED, commit=OLD, received_at=NOW),
        settled("b", Effect.HEALED, commit=NEW, received_at=NOW + minutes(9)),
        settled("c", Effect.HEALED, commit=NEW, operario="other", received_at=NOW + minutes(5)),
    ).commits
    name = finished().operario
    assert [(row.operario, row.commit) for row in rows] == [
        (name, NEW),
        (name, OLD),
        ("other", NEW),
    ]
    assert [row.stats.effects.heal_rate for row in rows] == [1, 0, 1]


def test_a_definition_is_named_if_it_is_that_of_all_jobs() -> None:
    """The digest of the definition is left out if Jobs of one commit have different ones."""
    same = report(
        settled("a", Effect.HEALED, spec_digest="x"), settled("b", Effect.HEALED, spec_digest="x")
    )
    different = report(
        settled("a", Effect.HEALED, spec_digest="x"), settled("b", Effect.HEALED, spec_digest="y")
    )
    assert [row.spec_digest for row in same.commits] == ["x"]
    assert [row.spec_digest for row in different.commits] == [""]


def test_dry_runs_are_no_runs() -> None:
    """A dry run counts apart: how many alerts were resolved without a remediation, and how fast."""
    total = report(
        refused("a", "dry-run", labels={"alertname": "A"}, resolved_at=NOW + minutes(2)),
        refused("b", "dry-run", labels={"alertname": "B"}, still_firing_at=NOW + minutes(20)),
        settled("c", Effect.HEALED),
    ).total
    assert total is not None
    assert total.runs == 1
    dry_runs = total.dry_runs
    assert (dry_runs.total, dry_runs.healed, dry_runs.not_healed) == (2, 1, 1)
    assert dry_runs.median_to_heal == minutes(2)


def test_a_job_that_kueue_never_started_is_no_run() -> None:
    """It waits in the queue, or was cancelled there."""
    values = {"suspended": True, "queue": "batch", "labels": {"alertname": "Q"}}
    queued = running("a", phase=Phase.QUEUED, **values)
    cancelled = running("b", phase=Phase.CANCELLED, **values)
    assert report(queued, cancelled).total is None
    total = report(queued, running("c", starts=1, **values | {"suspended": False})).total
    assert total is not None
    assert (total.runs, total.effects.total, total.dry_runs.total) == (1, 1, 0)


def test_a_run_for_a_resolved_alert_has_no_effect() -> None:
    """Runs of a resolved operario are counted, without an effect."""
    total = report(finished(status=Status.RESOLVED)).total
    assert total is not None
    assert (total.runs, total.succeeded, total.effects.total) == (1, 1, 0)


def test_others_of_the_incident_determine_the_effect_of_a_selected_one() -> None:
    """A Job that is not selected still shows that the alert fired again."""
    first = finished("first", resolved_at=NOW + minutes(1))
    again = NOW + minutes(5)
    second = running("second", since=again, starts_at=again, received_at=again)
    selected = report(first, second, selects=lambda job: job.key == first.key)
    assert selected.total is not None
    assert selected.total.runs == 1
    assert selected.total.effects.not_healed == 1


def test_the_period_begins_with_the_oldest_that_is_selected() -> None:
    """Since when is counted is said, also if nothing ran."""
    waiting = remediation(received_at=NOW - minutes(5))
    assert report(waiting).oldest == NOW - minutes(5)
    assert report(waiting).total is None
    assert report(waiting, selects=lambda _: False).oldest is None


def test_alerts_too_large_for_an_incident_are_assessed_alone() -> None:
    """Jobs without an incident do not determine each other's effects."""
    first = finished("first", incident="", resolved_at=NOW + minutes(1))
    again = NOW + minutes(5)
    second = running("second", since=again, starts_at=again, received_at=again, incident="")
    total = report(first, second).total
    assert total is not None
    assert total.effects.healed == 1

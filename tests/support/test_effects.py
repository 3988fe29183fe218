"""The judge recognizes wrong effects, and starts after runs that did not heal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from openfero_gitops.domain.alert import Status
from openfero_gitops.domain.catalog import Envelope
from openfero_gitops.domain.operario import Mode
from tests.support import build
from tests.support.build import STARTS_AT, seconds
from tests.support.effects import HEALED, NOT_HEALED, PENDING, UNKNOWN, Run, possible_effects
from tests.support.test_verdict import Story, after, answered, at_second
from tests.support.verdict import Judge

#: How long after its end a Job of these stories may take to heal.
WITHIN = 60.0


def run(**given: Any) -> Run:
    """Return a run from second 0 to 10 that has until second 70; times are in seconds."""
    values: dict[str, Any] = {
        "starts_at": -30,
        "received_at": -5,
        "delivered_at": -5,
        "first_start": 0,
        "last_start": 0,
        "end": 10,
        "resolved_at": None,
    } | given
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = after(value)
    return Run(heals_within=seconds(WITHIN), **values)


@pytest.mark.parametrize(
    ("given", "others", "now", "effect"),
    [
        ({"end": None}, [], 500, PENDING),
        ({}, [], 500, PENDING),
        ({}, [], 70 + 6 * 3600, UNKNOWN),
        ({"resolved_at": -1}, [], 500, UNKNOWN),
        ({"resolved_at": 5}, [], 64, PENDING),
        ({"resolved_at": 5}, [], 65, HEALED),
        ({"resolved_at": 70}, [], 500, HEALED),
        ({"resolved_at": 71}, [], 72, NOT_HEALED),
        ({"still_firing": True}, [], 80, NOT_HEALED),
        ({"resolved_at": 20}, [{"starts_at": 80}], 500, NOT_HEALED),
        ({"resolved_at": 20}, [{"starts_at": 81}], 500, HEALED),
        ({"resolved_at": 20}, [{"starts_at": 20}], 500, HEALED),  # the clocks of a pair differ
        ({}, [{"starts_at": 90}], 95, NOT_HEALED),
        ({}, [{"first_start": 40, "last_start": 40}], 75, NOT_HEALED),
        ({"resolved_at": 50}, [{"first_start": 40, "last_start": 40}], 500, NOT_HEALED),
        ({"resolved_at": 30}, [{"first_start": 40, "last_start": 40}], 500, HEALED),
        ({"settled": HEALED, "still_firing": True}, [], 500, HEALED),
        ({"settled": UNKNOWN, "still_firing": True}, [], 500, NOT_HEALED),
        ({"settled": UNKNOWN}, [], 500, UNKNOWN),
    ],
)
def test_the_model_has_the_documented_effects(
    given: dict[str, Any], others: list[dict[str, Any]], now: float, effect: str
) -> None:
    """Each line of the documented table gives its effect."""
    assert possible_effects(run(**given), [run(**other) for other in others], after(now)) == {
        effect
    }


def test_what_clocks_cannot_tell_apart_is_possible() -> None:
    """A resolution a second after the last moment may count as one before it."""
    late = run(resolved_at=71)
    assert possible_effects(late, [], after(500), seconds(2)) == {HEALED, NOT_HEALED}
    assert possible_effects(run(resolved_at=75), [], after(500), seconds(2)) == {NOT_HEALED}
    assert possible_effects(run(resolved_at=5), [], after(66), seconds(2)) == {HEALED, PENDING}
    queued = run(resolved_at=5, last_start=8)
    assert possible_effects(queued, [], after(500), seconds(1)) == {HEALED, UNKNOWN}


def test_a_later_delivery_shows_that_the_alert_still_fires() -> None:
    """A Job of the same incident that was delivered after the time to heal shows it."""
    again = run(received_at=100, delivered_at=100)
    assert possible_effects(run(), [again], after(101)) == {PENDING}
    assert possible_effects(run(), [again], after(101), deliveries=True) == {NOT_HEALED}


class Effects(Story):
    """A history in which effects are settled."""

    def run(self, uid: str, at: float, *, starts: float | None = None, **given: Any) -> None:
        """Create a Job, admit it, and let it end ten seconds later."""
        starts_at = STARTS_AT if starts is None else after(starts)
        self.create(uid, at, starts_at=starts_at, **given)
        self.admit(uid, at)
        self.end(uid, at + 10)

    def settle(self, uid: str, at: float, effect: str, since: float | None = None) -> None:
        """Settle an effect as a leader does."""
        moment = at_second(at if since is None else since)
        self.write(uid, at, effect=effect, effect_at=moment, effect_message="it was seen")


def effects(**options: Any) -> Effects:
    """Return a history whose Jobs have a minute to heal, and no cooldown."""
    return Effects(heals_within=seconds(WITHIN), cooldown=timedelta(0), **options)


def test_an_effect_that_is_right_breaks_no_rule() -> None:
    """A Job is settled as healed once it has not fired again for long enough."""
    story = effects()
    story.run("a", 0)
    story.write("a", 20, resolved_at=at_second(20))
    story.settle("a", 80, HEALED, 20)
    assert story.violations() == []


def test_an_effect_must_be_supported() -> None:
    """Without a resolution, too soon, after it fired again: it is not healed."""
    story = effects()
    story.run("a", 0)
    story.settle("a", 80, HEALED)
    assert story.rules() == ["effect"]

    story = effects()
    story.run("a", 0)
    story.write("a", 20, resolved_at=at_second(20))
    story.settle("a", 79, HEALED, 20)
    assert story.rules() == ["effect"]

    story = effects()
    story.run("a", 0)
    story.write("a", 20, resolved_at=at_second(20))
    story.create("b", 60, starts_at=after(50))
    story.settle("a", 300, HEALED, 20)
    assert story.rules() == ["effect"]

    story = effects()
    story.create("a")
    story.settle("a", 80, NOT_HEALED)
    assert story.rules() == ["effect"]


def test_news_that_is_on_its_way_need_not_be_known() -> None:
    """An effect may be settled by what was known before, for as long as news may take."""
    story = effects()
    story.run("a", 0)
    story.write("a", 20, resolved_at=at_second(20))
    story.create("b", 79, starts_at=after(78))
    story.settle("a", 80, HEALED, 20)
    assert story.rules() == []
    assert story.rules(hearsay=seconds(0.5)) == ["effect"]


def test_a_settled_effect_stays() -> None:
    """Neither another leader nor later news changes it; `unknown` alone may become another."""
    for first, second, rules in (
        (NOT_HEALED, HEALED, ["effect"]),
        (NOT_HEALED, NOT_HEALED, ["effect"]),  # since another time
        (UNKNOWN, NOT_HEALED, []),
    ):
        story = effects()
        story.run("a", 0)
        if first == UNKNOWN:
            story.settle("a", 70 + 6 * 3600, first)
        story.write("a", 6 * 3600 + 80, still_firing_at=at_second(6 * 3600 + 80))
        if first != UNKNOWN:
            story.settle("a", 6 * 3600 + 81, first)
        story.settle("a", 6 * 3600 + 90, second)
        assert story.rules() == rules


def test_a_mark_of_firing_is_written_once_and_not_too_soon() -> None:
    """It shows that the alert was delivered after the time in which it should have healed."""
    story = effects()
    story.run("a", 0)
    story.write("a", 60, still_firing_at=at_second(60))
    assert story.rules() == ["effect"]

    story = effects()
    story.run("a", 0)
    story.write("a", 80, still_firing_at=at_second(80))
    assert story.rules() == []
    story.write("a", 90, still_firing_at=at_second(90))
    assert story.rules() == ["effect"]


def test_a_firing_delivery_is_recorded_once_it_shows_something() -> None:
    """A delivery that was answered with 200 after the time to heal is written on the Job."""
    story = effects()
    story.run("a", 0)
    late = [answered(300, "a")]
    assert story.rules(answers=[answered(100, "a")]) == []
    assert story.rules(answers=late) == ["effect"]
    story.write("a", 90, still_firing_at=at_second(90))
    assert story.rules(answers=late) == []


def test_a_mark_of_firing_needs_a_delivery() -> None:
    """Where it is known what was sent, somebody must have said that the alert fires."""
    story = effects()
    story.run("a", 0)
    story.write("a", 400, still_firing_at=at_second(400))
    judge = Judge(Envelope())
    judge.sent(after(10), build.alert().labels, Status.FIRING.value)
    for change in story.changes:
        judge.change(change)
    assert [violation.rule for violation in judge.violations] == ["effect"]


def not_healed(count: int, apart: float = 1000.0, **options: Any) -> Effects:
    """Return a history in which a target was not healed so often."""
    story = effects(**options)
    for number in range(count):
        at = number * apart
        story.run(f"r{number}", at, starts=at - 5)
        story.write(f"r{number}", at + 80, still_firing_at=at_second(at + 80))
        story.settle(f"r{number}", at + 81, NOT_HEALED, at + 80)
        story.write(f"r{number}", at + 90, resolved_at=at_second(at + 90))
    return story


@pytest.mark.parametrize("settled", [True, False])
def test_no_further_start_after_runs_that_did_not_help(settled: bool) -> None:  # noqa: FBT001
    """After as many as the option says, another start is a violation, settled or not."""
    for count, limit, rules in ((2, 2, ["not-helping"]), (1, 2, []), (3, None, [])):
        story = not_healed(count, stop_after_not_healed=limit)
        if not settled:
            story.changes = [c for c in story.changes if c.kind == "ADDED" or not is_settled(c.job)]
        story.run("last", 5000, starts=4990)
        assert story.rules() == rules


def is_settled(job: Any) -> bool:
    """Whether a state of a Job has an effect and nothing later."""
    return "openfero.io/effect" in job["metadata"]["annotations"]


def test_approval_a_change_and_a_success_allow_a_start() -> None:
    """A person, a new version of the operario, or a run that helped closes the breaker."""
    story = not_healed(2, stop_after_not_healed=2)
    story.create("last", 5000, starts_at=after(4990))
    story.write("last", 5001, approved_by="ada")
    story.admit("last", 5002)
    assert story.rules() == []

    story = not_healed(2, stop_after_not_healed=2)
    story.create("last", 5000, starts_at=after(4990))
    story.write("last", 5001, spec_digest="another")
    story.admit("last", 5002)
    assert story.rules() == []

    story = not_healed(2, stop_after_not_healed=2)
    story.run("helped", 500, starts=490)
    story.write("helped", 520, resolved_at=at_second(520))
    story.settle("helped", 590, HEALED, 520)
    story.run("last", 5000, starts=4990)
    assert story.rules() == []


def test_a_leader_may_not_know_yet_that_a_run_did_not_help() -> None:
    """What was written a moment ago may be unknown to the leader that admits."""
    story = not_healed(1, stop_after_not_healed=1)
    story.run("last", 95, starts=92)
    assert story.rules() == []
    assert story.rules(hearsay=seconds(0.5)) == ["not-helping"]


def test_the_delivery_of_the_next_job_shows_that_the_last_one_did_not_help() -> None:
    """A leader knows the Job that it admits, however new the Job is."""
    for created, rules in ((300, ["healed-twice", "not-helping"]), (65, ["healed-twice"])):
        story = effects(stop_after_not_healed=1)
        story.run("a", 0)
        story.run("again", created, starts=20)
        assert story.rules() == rules


def test_nothing_is_held_without_a_reason() -> None:
    """A Job that a person approved, or whose target was not tried often enough, is not held."""
    for count, approved, rules in (
        (2, False, []),
        (2, True, ["not-helping"]),
        (1, False, ["not-helping"]),
    ):
        story = not_healed(count, stop_after_not_healed=2)
        story.create("last", 5000, starts_at=after(4990))
        if approved:
            story.write("last", 5001, approved_by="ada")
        assert held(story, 6000) == rules


@pytest.mark.parametrize(
    ("count", "approved", "another_text", "rules"),
    [
        (2, False, True, []),
        (2, True, True, ["not-helping"]),
        (1, False, True, ["not-helping"]),
        (2, False, False, ["not-helping"]),
    ],
    ids=["right", "approved", "too few", "no other version"],
)
def test_nothing_is_refused_as_not_helping_without_a_newer_version(
    count: int,
    approved: bool,  # noqa: FBT001
    another_text: bool,  # noqa: FBT001
    rules: list[str],
) -> None:
    """Nor after fewer runs of its version than the option says, nor if a person approved it."""
    story = not_healed(count, stop_after_not_healed=2)
    story.create("last", 5000, starts_at=after(4990))
    if approved:
        story.write("last", 5001, approved_by="ada")
    story.write("last", 6000, decision="refused", reason="not-helping")
    last = story.changes[-1].job["metadata"]["annotations"]
    path, texts = last["openfero.io/path"], ("old", "new" if another_text else "old")
    commits = [(last["openfero.io/commit"], {path: texts[0]}), ("3" * 40, {path: texts[1]})]
    assert refusals(story, commits) == rules
    # A leader whose catalog is behind must not refuse what is newer.
    assert refusals(story, commits[::-1]) == [*rules, *["not-helping"] * another_text]
    assert refusals(story, None) == (rules if another_text else [])


def refusals(story: Story, commits: Any) -> list[str]:
    """Return the rules that a story breaks if the repository has these commits."""
    judge = Judge(Envelope(), commits=commits)
    for change in story.changes:
        judge.change(change)
    return [violation.rule for violation in judge.violations]


def held(story: Story, at: float) -> list[str]:
    """Return the rules that holding the Job `last` breaks."""
    judge = Judge(Envelope())
    for change in story.changes:
        judge.change(change)
    assert not judge.violations
    judge.held(after(at), "last", None)
    return [violation.rule for violation in judge.violations]


def test_a_dry_run_is_judged_and_never_counts() -> None:
    """A dry run has the effect of a Job that did nothing, and closes no breaker."""
    story = effects(mode=Mode.DRY_RUN, stop_after_not_healed=1)
    story.create("a")
    story.write("a", 1, decision="refused", reason="dry-run", message="it was")
    story.write("a", 20, resolved_at=at_second(20))
    story.settle("a", 80, HEALED, 20)
    assert story.rules() == []
    story = effects(mode=Mode.DRY_RUN)
    story.create("a")
    story.write("a", 1, decision="refused", reason="dry-run", message="it was")
    story.settle("a", 80, NOT_HEALED)
    assert story.rules() == ["effect"]


def test_what_must_be_settled_is_listed() -> None:
    """An effect that only time or nothing is needed for is missing at rest.

    It may be settled a third of heals-within later.
    """
    story = effects()
    story.run("a", 0)
    assert unsettled(story, 400) == []
    story.write("a", 20, resolved_at=at_second(20))
    assert unsettled(story, 99) == []
    assert unsettled(story, 100) == ["the effect of jobs/a is None, not healed"]
    story.settle("a", 80, HEALED, 20)
    assert unsettled(story, 400) == []


def unsettled(story: Story, at: float) -> list[str]:
    """Return what the judge finds missing at a second."""
    judge = Judge(Envelope())
    for change in story.changes:
        judge.change(change)
    return judge.unsettled(after(at))

"""The effect does not depend on the order in which facts arrive."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openfero_gitops.delivery.pairs import is_resolved_by
from openfero_gitops.demo.cluster.jsonpatch import apply_patch
from openfero_gitops.domain.effect import FINAL_EFFECTS, Effect
from openfero_gitops.domain.timestamp import format_time
from openfero_gitops.effects.assess import Assessment, assess, is_still_firing
from openfero_gitops.effects.settler import settling_time
from openfero_gitops.jobs import patches
from openfero_gitops.jobs.observe import read_remediation
from tests.support.build import NOW, STARTS_AT, finished, minutes, remediation, seconds, stored
from tests.support.depth import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta

    from openfero_gitops.domain.remediation import Remediation

#: The Job starts at NOW and ends two minutes later, so that it must have healed by the 17th.
END = NOW + minutes(2)
DEADLINE = END + minutes(15)
LAST = NOW + minutes(16 * 60)
#: An effect that a late delivery may change is settled so long after it is known.
GRACE = minutes(5)

Job = dict[str, Any]
Fact = tuple[str, "Callable[[Job, list[Remediation]], Job]"]


def ended() -> Fact:
    """The Job controller reports that the Job has completed."""

    def apply(job: Job, _: list[Remediation]) -> Job:
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": format_time(END)}
        status = {
            "startTime": format_time(NOW),
            "completionTime": format_time(END),
            "conditions": [condition],
        }
        return {**job, "status": status}

    return "ended", apply


def fired(moment: datetime, starts_at: datetime) -> Fact:
    """A firing delivery: what it says is recorded as `delivery` does it."""

    def apply(job: Job, _: list[Remediation]) -> Job:
        observed = read_remediation(job)
        if is_still_firing(observed, starts_at, moment):
            return apply_patch(job, patches.still_firing(observed, moment))
        return job

    return "fired", apply


def was_resolved(moment: datetime) -> Fact:
    """A resolved delivery."""

    def apply(job: Job, _: list[Remediation]) -> Job:
        observed = read_remediation(job)
        if observed.resolved_at is None and is_resolved_by(observed, moment):
            return apply_patch(job, patches.resolve(observed, moment))
        return job

    return "resolved", apply


def another(job: Remediation) -> Fact:
    """Another Job of the same labels appears."""

    def apply(own: Job, others: list[Remediation]) -> Job:
        others.append(job)
        return own

    return "another", apply


def after(bound: timedelta = LAST - NOW) -> st.SearchStrategy[datetime]:
    """A moment after the start of the Job."""
    return st.integers(1, int(bound.total_seconds())).map(lambda count: NOW + seconds(count))


#: Any time after the start of the Job.
ANY = after(minutes(60)) | after()
#: Around the times at which it matters whether something is heard late.
NEAR = st.builds(
    lambda moment, count: moment + count * seconds(100),
    st.sampled_from((DEADLINE, DEADLINE + minutes(15))),
    st.integers(-2, 2),
)


@st.composite
def histories(
    draw: st.DrawFn, moments: st.SearchStrategy[datetime] = ANY
) -> list[tuple[datetime, Fact]]:
    """What happens to the alert of a Job, and when."""
    facts = [(END, ended())]
    if draw(st.booleans()):
        moment = draw(moments)
        facts.append((moment, was_resolved(moment)))
    wobble = st.integers(-30, 60).map(lambda count: STARTS_AT + seconds(count))
    deliveries = st.lists(moments, max_size=3)
    facts += [(moment, fired(moment, draw(wobble))) for moment in draw(deliveries)]
    for number in range(draw(st.integers(0, 2))):
        moment = draw(moments)
        has_run = draw(st.booleans())
        starts_at = draw(st.sampled_from((moment, STARTS_AT)))
        job = (
            finished(
                f"job-{number + 2}",
                began=moment,
                ended=moment + minutes(1),
                starts_at=starts_at,
                received_at=moment,
            )
            if has_run
            else remediation(f"job-{number + 2}", starts_at=starts_at, received_at=moment)
        )
        facts.append((moment, another(job)))
    return facts


def started() -> Job:
    """The Job when it starts."""
    return stored(
        annotations={"openfero.io/admitted-at": format_time(NOW)}, spec={"suspend": False}
    )


def settled(heard: Iterable[tuple[datetime, Fact]]) -> Remediation:
    """Let each fact be heard at a time, and the leader settle what it may meanwhile, at once."""
    job, now = started(), NOW
    others: list[Remediation] = []
    nothing: Fact = ("nothing", lambda own, _: own)
    for moment, (_, apply) in [*sorted(heard, key=itemgetter(0)), (LAST + minutes(9999), nothing)]:
        while True:
            observed = read_remediation(job)
            assessment = assess(observed, [observed, *others], now)
            assert assessment is not None
            is_news = assessment.effect not in (Effect.PENDING, observed.effect)
            due = settling_time(observed, assessment) if is_news else assessment.next_change
            if due is None or due >= moment:
                break
            if due > now:
                now = due
                continue
            at, message = assessment.at, assessment.message
            assert at is not None
            job = apply_patch(job, patches.settle(observed, assessment.effect, at, message))
        job, now = apply(job, others), moment
    return read_remediation(job)


def result(facts: Iterable[Fact], at: datetime) -> Assessment:
    """Let the facts arrive in this order, and assess the Job."""
    job = started()
    others: list[Remediation] = []
    for _, apply in facts:
        job = apply(job, others)
    observed = read_remediation(job)
    assessment = assess(observed, [observed, *others], at)
    assert assessment is not None
    return assessment


@given(data=st.data(), history=histories())
def test_any_order_of_the_facts_gives_the_same_effect(
    data: st.DataObject, history: list[tuple[datetime, Fact]]
) -> None:
    """Deliveries, the end of the Job and other Jobs may be heard of in any order.

    The end of a Job is heard before a delivery that comes heals-within later.
    """
    facts = [fact for _, fact in history]
    shuffled = data.draw(st.permutations(facts))
    names = [name for name, _ in shuffled]
    end = names.index("ended")
    first_fired = names.index("fired") if "fired" in names else len(names)
    if end > first_fired:
        shuffled.insert(first_fired, shuffled.pop(end))
    for at in (END, DEADLINE, DEADLINE + minutes(60), LAST, LAST + minutes(24 * 60)):
        assert result(shuffled, at).effect is result(facts, at).effect


@settings(max_examples=scaled(200))
@given(data=st.data(), history=histories(NEAR))
def test_news_that_comes_late_changes_no_settled_effect(
    data: st.DataObject, history: list[tuple[datetime, Fact]]
) -> None:
    """If each fact is heard within the grace, the effect is as if each was heard at once.

    A firing delivery only shows that the alert fires when it is heard. That an alert fired again is
    heard before the end of that, which comes too late for the Job and decides at once.
    """
    prompt = {"fired"}
    if any(fact[0] == "resolved" and moment > DEADLINE for moment, fact in history):
        prompt.add("another")
    late = st.sampled_from((seconds(0), GRACE / 2, GRACE - seconds(1)))
    heard = [
        (moment if fact[0] in prompt else moment + data.draw(late), fact)
        for moment, fact in history
    ]
    assert settled(heard).effect is settled(history).effect


@given(history=histories())
def test_an_effect_that_is_final_stays_as_it_is(history: list[tuple[datetime, Fact]]) -> None:
    """Time alone never changes healed or not-healed, and at last every effect is known."""
    facts = [fact for _, fact in history]
    at = (
        END,
        DEADLINE,
        DEADLINE + minutes(30),
        LAST,
        LAST + minutes(60),
        LAST + minutes(9999),
    )
    effects = [result(facts, moment).effect for moment in at]
    known = [effect for effect in effects if effect in FINAL_EFFECTS]
    assert len(set(known)) <= 1
    assert effects[len(effects) - len(known) :] == known or Effect.UNKNOWN in effects
    assert effects[-1] is not Effect.PENDING
